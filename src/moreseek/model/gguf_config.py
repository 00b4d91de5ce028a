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

FAMILIES: dict[str, Family] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
ROPE_FACTORS = "rope_freqs.weight"
"""The tensor with Llama 3's table of rope factors: no weight, but part of the config."""

_MAX_LAYERS, _MAX_WIDTH, _MAX_CONTEXT = 1024, 1 << 20, 1 << 30  # beyond any model

# Settings that change the maths and that our model does not have, under their GGUF names; 0 or false is harmless.
_UNSUPPORTED = (
    "expert_count", "logit_scale", "residual_scale", "embedding_scale", "attention.scale", "attention.clamp_kqv",
    "attention.max_alibi_bias", "rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_log_multiplier", "rope.scaling.alpha",
)  # fmt: skip


def gguf_config(file: GGUFFile) -> ModelConfig:
    """The shape of the model in a file. Raises InputError for an architecture or a setting that we do not have."""
    architecture = file.get("general.architecture", str)
    if architecture not in FAMILIES:
        later = " It is planned." if architecture == "deepseek2" else ""
        raise InputError(
            f"{file.path}: the GGUF architecture '{architecture}' is not supported.{later} "
            f"Supported: {', '.join(FAMILIES)}."
        )
    if file.get("split.count", int, 1) > 1:
        raise InputError(f"{file.path}: one part of several. Join them first: llama-gguf-split --merge FIRST OUT.")
    _refuse_unsupported(file, architecture)
    width = _count(file, "embedding_length")
    heads = _count(file, "attention.head_count")
    head_dim = _count(file, "attention.key_length", width // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if _count(file, key, head_dim) != head_dim:
            raise InputError(f"{file.path}: {architecture}.{key} must equal the head's width {head_dim}.")
    if heads * head_dim > _MAX_WIDTH:
        raise InputError(f"{file.path}: {heads} heads of width {head_dim} are beyond any model.")
    ids = gguf_token_ids(file)
    table: dict[str, Any] = {
        "model_type": FAMILIES[architecture],
        "vocab_size": _vocab_size(file),
        "hidden_size": width,
        "intermediate_size": _count(file, "feed_forward_length"),
        "num_hidden_layers": _count(file, "block_count", most=_MAX_LAYERS),
        "num_attention_heads": heads,
        "num_key_value_heads": _count(file, "attention.head_count_kv", heads),
        "head_dim": head_dim,
        "max_position_embeddings": _count(file, "context_length", most=_MAX_CONTEXT),
        "rms_norm_eps": _positive(file, "attention.layer_norm_rms_epsilon"),
        "rope_theta": _positive(file, "rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(file),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "attention_bias": architecture != "qwen2" and "blk.0.attn_output.bias" in file.tensors,
        "bos_token_id": ids.bos,
        "eos_token_id": list(ids.eos) if len(ids.eos) > 1 else next(iter(ids.eos), None),
        "pad_token_id": ids.pad,
    }
    config = parse(ModelConfig, table, f"{file.path}: metadata")
    if ROPE_FACTORS not in file.tensors:
        return config
    return config.model_copy(update={"rope_scaling": _llama3_scaling(file, config)})


def _vocab_size(file: GGUFFile) -> int:
    """Rows of the embedding, which may be padded beyond the tokenizer's tokens."""
    embedding = file.tensors.get("token_embd.weight")
    tokens = len(file.get_list("tokenizer.ggml.tokens", str))
    if embedding is None or not tokens <= embedding.shape[0] <= _MAX_WIDTH:
        found = "missing" if embedding is None else f"of shape {embedding.shape}"
        raise InputError(f"{file.path}: the tensor token_embd.weight is {found}, with {tokens} tokens to embed.")
    return embedding.shape[0]


def _refuse_unsupported(file: GGUFFile, architecture: str) -> None:
    for key in (f"{architecture}.{name}" for name in _UNSUPPORTED):
        if file.metadata.get(key):
            raise InputError(f"{file.path}: {key} = {file.metadata[key]!r} is not supported.")
    window = file.get(f"{architecture}.attention.sliding_window", int, 0)
    if 0 < window < _count(file, "context_length", most=_MAX_CONTEXT):
        raise InputError(f"{file.path}: sliding-window attention (of {window} tokens) is not supported.")


def _count(file: GGUFFile, name: str, default: int | None = None, most: int = _MAX_WIDTH) -> int:
    """A size from the metadata: at least 1, at most ``most``."""
    key = f"{file.get('general.architecture', str)}.{name}"
    value = file.get(key, int) if default is None else file.get(key, int, default)
    if not 1 <= value <= most:
        raise InputError(f"{file.path}: {key} is {value}; it must be from 1 to {most}.")
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
