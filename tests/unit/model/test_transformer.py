"""What is said of a model's size, against the published figures of DeepSeek-V3."""

import pytest
import torch

from moreseek.model.config import ModelConfig
from moreseek.model.transformer import Transformer, flops_per_token, parameter_counts

V3 = {
    "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432, "num_hidden_layers": 61,
    "num_attention_heads": 128, "q_lora_rank": 1536, "n_routed_experts": 256, "num_experts_per_tok": 8,
    "moe_intermediate_size": 2048, "first_k_dense_replace": 3, "n_group": 8, "topk_group": 4,
}  # fmt: skip


@pytest.mark.parametrize("mtp", [0, 1])
def test_deepseek_v3_has_671_billion_parameters_of_which_37_are_active(mtp):
    with torch.device("meta"):
        model = Transformer(ModelConfig.model_validate(V3 | {"num_nextn_predict_layers": mtp}))
    counts = parameter_counts(model)
    assert counts["total"] == pytest.approx(671e9 + mtp * 11.5e9, rel=0.001)
    assert counts["active"] == pytest.approx(37.5e9, rel=0.01)
    assert flops_per_token(model, 1, training=False) == pytest.approx(2 * 36.6e9, rel=0.01)  # no look-up
