"""A model's shape as the metadata of a .gguf file, under the keys and with the meanings that llama.cpp gives them."""

from typing import Any

import torch
from torch import Tensor

from moreseek.errors import InputError
from moreseek.model.config import ModelConfig, rope_type
from moreseek.model.gguf_config import FAMILIES, SIGMOID
from moreseek.model.layers import rope_frequencies, yarn_mscale

_ARCHITECTURES = {family: architecture for architecture, family in FAMILIES.items()}


def config_metadata(config: ModelConfig, where: str) -> dict[str, Any]:
    """The keys that describe a model. Raises InputError for what llama.cpp has no way to compute."""
    architecture = _ARCHITECTURES[config.model_type]
    _refuse_what_llama_cpp_lacks(config, where)
    table: dict[str, Any] = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "block_count": config.num_hidden_layers,
        "vocab_size": config.vocab_size,
        "attention.head_count": config.num_attention_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": config.rope_theta,
        "rope.dimension_count": config.rope_dim,
    }
    table |= _latent(config) if config.is_deepseek else _grouped(config)
    table |= _rope_scaling(config)
    return {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in table.items()}


def rope_factors(config: ModelConfig) -> Tensor | None:
    """Llama 3's factors (rope_dim / 2,): llama.cpp reads them as a tensor. None for any other rope."""
    if rope_type(config.rope_scaling) != "llama3":
        return None
    plain, _ = rope_frequencies(config.model_copy(update={"rope_scaling": None}))
    return (plain / rope_frequencies(config)[0]).to(torch.float32)


def _grouped(config: ModelConfig) -> dict[str, Any]:
    return {
        "attention.head_count_kv": config.kv_heads,
        "attention.key_length": config.attention_head_dim,
        "attention.value_length": config.attention_head_dim,
    }


def _latent(config: ModelConfig) -> dict[str, Any]:
    """Attention as llama.cpp runs it, absorbed: keys are one head, the latent and the rope part."""
    table: dict[str, Any] = {
        "attention.head_count_kv": 1,
        "attention.q_lora_rank": config.q_lora_rank or 0,  # it asks for the key even where there is no such rank
        "attention.kv_lora_rank": config.kv_lora_rank,
        "attention.key_length": config.kv_lora_rank + config.qk_rope_head_dim,
        "attention.value_length": config.kv_lora_rank,
        "attention.key_length_mla": config.qk_head_dim,
        "attention.value_length_mla": config.v_head_dim,
        "leading_dense_block_count": min(config.first_k_dense_replace, config.num_hidden_layers),
        "expert_count": config.n_routed_experts,
        "expert_used_count": config.num_experts_per_tok,
        "expert_shared_count": config.n_shared_experts,
        "expert_feed_forward_length": config.moe_intermediate_size,
        "expert_weights_scale": config.routed_scaling_factor,
        "expert_weights_norm": config.norm_topk_prob,
        "expert_gating_func": SIGMOID,
    }
    if config.topk_group < config.n_group:  # choosing among all groups is choosing freely, and llama.cpp aborts on it
        table |= {"expert_group_count": config.n_group, "expert_group_used_count": config.topk_group}
    return table


def _rope_scaling(config: ModelConfig) -> dict[str, Any]:
    scaling = config.rope_scaling or {}
    kind = rope_type(scaling)
    if kind not in ("linear", "yarn"):
        return {}
    table: dict[str, Any] = {"rope.scaling.type": kind, "rope.scaling.factor": float(scaling["factor"])}
    if kind == "yarn":
        original = scaling.get("original_max_position_embeddings") or config.max_position_embeddings
        table["rope.scaling.original_context_length"] = int(original)
        for name in ("beta_fast", "beta_slow"):
            if scaling.get(name):
                table[f"rope.scaling.yarn_{name}"] = float(scaling[name])
        if config.is_deepseek:
            table["rope.scaling.yarn_log_multiplier"] = 0.1 * scaling["mscale_all_dim"]
    return table


def _refuse_what_llama_cpp_lacks(config: ModelConfig, where: str) -> None:
    scaling, family = config.rope_scaling or {}, config.model_type
    yarn = rope_type(scaling) == "yarn"
    plain = yarn_mscale(scaling["factor"], 1.0) if yarn else 1.0
    problems = {
        "attention_bias": config.attention_bias and family in ("deepseek_v3", "qwen3"),
        "n_shared_experts = 0": config.is_deepseek and config.n_shared_experts == 0,
        "a head_dim that is not hidden_size / num_attention_heads": family == "qwen2"
        and config.attention_head_dim * config.num_attention_heads != config.hidden_size,
        "rope_scaling.truncate = false": yarn and scaling.get("truncate", True) is False,
        "rope_scaling of type llama3": family != "llama" and rope_type(scaling) == "llama3",
        "yarn without equal mscale and mscale_all_dim": config.is_deepseek
        and yarn
        and (not scaling.get("mscale") or scaling.get("mscale") != scaling.get("mscale_all_dim")),
        "mscale in rope_scaling": not config.is_deepseek and yarn and bool(scaling.get("mscale")),
        "rope_scaling.attention_factor": yarn and scaling.get("attention_factor") not in (None, plain),
    }
    found = [name for name, wrong in problems.items() if wrong]
    if found:
        raise InputError(
            f"{where}: llama.cpp's {_ARCHITECTURES[family]} cannot compute this model: it has {' and '.join(found)}. "
            "Export to a Hugging Face folder instead."
        )
