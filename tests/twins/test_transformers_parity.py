"""Our model equals transformers' on the same folder, and files survive the way there and back."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import moreseek
from moreseek.model.cache import Cache, CacheView
from moreseek.model.config import ModelConfig
from moreseek.model.transformer import Transformer, build
from moreseek.model.weights import export_tensors

transformers = pytest.importorskip("transformers")

BASE: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "max_position_embeddings": 256,
}  # fmt: skip
V3: dict[str, Any] = BASE | {
    "model_type": "deepseek_v3", "kv_lora_rank": 24, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 40, "routed_scaling_factor": 2.5,
}  # fmt: skip
YARN = {
    "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1,
    "mscale": 1.0, "mscale_all_dim": 1.0,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
GRID: dict[str, dict[str, Any]] = {
    "v3": V3,
    "v3 q_lora": V3 | {"q_lora_rank": 32},
    "v3 groups": V3 | {"n_group": 4, "topk_group": 2},
    "v3 groups yarn q_lora": V3 | {"n_group": 4, "topk_group": 2, "rope_scaling": YARN, "q_lora_rank": 32},
    "v3 no shared expert": V3 | {"n_shared_experts": 0},
    "v3 two shared experts, bias": V3 | {"n_shared_experts": 2, "attention_bias": True, "q_lora_rank": 32},
    "v3 yarn mtp": V3 | {"rope_scaling": YARN, "num_nextn_predict_layers": 1},
    "v3 value wider than key": V3 | {"v_head_dim": 32},
    "llama gqa": BASE | {"model_type": "llama", "num_key_value_heads": 2},
    "llama tied bias llama3": BASE
    | {"model_type": "llama", "tie_word_embeddings": True, "attention_bias": True, "rope_scaling": LLAMA3},
    "qwen2": BASE | {"model_type": "qwen2", "num_key_value_heads": 2},
    "qwen3": BASE | {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 24},
    "qwen3 yarn": BASE | {"model_type": "qwen3", "rope_scaling": {k: YARN[k] for k in list(YARN)[:3]}},
}


def scrambled(settings: dict[str, Any]) -> Transformer:
    """A model none of whose weights is at a special value, router bias included."""
    model = build(ModelConfig(**settings), seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        for router in model.routers():
            router.bias.copy_(torch.rand(router.bias.shape, generator=generator) * 0.4 - 0.2)
    return model


@pytest.mark.parametrize("name", GRID)
@torch.no_grad()
def test_logits_equal_transformers_within_1e_4(name: str, tmp_path: Path, record_property: Any) -> None:
    model = scrambled(GRID[name])
    moreseek.save_model(model, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    ids = torch.randint(0, 97, (2, 70), generator=torch.Generator().manual_seed(3))
    difference = float((model(ids) - theirs(ids).logits).abs().max())
    record_property("largest_difference", difference)
    print(f"{name}: largest difference {difference:.1e}")
    assert difference < 1e-4


@pytest.mark.parametrize("name", GRID)
@torch.no_grad()
def test_our_save_their_load_their_save_our_load_gives_equal_tensors(name: str, tmp_path: Path) -> None:
    model = scrambled(GRID[name])
    moreseek.save_model(model, tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    back = moreseek.load_model(tmp_path / "theirs")
    before, after = dict(export_tensors(model)), dict(export_tensors(back))
    mtp = f"model.layers.{model.config.num_hidden_layers}."  # transformers drops the MTP layer when it saves
    kept = {key: value for key, value in before.items() if not key.startswith(mtp)}
    assert kept.keys() == after.keys()
    for key, value in kept.items():
        assert torch.equal(value, after[key]), key


@pytest.mark.parametrize("name", GRID)
@torch.no_grad()
def test_a_saved_model_loads_again_with_every_tensor_and_the_same_config(name: str, tmp_path: Path) -> None:
    model = scrambled(GRID[name])
    moreseek.save_model(model, tmp_path)
    back = moreseek.load_model(tmp_path)
    assert back.config.model_dump(exclude={"rope_scaling"}) | {"num_key_value_heads": 0, "head_dim": 0} == (
        model.config.model_dump(exclude={"rope_scaling"}) | {"num_key_value_heads": 0, "head_dim": 0}
    )
    before, after = dict(export_tensors(model)), dict(export_tensors(back))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_v3_config_holds_what_vllm_needs(tmp_path: Path) -> None:
    moreseek.save_model(scrambled(V3), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    wanted = {"scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1}
    assert {key: config.get(key) for key in wanted} == wanted


@pytest.mark.parametrize("name", GRID)
@torch.no_grad()
def test_cached_decoding_equals_the_whole_sequence(name: str) -> None:
    """Prefill, a continuation of several tokens, then single tokens, with rows at different places."""
    model = scrambled(GRID[name])
    ids = torch.randint(0, 97, (2, 40), generator=torch.Generator().manual_seed(4))
    whole = model(ids)
    cache = Cache(model.config, 3, 64, model.embed_tokens.weight)
    start = torch.zeros(2, dtype=torch.int64)
    model.cached_hidden_states(ids[:, :20], CacheView(cache, 0, start, 20, 0))
    start = torch.tensor([20, 17])  # the second row's last three tokens are read again
    chunk = torch.stack([ids[0, 20:25], ids[1, 17:22]])
    hidden = model.cached_hidden_states(chunk, CacheView(cache, 0, start, 5, 20))
    logits = hidden @ model.head.t()
    torch.testing.assert_close(logits[0], whole[0, 20:25], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(logits[1], whole[1, 17:22], atol=2e-5, rtol=1e-4)
    for step in range(5, 15):
        token = torch.stack([ids[0, 20 + step], ids[1, 17 + step]]).unsqueeze(1)
        hidden = model.cached_hidden_states(token, CacheView(cache, 0, start + step, 1, 20 + step))
        logits = hidden[:, 0] @ model.head.t()
        torch.testing.assert_close(logits[0], whole[0, 20 + step], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(logits[1], whole[1, 17 + step], atol=2e-5, rtol=1e-4)
