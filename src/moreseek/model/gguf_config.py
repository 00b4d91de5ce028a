"""The metadata of a .gguf file as our config: what the model is, and what of it we cannot honour."""

import math
from typing import Any

import numpy as np
import torch

from moreseek.config import parse
from moreseek.errors import InputError
from moreseek.model.config import Family, ModelConfig
from moreseek.model.layers import rope_frequencies
from moreseek.text.gguf import gguf_token_ids
from moreseek.text.gguf_file import GGUFFile

FAMILIES: dict[str, Family] = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "deepseek2": "deepseek_v3",  # llama.cpp's one name for V2, V3 and R1
}
SIGMOID = 2
"""llama.cpp's number of V3's expert gating function."""

ROPE_FACTORS = "rope_freqs.weight"
"""The tensor with Llama 3's table of rope factors: no weight, but part of the config."""

_MAX_LAYERS, _MAX_WIDTH, _MAX_CONTEXT = 1024, 1 << 20, 1 << 30  # beyond any model

# Settings that change the maths and that our model does not have, under their GGUF names; 0 or false is harmless.
_UNSUPPORTED = (
    "logit_scale", "residual_scale", "embedding_scale", "attention.scale", "attention.clamp_kqv",
    "attention.max_alibi_bias", "attention.temperature_scale", "rope.scaling.attn_factor",
    "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_ext_factor", "rope.scaling.alpha", "nextn_predict_layers",
)  # fmt: skip
_UNSUPPORTED_DENSE = ("expert_count", "rope.scaling.yarn_log_multiplier")


def gguf_config(file: GGUFFile) -> ModelConfig:
    """The shape of the model in a file. Raises InputError for an architecture or a setting that we do not have."""
    architecture = file.get("general.architecture", str)
    if architecture not in FAMILIES:
        raise InputError(
            f"{file.path}: the GGUF architecture '{architecture}' is not supported. Supported: {', '.join(FAMILIES)}."
        )
    if file.get("split.count", int, 1) > 1:
        raise InputError(f"{file.path}: one part of several. Join them first: llama-gguf-split --merge FIRST OUT.")
    _refuse_unsupported(file, architecture)
    ids = gguf_token_ids(file)
    table: dict[str, Any] = {
        "model_type": FAMILIES[architecture],
        "vocab_size": _vocab_size(file),
        "hidden_size": _count(file, "embedding_length"),
        "intermediate_size": _count(file, "feed_forward_length"),
        "num_hidden_layers": _count(file, "block_count", most=_MAX_LAYERS),
        "num_attention_heads": _count(file, "attention.head_count"),
        "max_position_embeddings": _count(file, "context_length", most=_MAX_CONTEXT),
        "rms_norm_eps": _positive(file, "attention.layer_norm_rms_epsilon"),
        "rope_theta": _positive(file, "rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(file),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": ids.bos,
        "eos_token_id": list(ids.eos) if len(ids.eos) > 1 else next(iter(ids.eos), None),
        "pad_token_id": ids.pad,
    }
    table |= _latent(file) if architecture == "deepseek2" else _grouped(file)
    config = parse(ModelConfig, table, f"{file.path}: metadata")
    if ROPE_FACTORS not in file.tensors:
        return config
    return config.model_copy(update={"rope_scaling": _llama3_scaling(file, config)})


def _grouped(file: GGUFFile) -> dict[str, Any]:
    """What only the dense families have."""
    architecture = file.get("general.architecture", str)
    heads = _count(file, "attention.head_count")
    head_dim = _count(file, "attention.key_length", max(1, _count(file, "embedding_length") // heads))
    for key in ("attention.value_length", "rope.dimension_count"):
        if _count(file, key, head_dim) != head_dim:
            raise InputError(f"{file.path}: {architecture}.{key} must equal the head's width {head_dim}.")
    return {
        "num_key_value_heads": _count(file, "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "attention_bias": architecture != "qwen2" and "blk.0.attn_output.bias" in file.tensors,
    }


def _latent(file: GGUFFile) -> dict[str, Any]:
    """What only DeepSeek-V3 has. The lengths without _mla are those of the latent, as the cache holds it."""
    gate = file.get("deepseek2.expert_gating_func", int, 0)
    if gate != SIGMOID:
        raise InputError(
            f"{file.path}: deepseek2.expert_gating_func is {gate}; only V3's sigmoid ({SIGMOID}) is supported, "
            "so neither DeepSeek-V2 nor a file from before 2025. Convert the model again with a newer llama.cpp."
        )
    rope, key = _count(file, "rope.dimension_count"), _count(file, "attention.key_length_mla")
    table = {
        "q_lora_rank": _count(file, "attention.q_lora_rank", 0, least=0) or None,
        "kv_lora_rank": _count(file, "attention.kv_lora_rank"),
        "qk_nope_head_dim": key - rope,
        "qk_rope_head_dim": rope,
        "v_head_dim": _count(file, "attention.value_length_mla"),
        "n_routed_experts": _count(file, "expert_count"),
        "n_shared_experts": _count(file, "expert_shared_count", 0, least=0),
        "num_experts_per_tok": _count(file, "expert_used_count"),
        "moe_intermediate_size": _count(file, "expert_feed_forward_length"),
        "first_k_dense_replace": _count(file, "leading_dense_block_count", 0, least=0),
        "n_group": _count(file, "expert_group_count", 1),
        "topk_group": _count(file, "expert_group_used_count", 1),
        "norm_topk_prob": file.get("deepseek2.expert_weights_norm", bool, False),
        "routed_scaling_factor": file.get("deepseek2.expert_weights_scale", float, 1.0) or 1.0,
    }
    for entry in file.tensors.values():  # before as many experts as the metadata claim are looked for
        if "_exps." in entry.name and (entry.shape[0] != table["n_routed_experts"] or entry.shape[0] > file.size):
            raise InputError(
                f"{file.path}: the tensors do not fit the metadata: {entry.name} is {entry.shape}, "
                f"expert_count is {table['n_routed_experts']}."
            )
    return table


def _vocab_size(file: GGUFFile) -> int:
    """Rows of the embedding, which may be padded beyond the tokenizer's tokens."""
    embedding = file.tensors.get("token_embd.weight")
    tokens = len(file.get_list("tokenizer.ggml.tokens", str))
    if embedding is None or not tokens <= embedding.shape[0] <= _MAX_WIDTH:
        found = "missing" if embedding is None else f"of shape {embedding.shape}"
        raise InputError(f"{file.path}: the tensor token_embd.weight is {found}, with {tokens} tokens to embed.")
    return embedding.shape[0]


def _refuse_unsupported(file: GGUFFile, architecture: str) -> None:
    names = _UNSUPPORTED + (() if architecture == "deepseek2" else _UNSUPPORTED_DENSE)
    for key in (f"{architecture}.{name}" for name in names):
        if file.metadata.get(key):
            raise InputError(f"{file.path}: {key} = {file.metadata[key]!r} is not supported.")
    window = file.get(f"{architecture}.attention.sliding_window", int, 0)
    if 0 < window < _count(file, "context_length", most=_MAX_CONTEXT):
        raise InputError(f"{file.path}: sliding-window attention (of {window} tokens) is not supported.")


def _count(file: GGUFFile, name: str, default: int | None = None, *, least: int = 1, most: int = _MAX_WIDTH) -> int:
    """A size from the metadata, from ``least`` to ``most``."""
    key = f"{file.get('general.architecture', str)}.{name}"
    value = file.get(key, int) if default is None else file.get(key, int, default)
    if not least <= value <= most:
        raise InputError(f"{file.path}: {key} is {value}; it must be from {least} to {most}.")
    return value


def _positive(file: GGUFFile, name: str, default: float | None = None) -> float:
    key = f"{file.get('general.architecture', str)}.{name}"
    value = file.get(key, float) if default is None else file.get(key, float, default)
    if not 0 < value < math.inf:
        raise InputError(f"{file.path}: {key} is {value}; it must be above 0.")
    return value


def _rope_scaling(file: GGUFFile) -> dict[str, Any] | None:
    architecture = file.get("general.architecture", str)
    kind = file.get(f"{architecture}.rope.scaling.type", str, "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise InputError(f"{file.path}: rope scaling '{kind}' is not supported (linear, yarn and llama3's are).")
    scaling: dict[str, Any] = {"rope_type": kind, "factor": _positive(file, "rope.scaling.factor")}
    if kind == "yarn":
        scaling["original_max_position_embeddings"] = _count(
            file, "rope.scaling.original_context_length", most=_MAX_CONTEXT
        )
        for name in ("beta_fast", "beta_slow"):
            if f"{architecture}.rope.scaling.yarn_{name}" in file.metadata:
                scaling[name] = _positive(file, f"rope.scaling.yarn_{name}")
        if f"{architecture}.rope.scaling.yarn_log_multiplier" in file.metadata:
            # llama.cpp keeps a tenth of it, and takes mscale to be the same, so that cos and sin are not scaled.
            scaling["mscale_all_dim"] = round(_positive(file, "rope.scaling.yarn_log_multiplier") / 0.1, 6)
            scaling["mscale"] = scaling["mscale_all_dim"]
    return scaling


def _llama3_scaling(file: GGUFFile, config: ModelConfig) -> dict[str, Any]:
    """The rope_scaling behind Llama 3's table of factors, which is all that a GGUF keeps of it.

    Every Llama 3.1, 3.2 and 3.3 has the same three other numbers; the table tells whether this file has too.
    """
    entry = file.tensors[ROPE_FACTORS]
    count = config.attention_head_dim // 2
    if entry.kind != 0 or entry.shape != (count,) or entry.start + 4 * count > file.size:
        raise InputError(f"{file.path}: {ROPE_FACTORS} must hold {count} F32 numbers.")
    factors = torch.from_numpy(file.bytes_at(entry.start, 4 * count).view(np.float32).copy())
    scaling = {
        "rope_type": "llama3",
        "factor": float(factors.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    plain, _ = rope_frequencies(config.model_copy(update={"rope_scaling": None}))
    scaled, _ = rope_frequencies(config.model_copy(update={"rope_scaling": scaling}))
    if config.rope_scaling is not None or not torch.allclose(plain / scaled, factors, rtol=1e-3):
        raise InputError(f"{file.path}: the factors of {ROPE_FACTORS} are not Llama 3's; others are not supported.")
    return scaling
