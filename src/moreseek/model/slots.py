"""Where each weight lies in memory: Hugging Face's names, row orders and fused matrices.

On disk are Hugging Face's names and one matrix a projection; in memory q, k and v (or V3's q and kv_a), and gate
and up, are one matrix each, and rope pairs are always interleaved.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

from moreseek.model.config import ModelConfig
from moreseek.model.transformer import MTP, Transformer

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


class Slot(NamedTuple):
    """One tensor on disk: its name and shape there, and the view of our memory that holds the same numbers."""

    name: str
    view: Tensor
    shape: tuple[int, ...]


def is_routing_bias(name: str) -> bool:
    """Whether a weight is e_score_correction_bias: fp32 in every file, and 0 where a file has none."""
    return name.endswith("e_score_correction_bias")


def slots(model: Transformer) -> Iterator[Slot]:
    """Every weight of the model, once, as it is named on disk."""
    for _, found in parts(model):
        yield from found


def parts(model: Transformer) -> Iterator[tuple[nn.Module, Iterator[Slot]]]:
    """The modules that a model is made of, and the weights of each."""
    config = model.config
    yield model.embed_tokens, iter([_slot(EMBEDDING, model.embed_tokens.weight)])
    for index, layer in enumerate(model.layers):
        yield layer, _block(layer, f"model.layers.{index}.", config)
    yield model.norm, iter([_slot("model.norm.weight", model.norm.weight)])
    if model.lm_head is not None:
        yield model.lm_head, iter([_slot(HEAD, model.lm_head.weight)])
    if model.mtp is not None:
        yield model.mtp, _mtp(model.mtp, f"model.layers.{config.num_hidden_layers}.", config)


def _mtp(mtp: MTP, prefix: str, config: ModelConfig) -> Iterator[Slot]:
    yield _slot(prefix + "enorm.weight", mtp.enorm.weight)
    yield _slot(prefix + "hnorm.weight", mtp.hnorm.weight)
    yield _slot(prefix + "eh_proj.weight", mtp.eh_proj.weight)
    yield _slot(prefix + "shared_head.norm.weight", mtp.norm.weight)
    yield from _block(mtp.block, prefix, config)


def _slot(name: str, tensor: Tensor) -> Slot:
    return Slot(name, tensor.detach(), tuple(tensor.shape))


def _half_split(name: str, tensor: Tensor, width: int) -> Slot:
    """Rope pairs (2i, 2i+1) in memory are rows (i, i + width/2) of a head on disk."""
    pairs = tensor.detach().unflatten(0, (-1, width // 2, 2))  # (heads, width/2, 2, …)
    return Slot(name, pairs.transpose(1, 2), tuple(tensor.shape))


def _block(block: Any, prefix: str, config: ModelConfig) -> Iterator[Slot]:
    yield _slot(prefix + "input_layernorm.weight", block.input_layernorm.weight)
    yield _slot(prefix + "post_attention_layernorm.weight", block.post_attention_layernorm.weight)
    attention = _latent_attention if config.is_deepseek else _grouped_attention
    yield from attention(block.self_attn, prefix + "self_attn.", config)
    yield from _feed_forward(block.mlp, prefix + "mlp.")


def _latent_attention(attention: Any, prefix: str, config: ModelConfig) -> Iterator[Slot]:
    first = "q_proj" if config.q_lora_rank is None else "q_a_proj"
    split = [attention.first_rows, attention.rank + attention.rope]
    q, kv = attention.qkv_a_proj.weight.split(split)
    yield _slot(f"{prefix}{first}.weight", q)
    yield _slot(f"{prefix}kv_a_proj_with_mqa.weight", kv)
    if config.attention_bias:
        q_bias, kv_bias = attention.qkv_a_proj.bias.split(split)
        if config.q_lora_rank is not None:
            yield _slot(f"{prefix}q_a_proj.bias", q_bias)
        yield _slot(f"{prefix}kv_a_proj_with_mqa.bias", kv_bias)
        yield _slot(f"{prefix}o_proj.bias", attention.o_proj.bias)
    if config.q_lora_rank is not None:
        yield _slot(f"{prefix}q_a_layernorm.weight", attention.q_a_layernorm.weight)
        yield _slot(f"{prefix}q_b_proj.weight", attention.q_b_proj.weight)
    for name in ("kv_a_layernorm", "kv_b_proj", "o_proj"):
        yield _slot(f"{prefix}{name}.weight", getattr(attention, name).weight)


def _grouped_attention(attention: Any, prefix: str, config: ModelConfig) -> Iterator[Slot]:
    width = config.attention_head_dim
    split = [attention.heads * width, attention.kv_heads * width, attention.kv_heads * width]
    for kind in ["weight", "bias"] if config.qkv_bias else ["weight"]:
        q, k, v = getattr(attention.qkv_proj, kind).split(split)
        yield _half_split(f"{prefix}q_proj.{kind}", q, width)
        yield _half_split(f"{prefix}k_proj.{kind}", k, width)
        yield _slot(f"{prefix}v_proj.{kind}", v)
    yield _slot(f"{prefix}o_proj.weight", attention.o_proj.weight)
    if config.output_bias:
        yield _slot(f"{prefix}o_proj.bias", attention.o_proj.bias)
    if attention.qk_norm:
        yield _half_split(f"{prefix}q_norm.weight", attention.q_norm.weight, width)
        yield _half_split(f"{prefix}k_norm.weight", attention.k_norm.weight, width)


def _feed_forward(mlp: Any, prefix: str) -> Iterator[Slot]:
    if not hasattr(mlp, "experts"):
        yield from _swiglu(mlp.gate_up_proj.weight, mlp.down_proj.weight, prefix)
        return
    yield _slot(f"{prefix}gate.weight", mlp.gate.weight)
    yield _slot(f"{prefix}gate.e_score_correction_bias", mlp.gate.bias)
    stacked = zip(mlp.experts.gate_up_proj, mlp.experts.down_proj, strict=True)
    for expert, (gate_up, down) in enumerate(stacked):
        yield from _swiglu(gate_up, down, f"{prefix}experts.{expert}.")
    if mlp.shared_experts is not None:
        yield from _feed_forward(mlp.shared_experts, f"{prefix}shared_experts.")


def _swiglu(gate_up: Tensor, down: Tensor, prefix: str) -> Iterator[Slot]:
    gate, up = gate_up.chunk(2)
    yield _slot(f"{prefix}gate_proj.weight", gate)
    yield _slot(f"{prefix}up_proj.weight", up)
    yield _slot(f"{prefix}down_proj.weight", down)
