"""Small models of every family, with weights that are far from any initialisation."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from moreseek.model.config import ModelConfig
from moreseek.model.transformer import Transformer, build
from moreseek.native import bindings

VOCAB, CONTEXT = 89, 256
BASE = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
}
DEEPSEEK = BASE | {
    "model_type": "deepseek_v3",
    "kv_lora_rank": 24,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 20,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.5,
}
DENSE = BASE | {"num_key_value_heads": 2, "head_dim": 12}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 32, "beta_slow": 1}
YARN_V3 = YARN | {"mscale": 0.7, "mscale_all_dim": 1.0}
KINDS: dict[str, dict[str, Any]] = {
    "v3": DEEPSEEK | {"num_nextn_predict_layers": 1},
    "v3-q-lora-groups-yarn": DEEPSEEK
    | {"q_lora_rank": 20, "n_group": 4, "topk_group": 2, "rope_scaling": YARN_V3, "attention_bias": True},
    "v3-whole-vectors": DEEPSEEK
    | {"kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 16, "num_attention_heads": 3},
    "llama": DENSE | {"model_type": "llama"},
    "llama-whole-vectors": DENSE | {"model_type": "llama", "head_dim": 32},
    "qwen2": DENSE | {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": DENSE | {"model_type": "qwen3", "num_key_value_heads": 1},
}

MakeModel = Callable[..., Transformer]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny products gain nothing from a second thread, and wait for it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["native", "torch"])
def both_paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run with the native kernels, and again with their twins in torch, as on a machine without a compiler."""
    if request.param == "torch":
        monkeypatch.setattr(bindings, "why_not", lambda: "switched off by a test")
    elif (reason := bindings.why_not()) is not None:
        pytest.skip(f"no native kernels: {reason}")
    return request.param


@pytest.fixture(scope="session")
def make_model() -> MakeModel:
    """make_model("v3", n_group=4, …): a model of that kind in eval mode, with some settings changed."""

    def make(kind: str, seed: int = 1, **changes: Any) -> Transformer:
        model = build(ModelConfig.model_validate(KINDS[kind] | changes), seed=seed)
        scramble(model, seed)
        return model.eval()

    return make


@pytest.fixture(params=KINDS)
def any_model(request: pytest.FixtureRequest, make_model: MakeModel) -> Transformer:
    return make_model(request.param)


@torch.no_grad()
def scramble(model: Transformer, seed: int) -> None:
    """Weights that leave nothing near zero, one or uniform: norms around 1, sharp attention, a router that chooses."""
    generator = torch.Generator().manual_seed(seed + 1)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() >= 2:
            parameter.copy_(noise * (1.0 if "embed" in name else 1.3 * parameter.shape[-1] ** -0.5))
        else:
            parameter.copy_(noise * 0.3 + (1.0 if name.endswith("weight") else 0.0))
    for router in model.routers():
        router.bias.copy_(torch.randn(router.bias.shape, generator=generator) * 0.2)
