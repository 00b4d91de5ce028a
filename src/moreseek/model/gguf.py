"""Models from llama.cpp's .gguf files: names and row orders to Hugging Face's, any type of number to floats."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from moreseek.errors import InputError
from moreseek.model.config import ModelConfig
from moreseek.model.gguf_config import ROPE_FACTORS, gguf_config
from moreseek.model.transformer import Transformer
from moreseek.model.weights import from_tensors, slots
from moreseek.text.gguf_file import GGUFFile, TensorEntry, read_gguf

_CHUNK = 1 << 16  # numbers dequantised at a time: fits the cache

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
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def load_gguf(path: Path | str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Transformer:
    """Load a llama, qwen2 or qwen3 .gguf file, quantised or not, as load_model loads a folder.

    One tensor is dequantised at a time, so that the peak is the float32 model and little more. Raises InputError for
    a damaged or unsupported file, and where the package ``gguf`` is missing.
    """
    file = read_gguf(path)
    config = gguf_config(file)
    tensors = _Tensors(file, config, _Quants(file))
    # from_tensors only looks names up, which a lazy mapping answers as a dict does.
    return from_tensors(config, tensors, str(path), dtype=dtype, device=device)  # pyright: ignore[reportArgumentType]


class _Span(NamedTuple):
    """Where a tensor's bytes lie, and the type they are in."""

    entry: TensorEntry
    kind: Any  # gguf.GGMLQuantizationType
    bytes: int


class _Quants:
    """The gguf package's formats, applied to one file."""

    def __init__(self, file: GGUFFile) -> None:
        try:
            import gguf
            from gguf.quants import dequantize
        except ImportError as error:
            raise InputError(
                f"{file.path}: reading a .gguf file needs the package gguf: pip install 'moreseek[gguf]'."
            ) from error
        self._file, self._dequantize = file, dequantize
        self._kinds, self._sizes = gguf.GGMLQuantizationType, gguf.GGML_QUANT_SIZES

    def spans(self) -> dict[str, _Span]:
        """Every tensor's bytes. Raises InputError where they leave the file, overlap, or have an unknown type."""
        file = self._file
        spans = {name: self._span(entry) for name, entry in file.tensors.items()}
        end = 0
        for span in sorted(spans.values(), key=lambda span: span.entry.start):
            start = span.entry.start
            if start < end or start + span.bytes > file.size:
                raise InputError(
                    f"{file.path}: damaged: {span.entry.name} needs {span.bytes} bytes at {start}, which lie beyond "
                    f"its {file.size} bytes or belong to another tensor. Copy or download it again."
                )
            end = start + span.bytes
        return spans

    def _span(self, entry: TensorEntry) -> _Span:
        where = f"{self._file.path}: the tensor {entry.name}"
        try:
            kind = self._kinds(entry.kind)
            block, size = self._sizes[kind]
            self._dequantize(np.zeros((1, size), np.uint8), kind)
        except (ValueError, KeyError, NotImplementedError) as error:
            raise InputError(f"{where} has the type {entry.kind}, which gguf cannot turn into floats.") from error
        if entry.shape[-1] % block:
            raise InputError(f"{where} has rows of {entry.shape[-1]} numbers, no multiple of its blocks of {block}.")
        return _Span(entry, kind, math.prod(entry.shape) // block * size)

    def floats(self, span: _Span) -> Tensor:
        """A tensor's numbers in float32. Chunks that fit the cache take half the time of gguf's 16 rows."""
        block, size = self._sizes[span.kind]
        blocks = self._file.bytes_at(span.entry.start, span.bytes).reshape(-1, size)
        out = np.empty((len(blocks), block), np.float32)
        step = max(1, _CHUNK // block)
        with np.errstate(all="ignore"):  # a damaged scale gives inf or NaN, and no warning
            for start in range(0, len(blocks), step):
                part = blocks[start : start + step]
                out[start : start + step] = self._dequantize(part.reshape(1, -1), span.kind).reshape(-1, block)
        return torch.from_numpy(out).view(span.entry.shape)


class _Tensors(Mapping[str, Tensor]):
    """Hugging Face's names and row orders over a file; a tensor is dequantised when it is asked for."""

    def __init__(self, file: GGUFFile, config: ModelConfig, quants: _Quants) -> None:
        self._quants, self._config = quants, config
        # llama.cpp's llama rotates pairs (2i, 2i+1), so its converter reorders the rows of q and k; its qwen does not.
        self._paired = config.model_type == "llama"
        self._names = _fit(file, config)
        self._spans = quants.spans()

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._quants.floats(self._spans[self._names[name]])
        if self._paired and re.search(r"\.[qk]_proj\.", name):
            pairs = tensor.unflatten(0, (-1, self._config.attention_head_dim // 2, 2))  # (heads, width/2, 2, …)
            return pairs.transpose(1, 2).reshape(tensor.shape)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _fit(file: GGUFFile, config: ModelConfig) -> dict[str, str]:
    """Hugging Face name to GGUF name of every weight. Raises InputError where file and metadata disagree.

    Checked on a model without memory: metadata with absurd sizes must cost nothing.
    """
    if config.num_hidden_layers > len(file.tensors):
        raise InputError(f"{file.path}: {config.num_hidden_layers} layers, but only {len(file.tensors)} tensors.")
    with torch.device("meta"):
        shapes = {slot.name: slot.shape for slot in slots(Transformer(config))}
    names = {name: gguf_name(name) for name in shapes}
    problems: list[str] = []
    for name, shape in shapes.items():
        entry = file.tensors.get(names[name])
        if entry is None:
            problems.append(f"{names[name]} is missing")
        elif entry.shape != shape:
            problems.append(f"{names[name]} is {entry.shape}, the metadata ask for {shape}")
    known = {*names.values(), ROPE_FACTORS}
    problems += [f"{name} is unknown to {config.model_type}" for name in file.tensors if name not in known]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise InputError(f"{file.path}: the tensors do not fit the metadata: {shown}.")
    return names


def gguf_name(name: str) -> str:
    """llama.cpp's name of a weight: model.layers.3.self_attn.q_proj.weight is blk.3.attn_q.weight."""
    stem, _, kind = name.rpartition(".")
    if layer := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
        return f"blk.{layer[1]}.{_NAMES[layer[2]]}.{kind}"
    return f"{_NAMES[stem]}.{kind}"
