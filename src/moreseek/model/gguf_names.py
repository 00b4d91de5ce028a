"""Which tensor of a .gguf file holds which weights: llama.cpp's names, shapes and row orders.

It turns three things around. Its llama rotates pairs (2i, 2i+1), so rows of q and k are reordered; kv_b is cut into a
transposed half for keys and one for values; the experts of a layer are one stack.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moreseek.model.config import ModelConfig
from moreseek.model.slots import slots
from moreseek.model.transformer import Transformer

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
    "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp",
    "mlp.shared_experts.down_proj": "ffn_down_shexp",
}
_EXPERT = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight")
_KV_B = re.compile(r"model\.layers\.(\d+)\.self_attn\.kv_b_proj\.weight")
_BIAS = re.compile(r"model\.layers\.(\d+)\.mlp\.gate\.e_score_correction_bias")
_PAIRED = re.compile(r".*\.[qk]_proj\.\w+")


@dataclass(frozen=True)
class Packed:
    """One tensor of the file: its shape there, the weights that it is made of, and how."""

    name: str
    shape: tuple[int, ...]
    weights: tuple[str, ...]
    pack: Callable[[Tensor], Tensor] = lambda weight: weight

    def parts(self, weights: Mapping[str, Tensor]) -> Iterator[Tensor]:
        """The tensor, in pieces that follow one another: an expert each, so that no stack is in memory."""
        return (self.pack(weights[name]) for name in self.weights)


def layout(config: ModelConfig) -> list[Packed]:
    """Every tensor of a model's .gguf file. The multi-token-prediction block has none: llama.cpp would not use it."""
    config = config.model_copy(update={"num_nextn_predict_layers": 0})
    with torch.device("meta"):  # absurd sizes must cost nothing
        shapes = {slot.name: slot.shape for slot in slots(Transformer(config))}
    found: list[Packed] = []
    for name, shape in shapes.items():
        if expert := _EXPERT.fullmatch(name):
            if expert[2] == "0":
                count = config.n_routed_experts
                names = tuple(name.replace(".experts.0.", f".experts.{i}.") for i in range(count))
                found.append(Packed(_stack(expert), (count, *shape), names))
        elif _KV_B.fullmatch(name):
            found += _halves(name, config)
        elif config.model_type == "llama" and _PAIRED.fullmatch(name):
            found.append(Packed(gguf_name(name), shape, (name,), _to_pairs(config.attention_head_dim)))
        else:
            found.append(Packed(gguf_name(name), shape, (name,)))
    return found


def unpack(name: str, config: ModelConfig, read: Callable[..., Tensor]) -> Tensor:
    """One weight under Hugging Face's name. ``read(tensor, index=None)``: a tensor of the file, or one of a stack."""
    if expert := _EXPERT.fullmatch(name):
        return read(_stack(expert), int(expert[2]))
    if _KV_B.fullmatch(name):
        keys, values = (read(half.name) for half in _halves(name, config))
        return torch.cat([keys.transpose(1, 2), values], 1).flatten(0, 1)  # (heads · (nope + v), rank)
    tensor = read(gguf_name(name))
    if config.model_type == "llama" and _PAIRED.fullmatch(name):
        pairs = tensor.unflatten(0, (-1, config.attention_head_dim // 2, 2))  # (heads, width/2, 2, …)
        return pairs.transpose(1, 2).reshape(tensor.shape)
    return tensor


def gguf_name(name: str) -> str:
    """llama.cpp's name of a weight: model.layers.3.self_attn.q_proj.weight is blk.3.attn_q.weight."""
    if bias := _BIAS.fullmatch(name):
        return f"blk.{bias[1]}.exp_probs_b.bias"
    stem, _, kind = name.rpartition(".")
    if layer := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
        return f"blk.{layer[1]}.{_NAMES[layer[2]]}.{kind}"
    return f"{_NAMES[stem]}.{kind}"


def _stack(expert: re.Match[str]) -> str:
    return f"blk.{expert[1]}.ffn_{expert[3]}_exps.weight"


def _halves(name: str, config: ModelConfig) -> Sequence[Packed]:
    """kv_b as llama.cpp's absorbed attention multiplies by it: keys (heads, rank, nope), values (heads, v, rank)."""
    heads, rank, nope, v = config.num_attention_heads, config.kv_lora_rank, config.qk_nope_head_dim, config.v_head_dim
    block = f"blk.{name.split('.')[2]}."

    def keys(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (heads, nope + v))[:, :nope].transpose(1, 2)

    def values(weight: Tensor) -> Tensor:
        return weight.unflatten(0, (heads, nope + v))[:, nope:]

    return (
        Packed(f"{block}attn_k_b.weight", (heads, rank, nope), (name,), keys),
        Packed(f"{block}attn_v_b.weight", (heads, v, rank), (name,), values),
    )


def _to_pairs(width: int) -> Callable[[Tensor], Tensor]:
    def pack(weight: Tensor) -> Tensor:
        halves = weight.unflatten(0, (-1, 2, width // 2))  # (heads, 2, width/2, …)
        return halves.transpose(1, 2).reshape(weight.shape)

    return pack
