"""Writing the GGUF container: the whole header first, then one tensor's bytes after the other.

Nothing but the header is held in memory, so a file may be larger than the machine. Format: ggml/docs/gguf.md.
"""

import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_ALIGNMENT = 32  # what readers assume where general.alignment is absent
_U32, _I32, _F32, _BOOL, _STRING, _ARRAY, _I64 = 4, 5, 6, 7, 8, 9, 11


@dataclass(frozen=True)
class TensorPlan:
    """One tensor as the header announces it.

    Attributes:
        shape: slowest dimension first, as numpy and torch count (GGUF stores the reverse).
        kind: the number of its ggml type (0 is F32, 8 is Q8_0, …).
        size: how many bytes it takes.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    size: int


def write_gguf(
    path: Path, metadata: dict[str, Any], plans: Sequence[TensorPlan], data: Iterable[Iterable[np.ndarray]]
) -> None:
    """Write a file. ``data``: for each plan, in order, its bytes as uint8 arrays in one or more pieces.

    Metadata values are str, bool, int, float, or a list of str or of int. What is on disk is synced before it returns.
    """
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(plans), len(metadata)))
        for key, value in metadata.items():
            file.write(_text(key) + _value(key, value))
        offset = 0
        for plan in plans:
            shape = plan.shape[::-1]
            file.write(_text(plan.name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
            file.write(struct.pack("<IQ", plan.kind, offset))
            offset += plan.size + _padding(plan.size)
        file.write(bytes(_padding(file.tell())))
        for plan, pieces in zip(plans, data, strict=True):
            _write_tensor(file, plan, pieces)
        file.flush()
        os.fsync(file.fileno())


def _write_tensor(file: BinaryIO, plan: TensorPlan, pieces: Iterable[np.ndarray]) -> None:
    start = file.tell()
    for piece in pieces:
        file.write(np.ascontiguousarray(piece).data)
    written = file.tell() - start
    if written != plan.size:
        raise AssertionError(f"{plan.name}: {written} bytes where the header says {plan.size}")
    file.write(bytes(_padding(written)))


def _padding(size: int) -> int:
    return -size % _ALIGNMENT


def _text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _value(key: str, value: Any) -> bytes:
    """A value with its type in front: integers are uint32 where they fit, floats float32, as llama.cpp reads them."""
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value) if 0 <= value < 1 << 32 else struct.pack("<Iq", _I64, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if not isinstance(value, list):
        raise TypeError(f"{key}: a {type(value).__name__} cannot be written")
    if all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_text, value))
    return struct.pack("<IIQ", _ARRAY, _I32, len(value)) + np.array(value, "<i4").tobytes()
