"""A model from anywhere, opened without reading its weights, and written as a Hugging Face folder."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from moreseek.errors import InputError
from moreseek.model.config import ModelConfig
from moreseek.model.folder import write_tensors
from moreseek.model.slots import is_routing_bias, slots
from moreseek.model.transformer import Transformer
from moreseek.model.weights import open_weights, tied_copies, write_config

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
_SAFETENSORS = {"F32": "f32", "F64": "f32", "F16": "f16", "BF16": "bf16"}


@dataclass(frozen=True)
class Opened:
    """A model whose weights are read one at a time.

    Attributes:
        weights: under Hugging Face's names.
        type: the narrowest of f32, f16, bf16 that loses nothing of the matrices.
    """

    config: ModelConfig
    weights: Mapping[str, Tensor]
    type: str


def open_model(path: Path) -> Opened:
    """Open a Hugging Face folder or a .gguf file. Raises InputError where it is damaged, hostile or not supported."""
    config, tensors = open_weights(path)
    return Opened(config, tensors, _narrowest({_SAFETENSORS.get(kind, "f32") for kind in tensors.kinds}))


def _narrowest(types: set[str]) -> str:
    """float16 and bfloat16 hold different numbers, so that only float32 holds both."""
    return types.pop() if len(types) == 1 else "f32"


def write_folder_of(folder: Path, opened: Opened, dtype: torch.dtype, step: Callable[[str, int, int], None]) -> None:
    """Write config.json, generation_config.json and safetensors, in shards where there is much of it.

    Raises InputError where a number does not fit the type.
    """
    config = opened.config
    tensors = _Cast(opened, dtype, step)
    write_tensors(folder, tensors.sizes(), tensors)
    write_config(folder, config, str(dtype).removeprefix("torch."))


class _Cast(Mapping[str, Tensor]):
    """The tensors of a folder in one type, the router's biases in float32."""

    def __init__(self, opened: Opened, dtype: torch.dtype, step: Callable[[str, int, int], None]) -> None:
        self._weights, self._dtype, self._step, self._done = opened.weights, dtype, step, 0
        with torch.device("meta"):
            self._shapes = {slot.name: slot.shape for slot in slots(Transformer(opened.config))}
        self._copies = tied_copies(opened.config)
        self._shapes |= {copy: self._shapes[name] for copy, name in self._copies.items()}

    def sizes(self) -> Iterator[tuple[str, int]]:
        for name, shape in self._shapes.items():
            yield name, torch.Size(shape).numel() * self._type(name).itemsize

    def __getitem__(self, name: str) -> Tensor:
        self._step(name, self._done, len(self._shapes))
        self._done += 1
        source = self._copies.get(name, name)
        if is_routing_bias(source) and source not in self._weights:
            return torch.zeros(self._shapes[name])
        numbers = self._weights[source]
        cast = numbers.to(self._type(name), copy=name in self._copies).contiguous()
        if cast.dtype == torch.float16 and bool((cast.isinf() & numbers.isfinite()).any()):
            raise InputError(f"{name} has numbers beyond F16's range of ±65504. Choose --type bf16 or f32.")
        return cast

    def _type(self, name: str) -> torch.dtype:
        return torch.float32 if is_routing_bias(name) else self._dtype

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
