"""The loop's own part of a step: what clipping joins and what it does not."""

import pytest
import torch

from moreseek.model.config import ModelConfig
from moreseek.model.transformer import build
from moreseek.training.loop import Loop
from moreseek.training.pairs import Answer, EncodedPair, EncodedPairs
from moreseek.training.preference import PreferenceTraining
from moreseek.training.settings import PreferenceSettings

SHAPE = {
    "vocab_size": 264, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 4, "n_routed_experts": 2,
    "moe_intermediate_size": 8, "num_nextn_predict_layers": 1, "initializer_range": 0.5,
}  # fmt: skip
PAIRS = [EncodedPair(Answer([1, i], [2, i, 3, 4, 5]), Answer([1, i], [i, 6, 7, 8]), 1.0) for i in range(4)]


@pytest.fixture
def trained(tokenizer, tmp_path):
    """trained(mtp_weight): the weights after three steps whose gradients are clipped to almost nothing."""

    def train(mtp_weight):
        model = build(ModelConfig.model_validate(SHAPE), seed=1)
        table = {"method": "preference", "name": "p", "start_from": "x", "data": "d", "steps": 3, "pairs_per_step": 2}
        table |= {"mtp_weight": mtp_weight, "optimizer": {"clip_norm": 1e-3}}
        settings = PreferenceSettings.model_validate(table)
        folder = tmp_path / str(mtp_weight)
        folder.mkdir()
        Loop(
            model, tokenizer, PreferenceTraining(model, EncodedPairs(PAIRS, [], 0), settings, 1), settings, folder
        ).run()
        return dict(model.named_parameters())

    return train


def test_a_loss_of_the_mtp_module_alone_moves_no_other_weight(trained):
    """Nor does it through the norm that gradients are clipped to: a large one of its own would slow all others down."""
    without, heavy = trained(0.0), trained(5.0)
    moved = {name for name, weight in without.items() if not torch.equal(weight, heavy[name])}
    assert moved
    assert all(name.startswith("mtp.") for name in moved)
