"""The pretraining method: which losses a step has."""

from dataclasses import replace

import pytest

from moreseek.data.loader import PackedLoader
from moreseek.data.shards import write_shards
from moreseek.model.config import ModelConfig
from moreseek.model.transformer import build
from moreseek.training.pretrain import Pretrain
from moreseek.training.settings import PretrainSettings


@pytest.fixture
def pretrain(tmp_path):
    """pretrain(**settings): ten steps of a small V3-shaped model on documents of four tokens."""
    config = ModelConfig(
        model_type="deepseek_v3", vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
        num_attention_heads=2, kv_lora_rank=8, qk_nope_head_dim=4, qk_rope_head_dim=4, v_head_dim=4,
        n_routed_experts=2, num_experts_per_tok=1, moe_intermediate_size=8, first_k_dense_replace=1,
        num_nextn_predict_layers=1, max_position_embeddings=16,
    )  # fmt: skip
    shards = write_shards(tmp_path / "shards", [[1, 2, 3, 0]] * 200, 32, "none")

    def make(**settings):
        table = {"method": "pretrain", "name": "base", "steps": 10, "documents": [{"source": "a:b"}]} | settings
        loader = PackedLoader(shards, 8, 2, seed=1)
        return Pretrain(build(config, seed=1), loader, PretrainSettings.model_validate(table))

    return make


def parts(method, step):
    [[batch]] = method.updates(step)
    return method.loss(batch)


def test_the_mtp_module_learns_from_the_first_step(pretrain):
    assert "mtp_loss" in parts(pretrain(), 1)[1]


def test_without_weight_it_never_learns(pretrain):
    assert "mtp_loss" not in parts(pretrain(mtp_weight=0), 10)[1]


def test_padding_counts_for_no_expert(pretrain, tmp_path):
    """It would: rows of padding all choose the same experts, whose bias would fall for it."""
    method = pretrain(balance_weight=0.1)
    method.loader = PackedLoader(write_shards(tmp_path / "five", [[1, 2, 3, 4, 0]] * 200, 32, "none"), 8, 2, seed=1)
    [[batch]] = method.updates(1)
    assert (batch.documents >= 0).sum() == 10  # of 16
    [router] = method.model.train().routers()
    _, parts = method.loss(batch)
    assert router.load.sum() == 10
    shortened = replace(batch, ids=batch.ids[:, :5], targets=batch.targets[:, :5], documents=batch.documents[:, :5])
    assert method.loss(shortened)[1]["balance_loss"] == pytest.approx(parts["balance_loss"])
