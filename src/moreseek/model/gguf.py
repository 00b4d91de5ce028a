"""Models from llama.cpp's .gguf files: names and row orders to Hugging Face's, any type of number to floats."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from moreseek.errors import InputError
from moreseek.model.config import ModelConfig
from moreseek.model.gguf_config import ROPE_FACTORS, gguf_config
from moreseek.model.gguf_names import gguf_name as gguf_name
from moreseek.model.gguf_names import layout, unpack
from moreseek.text.gguf_file import GGUFFile, TensorEntry, read_gguf

_CHUNK = 1 << 16  # numbers dequantised at a time: fits the cache


def open_gguf(path: Path | str) -> tuple[ModelConfig, GGUFTensors]:
    """The shape of a llama, qwen2, qwen3 or deepseek2 .gguf file, quantised or not, and its tensors under Hugging
    Face's names, none of them dequantised yet.

    Raises InputError for a damaged or unsupported file, and where the package ``gguf`` is missing.
    """
    file = read_gguf(path)
    config = gguf_config(file)
    return config, GGUFTensors(file, config, _Quants(file))


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

    def floats(self, span: _Span, index: int | None = None) -> Tensor:
        """A tensor's numbers in float32, or those of one member of a stack.

        Chunks that fit the cache take half the time of gguf's 16 rows.
        """
        block, size = self._sizes[span.kind]
        start, count, shape = span.entry.start, span.bytes, span.entry.shape
        if index is not None:
            count //= shape[0]
            start, shape = start + index * count, shape[1:]
        blocks = self._file.bytes_at(start, count).reshape(-1, size)
        out = np.empty((len(blocks), block), np.float32)
        step = max(1, _CHUNK // block)
        with np.errstate(all="ignore"):  # a damaged scale gives inf or NaN, and no warning
            for start in range(0, len(blocks), step):
                part = blocks[start : start + step]
                out[start : start + step] = self._dequantize(part.reshape(1, -1), span.kind).reshape(-1, block)
        return torch.from_numpy(out).view(shape)


class GGUFTensors(Mapping[str, Tensor]):
    """Hugging Face's names and row orders over a file; a tensor is dequantised when it is asked for.

    Attributes:
        files: the one that it is.
    """

    def __init__(self, file: GGUFFile, config: ModelConfig, quants: _Quants) -> None:
        self.files = [Path(file.path)]
        self._quants, self._config = quants, config
        self._names = _fit(file, config)
        self._spans = quants.spans()

    @property
    def kinds(self) -> set[str]:
        """The types of the file's matrices, as gguf names them: F32, Q8_0, …."""
        return {span.kind.name for span in self._spans.values() if len(span.entry.shape) > 1}

    def __getitem__(self, name: str) -> Tensor:
        return unpack(name, self._config, lambda tensor, index=None: self._quants.floats(self._spans[tensor], index))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _fit(file: GGUFFile, config: ModelConfig) -> list[str]:
    """Hugging Face name of every weight. Raises InputError where file and metadata disagree.

    Checked on a model without memory: metadata with absurd sizes must cost nothing.
    """
    if config.num_hidden_layers > len(file.tensors):
        raise InputError(f"{file.path}: {config.num_hidden_layers} layers, but only {len(file.tensors)} tensors.")
    tensors = layout(config)
    problems: list[str] = []
    for name, shape in ((tensor.name, tensor.shape) for tensor in tensors):
        entry = file.tensors.get(name)
        if entry is None and not name.endswith(".exp_probs_b.bias"):
            problems.append(f"{name} is missing")
        elif entry is not None and entry.shape != shape:
            problems.append(f"{name} is {entry.shape}, the metadata ask for {shape}")
    known = {ROPE_FACTORS, *(tensor.name for tensor in tensors)}
    problems += [f"{name} is unknown to {config.model_type}" for name in file.tensors if name not in known]
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise InputError(f"{file.path}: the tensors do not fit the metadata: {shown}.")
    return list(dict.fromkeys(weight for tensor in tensors if tensor.name in file.tensors for weight in tensor.weights))
