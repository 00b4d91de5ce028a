"""Reading and writing Hugging Face folders: names, row orders and fused matrices.

On disk are Hugging Face's names and one matrix a projection; in memory q, k and v (or V3's q and kv_a), and gate
and up, are one matrix each, and rope pairs are always interleaved. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from moreseek.errors import InputError
from moreseek.model.config import ModelConfig
from moreseek.model.folder import WEIGHTS, FolderTensors, save_tensors
from moreseek.model.folder import read_tensors as read_tensors
from moreseek.model.transformer import Transformer


def save_model(model: Transformer, folder: Path | str, dtype: torch.dtype = torch.float32) -> None:
    """Write config.json and model.safetensors, loadable by transformers and vLLM unmodified.

    Only files are added; the tokenizer is saved beside them by its owner.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    name = str(dtype).removeprefix("torch.")
    tensors = {}
    for key, tensor in export_tensors(model):
        keep_fp32 = is_routing_bias(key)
        tensors[key] = tensor.detach().to("cpu", torch.float32 if keep_fp32 else dtype).contiguous()
    save_tensors(tensors, folder / WEIGHTS)
    write_config(folder, model.config, name)


def write_config(folder: Path, config: ModelConfig, dtype: str) -> None:
    """Write config.json and generation_config.json. ``dtype`` is the weights', as torch names it: float32, …."""
    (folder / "config.json").write_text(json.dumps(config.to_hf(dtype), indent=2) + "\n", encoding="utf-8")
    generation = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    generation |= {"pad_token_id": config.pad_token_id}
    text = json.dumps({key: value for key, value in generation.items() if value is not None}, indent=2) + "\n"
    (folder / "generation_config.json").write_text(text, encoding="utf-8")


def load_model(path: Path | str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Transformer:
    """Load a Hugging Face folder or a .gguf file as a module: model(ids: (B, T) int64) → logits (B, T, V).

    Raises InputError for a missing or corrupt file, a pickle, an unknown architecture, or shapes that do not fit.
    """
    path = Path(path)
    if path.suffix == ".gguf":
        from moreseek.model.gguf import load_gguf

        return load_gguf(path, dtype=dtype, device=device)
    config, tensors = open_folder(path)
    return from_tensors(config, tensors, str(path), dtype=dtype, device=device)


def open_folder(folder: Path) -> tuple[ModelConfig, FolderTensors]:
    """A Hugging Face folder's shape and its tensors, none of them read yet. They are checked to fit one another."""
    config, tensors = ModelConfig.load(folder), FolderTensors(folder)
    if config.num_nextn_predict_layers and f"model.layers.{config.num_hidden_layers}.eh_proj.weight" not in tensors:
        config = config.model_copy(update={"num_nextn_predict_layers": 0})  # transformers drops MTP when it saves
    routed = max(0, config.num_hidden_layers - config.first_k_dense_replace) if config.is_deepseek else 0
    wanted = config.num_hidden_layers + routed * config.n_routed_experts
    if wanted > len(tensors):  # before a model of that many modules is even sketched
        raise InputError(
            f"{folder}: the weights do not fit config.json: {config.num_hidden_layers} layers need at least {wanted} "
            f"tensors, and there are {len(tensors)}."
        )
    with torch.device("meta"):
        _check_fit(Transformer(config), tensors.shapes, str(folder))
    return config, tensors


def from_tensors(
    config: ModelConfig, tensors: Mapping[str, Tensor], where: str, dtype: torch.dtype, device: torch.device | str
) -> Transformer:
    """Build a model from tensors under Hugging Face's names. Raises InputError naming what is missing or misshapen."""
    model = Transformer(config)  # its weights are memory that nobody has touched yet
    import_tensors(model, tensors, where)
    return cast(model.to(device), dtype).eval()


def cast(model: Transformer, dtype: torch.dtype) -> Transformer:
    """Change the weights' precision; rope frequencies and the router's bias stay fp32."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


class Slot(NamedTuple):
    """One tensor on disk: its name and shape there, and the view of our memory that holds the same numbers."""

    name: str
    view: Tensor
    shape: tuple[int, ...]


def export_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """(Hugging Face name, tensor) of every weight, MTP with its tied copies of embedding and head."""
    for slot in slots(model):
        yield slot.name, slot.view.reshape(slot.shape)
    weights = {"model.embed_tokens.weight": model.embed_tokens.weight, "lm_head.weight": model.head}
    for copy, name in tied_copies(model.config).items():
        yield copy, weights[name].clone()


def tied_copies(config: ModelConfig) -> dict[str, str]:
    """The MTP block's copies of embedding and head, as checkpoints have them, and the weight that each is a copy of."""
    if not config.num_nextn_predict_layers:
        return {}
    prefix, embedding = f"model.layers.{config.num_hidden_layers}.", "model.embed_tokens.weight"
    head = embedding if config.tie_word_embeddings else "lm_head.weight"
    return {f"{prefix}embed_tokens.weight": embedding, f"{prefix}shared_head.head.weight": head}


@torch.no_grad()
def import_tensors(model: Transformer, tensors: Mapping[str, Tensor], where: str) -> None:
    """Fill the model in place. Raises InputError that names what is missing or misshapen."""
    if isinstance(tensors, dict):
        _check_fit(model, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, where)
    for name, view, _ in slots(model):
        if name in tensors:
            view.copy_(tensors[name].reshape(view.shape))
        else:
            view.zero_()


def _check_fit(model: Transformer, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raise InputError that names what is missing or misshapen; only the router's bias may be absent (it is 0 then)."""
    problems: list[str] = []
    for name, _, shape in slots(model):
        found = shapes.get(name)
        if found is None and not is_routing_bias(name):
            problems.append(f"{name} is missing")
        elif found is not None and found != shape:
            problems.append(f"{name} is {found}, config.json asks for {shape}")
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise InputError(f"{where}: the weights do not fit config.json: {shown}.")


def is_routing_bias(name: str) -> bool:
    """Whether a weight is e_score_correction_bias: fp32 in every file, and 0 where a file has none."""
    return name.endswith("e_score_correction_bias")


def slots(model: Transformer) -> Iterator[Slot]:
    """Every weight of the model, once, as it is named on disk."""
    config = model.config
    yield _slot("model.embed_tokens.weight", model.embed_tokens.weight)
    for index, layer in enumerate(model.layers):
        yield from _block(layer, f"model.layers.{index}.", config)
    yield _slot("model.norm.weight", model.norm.weight)
    if model.lm_head is not None:
        yield _slot("lm_head.weight", model.lm_head.weight)
    if model.mtp is not None:
        prefix = f"model.layers.{config.num_hidden_layers}."
        yield _slot(prefix + "enorm.weight", model.mtp.enorm.weight)
        yield _slot(prefix + "hnorm.weight", model.mtp.hnorm.weight)
        yield _slot(prefix + "eh_proj.weight", model.mtp.eh_proj.weight)
        yield _slot(prefix + "shared_head.norm.weight", model.mtp.norm.weight)
        yield from _block(model.mtp.block, prefix, config)


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
