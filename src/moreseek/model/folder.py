"""Safetensors files of a Hugging Face folder: read one tensor at a time, written shard by shard.

A folder may be a stranger's: every header is checked before anything is read, nothing is ever unpickled, and no name
leads out of the folder.
"""

from __future__ import annotations

import gc
import json
import math
import os
import re
import stat
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from moreseek.errors import InputError
from moreseek.text.folder_files import member, read_json_object

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_MAX_HEADER = 16_000_000  # all 91,000 tensors of DeepSeek-V3 in one file would have 13 MB
_MAX_INDEX = 32_000_000  # its own has 9 MB
_MAX_DIMENSION = 1 << 48
_MOST_NUMBERS = 10  # of a tensor's shape and span
_LONGEST_TYPE = 16


class FolderTensors(Mapping[str, Tensor]):
    """The tensors of a folder by name; each is read when it is asked for.

    Attributes:
        shapes: name to shape, from the headers alone.
        dtypes: name to the type as safetensors writes it: F32, BF16, ….
        files: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        self._files: dict[str, Path] = {}
        index = member(folder, INDEX)
        whole = member(folder, WEIGHTS).is_file() or not index.is_file()  # which goes first in transformers too
        for name in [WEIGHTS] if whole else _shard_names(index):
            path = member(folder, name)
            if not path.is_file():
                raise InputError(_no_weights(folder, name))
            for key, (dtype, shape) in _read_header(path).items():
                if key in self._files:
                    raise InputError(f"{path}: the tensor {key} is also in {self._files[key].name}.")
                self._files[key], self.dtypes[key], self.shapes[key] = path, dtype, shape
        self.files = list(dict.fromkeys(self._files.values()))
        self._open: dict[Path, Any] = {}

    @property
    def kinds(self) -> set[str]:
        """The types of the matrices."""
        return {kind for name, kind in self.dtypes.items() if len(self.shapes[name]) > 1}

    def __getitem__(self, name: str) -> Tensor:
        path = self._files[name]
        if self.dtypes[name] not in _FLOATS:
            raise InputError(f"{path}: {name} has the type {self.dtypes[name]}; weights must be F32, F16, BF16 or F64.")
        try:
            if path not in self._open:
                self._open[path] = safe_open(path, framework="pt").__enter__()
            return self._open[path].get_tensor(name)
        except SafetensorError as error:
            raise InputError(_damaged(path, str(error))) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder's safetensors files, sharded or not. Raises InputError for anything unsafe or broken."""
    return dict(FolderTensors(folder))


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write one safetensors file, readable by whom the user's other files are readable by.

    The library makes files that their owner alone can read, so that a colleague or a service's user could not. What
    the system refuses (a full disk, a file too large) it wraps in an error of its own; here it is an OSError again.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    try:
        save_file(tensors, path, metadata={"format": "pt"})
    except SafetensorError as error:
        refused = re.search(r"\(os error (\d+)\)", str(error))
        if refused is None:
            raise
        raise OSError(int(refused[1]), os.strerror(int(refused[1])), str(path)) from error
    path.chmod(mode)


def write_tensors(folder: Path, names: Iterable[tuple[str, int]], tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, given with their sizes in bytes, as one safetensors file or as shards with their index.

    One shard is in memory at a time.
    """
    shards: list[list[str]] = [[]]
    room, total = SHARD_BYTES, 0
    for name, size in names:
        if shards[-1] and size > room:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append(name)
        room, total = room - size, total + size
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = WEIGHTS if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_tensors({name: tensors[name] for name in shard}, folder / file)
        weight_map |= dict.fromkeys(shard, file)
    (folder / (WEIGHTS if len(shards) > 1 else INDEX)).unlink(missing_ok=True)  # of what was there before
    if len(shards) > 1:
        table = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / INDEX).write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def _shard_names(index: Path) -> list[str]:
    weight_map = read_json_object(index, _MAX_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise InputError(f"{index}: weight_map must be a table of a file name for each tensor.")
    names = sorted(set(weight_map.values()))
    if any(Path(name).name != name or "\0" in name for name in names):
        raise InputError(f"{index}: a shard's name leaves the folder.")
    return names


def _no_weights(folder: Path, wanted: str) -> str:
    pickles = [file.name for file in folder.iterdir() if file.suffix in PICKLES] if folder.is_dir() else []
    if pickles:
        return (
            f"{folder}: {pickles[0]} is a pickle, which can run any code when it is opened, so moreseek never does. "
            "Convert it to safetensors first (transformers: save_pretrained)."
        )
    return f"{folder}: {wanted} is missing."


def _damaged(path: Path, what: str) -> str:
    return f"{path}: damaged ({what}). Copy the file again or go back to an older checkpoint."


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """A header of many tensors makes tables by the ten thousand, which the collector would look at again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_collector_at_rest()
def _read_header(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Name to (type, shape). Refuses a header that is cut off, names a tensor twice, or lies about its tensors' bytes.

    safetensors checks most of this too, but only once it has mapped the file, and not the same in every version.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(size - 8, _MAX_HEADER):
            raise InputError(f"{path}: damaged or not a safetensors file (its header does not fit in {size} bytes).")
        text = file.read(length)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise InputError(f"{path}: its header names a tensor twice.")
        return table

    try:
        header = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its header is not JSON, so the file is damaged.") from error
    if not isinstance(header, dict):
        raise InputError(_damaged(path, "its header is no table of tensors"))
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, table) for name, table in header.items()}
    end = 0
    for name, (_, _, start, stop) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if start != end:
            kind = "belongs to another tensor too" if start < end else "leaves bytes unused before it"
            raise InputError(_damaged(path, f"{name} begins at byte {start}, which {kind}"))
        end = stop
    if end != size - 8 - length:
        raise InputError(_damaged(path, f"its tensors need {end} bytes, and it holds {size - 8 - length}"))
    return {name: (dtype, shape) for name, (dtype, shape, _, _) in entries.items()}


def _entry(path: Path, name: str, table: Any) -> tuple[str, tuple[int, ...], int, int]:
    """A tensor's type, shape and span of bytes, which must fit one another."""
    fields = table if isinstance(table, dict) else {}
    dtype, shape, span = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    numbers = [*shape, *span] if isinstance(shape, list) and isinstance(span, list) and len(span) == 2 else [-1]
    named = isinstance(dtype, str) and len(dtype) <= _LONGEST_TYPE and len(numbers) <= _MOST_NUMBERS
    if not named or not all(type(n) is int and 0 <= n <= _MAX_DIMENSION for n in numbers):
        raise InputError(_damaged(path, f"{name} has no proper dtype, shape and data_offsets"))
    assert isinstance(dtype, str)
    assert isinstance(shape, list)
    assert isinstance(span, list)
    width = _BYTES.get(dtype)
    if width is not None and math.prod(shape) * width != span[1] - span[0]:
        raise InputError(_damaged(path, f"{name} of shape {shape} in {dtype} does not take {span[1] - span[0]} bytes"))
    if span[1] < span[0]:
        raise InputError(_damaged(path, f"{name} ends before it begins"))
    return dtype, tuple(shape), span[0], span[1]
