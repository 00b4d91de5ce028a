"""Writing a model as a .gguf file that llama.cpp opens: float types and Q8_0, one tensor in memory at a time."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreseek.errors import InputError
from moreseek.model.config import ModelConfig
from moreseek.model.gguf_config import ROPE_FACTORS
from moreseek.model.gguf_metadata import config_metadata, rope_factors
from moreseek.model.gguf_names import Packed, layout
from moreseek.model.slots import is_routing_bias
from moreseek.text.gguf_writer import TensorPlan, write_gguf


@dataclass(frozen=True)
class Kind:
    """A type of numbers in a .gguf file: ggml's number for it, and the bytes that so many numbers take."""

    name: str
    number: int
    block: int
    bytes: int
    file_type: int  # llama.cpp's number for a file that is mostly of this type


_ALL = (Kind("F32", 0, 1, 4, 0), Kind("F16", 1, 1, 2, 1), Kind("BF16", 30, 1, 2, 32), Kind("Q8_0", 8, 32, 34, 7))
KINDS = {kind.name: kind for kind in _ALL}


def write_model(
    path: Path,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    kind: Kind,
    vocabulary: dict[str, Any],
    name: str,
    step: Callable[[str, int, int], None],
) -> None:
    """Write a model. ``weights`` under Hugging Face's names; ``vocabulary``: the tokenizer's metadata.

    Matrices take ``kind``; vectors and the router stay F32, and rows that Q8_0's blocks of 32 do not fit take F16, as
    llama.cpp's own converter has it. ``step`` is told each tensor's name, how many are done, and of how many.
    Raises InputError where a number does not fit the type, or llama.cpp cannot compute the model.
    """
    metadata = config_metadata(config, name)
    metadata |= {"general.type": "model", "general.name": name, "general.file_type": kind.file_type}
    metadata |= {"general.quantization_version": 2}
    tensors = layout(config)
    factors = rope_factors(config)
    if factors is not None:
        tensors.append(Packed(ROPE_FACTORS, tuple(factors.shape), ()))
    kinds = [_kind_of(tensor, kind) for tensor in tensors]
    plans = [_plan(tensor, kind) for tensor, kind in zip(tensors, kinds, strict=True)]

    def data() -> Iterator[Iterator[np.ndarray]]:
        for done, (tensor, kind) in enumerate(zip(tensors, kinds, strict=True)):
            step(tensor.name, done, len(tensors))
            parts = iter([factors]) if tensor.name == ROPE_FACTORS else tensor.parts(_WithBiases(weights, tensor.shape))
            yield (encode(part, kind, f"{name}: {tensor.name}") for part in parts if part is not None)

    write_gguf(path, metadata | vocabulary, plans, data())


def encode(tensor: Tensor, kind: Kind, where: str) -> np.ndarray:
    """A tensor's bytes in a type, as a flat uint8 array. Raises InputError where a number does not fit."""
    numbers = tensor.detach().to(torch.float32).contiguous()
    if kind.name == "F32":
        return numbers.numpy().reshape(-1).view(np.uint8)
    if kind.name == "BF16":
        return numbers.to(torch.bfloat16).view(torch.int16).numpy().reshape(-1).view(np.uint8)
    if kind.name == "F16":
        return _half(numbers, where).numpy().reshape(-1).view(np.uint8)
    blocks = numbers.reshape(-1, kind.block)
    scale = blocks.abs().amax(1, keepdim=True) / 127
    inverse = torch.where(scale > 0, 1 / scale, 0.0)
    scaled = blocks * inverse
    whole = (scaled.abs() + 0.5).floor() * scaled.sign()  # ggml rounds halves away from zero
    out = np.empty((len(blocks), kind.bytes), np.uint8)
    out[:, :2] = _half(scale, where).numpy().view(np.uint8)
    out[:, 2:] = whole.to(torch.int8).numpy().view(np.uint8)
    return out.reshape(-1)


def _half(numbers: Tensor, where: str) -> Tensor:
    halves = numbers.to(torch.float16)
    if bool((halves.isinf() & numbers.isfinite()).any()) or not bool(numbers.isfinite().all()):
        raise InputError(
            f"{where} has numbers up to {float(numbers.abs().max()):.3g}, which do not fit F16's range of ±65504. "
            "Choose --type bf16 or f32."
        )
    return halves


def _kind_of(tensor: Packed, kind: Kind) -> Kind:
    if len(tensor.shape) < 2 or ".ffn_gate_inp." in tensor.name:
        return KINDS["F32"]
    return kind if tensor.shape[-1] % kind.block == 0 else KINDS["F16"]


def _plan(tensor: Packed, kind: Kind) -> TensorPlan:
    return TensorPlan(tensor.name, tensor.shape, kind.number, math.prod(tensor.shape) // kind.block * kind.bytes)


class _WithBiases(Mapping[str, Tensor]):
    """Weights, with zeros for a router's bias that a folder leaves out."""

    def __init__(self, weights: Mapping[str, Tensor], shape: tuple[int, ...]) -> None:
        self._weights, self._shape = weights, shape

    def __getitem__(self, name: str) -> Tensor:
        absent = is_routing_bias(name) and name not in self._weights
        return torch.zeros(self._shape) if absent else self._weights[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)
