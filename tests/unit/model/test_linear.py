"""Transposed weights exist only inside ``decoding`` and change nothing but speed."""

import pytest
import torch

from moreseek.model.config import ModelConfig
from moreseek.model.linear import Linear, decoding
from moreseek.model.transformer import Transformer, build

SHAPE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 24,
}  # fmt: skip


@pytest.fixture(params=["deepseek_v3", "qwen2"])
def model(request: pytest.FixtureRequest) -> Transformer:
    made = build(ModelConfig(model_type=request.param, **SHAPE), seed=1)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made.eval()


def test_transposed_weights_give_the_same_logits(model):
    ids = torch.randint(0, 61, (3, 9))
    with torch.no_grad():
        plain = model(ids)
    with decoding(model, copies=True):
        torch.testing.assert_close(model(ids), plain, atol=1e-5, rtol=1e-5)


def test_an_updated_weight_is_seen_by_the_next_decoding(model):
    ids = torch.randint(0, 61, (1, 5))
    with decoding(model, copies=True):
        before = model(ids)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
        expected = model(ids)
    with decoding(model, copies=True):
        after = model(ids)
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before, after)


def test_copies_are_dropped_even_when_decoding_fails(model):
    def fail() -> None:
        with decoding(model, copies=True):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert all(layer.transposed is None for layer in model.modules() if isinstance(layer, Linear))


def test_a_linear_layer_with_a_bias_agrees():
    layer, x = Linear(7, 5), torch.randn(2, 3, 7)
    plain = layer(x)
    with decoding(layer, copies=True):
        torch.testing.assert_close(layer(x), plain.detach())
