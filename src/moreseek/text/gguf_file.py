"""The GGUF container: its header read with every length checked, its tensors' bytes mapped.

The ``gguf`` package's own reader trusts the lengths in a file (a hostile one keeps it busy for ever) and spends
seconds on a vocabulary. Format: ggml/docs/gguf.md. Only little-endian files of versions 2 and 3 are read.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import numpy as np

from moreseek.errors import InputError

MAX_ITEMS = 2_000_000
"""Array elements of one header. The largest vocabularies, with their merges, need two thirds of this."""

MAX_ENTRIES = 65_536
"""Keys of one header, and tensors of one file. The largest models have some thousands."""

MAX_HEADER = 1 << 28
"""Bytes of one header. The largest vocabularies have a tenth of this."""

_MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "?"}
_SCALARS |= {10: "<u8", 11: "<i8", 12: "<f8"}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_ABSENT: Any = object()

T = TypeVar("T", str, int, float, bool)


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header lists it.

    Attributes:
        shape: slowest dimension first, as numpy and torch count (GGUF stores the reverse).
        kind: the number of its ggml type (0 is F32, 8 is Q8_0, …).
        start: where its bytes begin in the file.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


class GGUFFile:
    """The header of one file, and its bytes on demand.

    Attributes:
        metadata: key to str, int, float, bool, or a list of one of these.
        tensors: name to entry. That their bytes lie inside the file is for the reader of the data to check:
            only it knows how many bytes a type takes.
        size: bytes in the file.
    """

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.size = path, len(data)
        self._data = data
        self.metadata, self.tensors = _read_header(_Cursor(data, path))

    def bytes_at(self, start: int, count: int) -> np.ndarray:
        """``count`` bytes of the file as a read-only uint8 array that shares the mapped memory."""
        return np.frombuffer(self._data, np.uint8, count, start)

    def get(self, key: str, kind: type[T], default: T = _ABSENT) -> T:
        """A metadata value of one type. Raises InputError where it has another, or is absent without a default."""
        value: Any = self.metadata.get(key, default)
        if value is _ABSENT:
            raise InputError(f"{self.path}: its metadata lack {key}, so the file is incomplete. Convert it again.")
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise InputError(f"{self.path}: {key} must be {kind.__name__}, found {type(value).__name__}.")
        return cast(T, value)

    def get_list(self, key: str, kind: type[T]) -> list[T]:
        """A metadata array whose elements have one type; empty where the key is absent."""
        value = self.metadata.get(key, [])
        if not isinstance(value, list) or any(type(item) is not kind for item in value):
            raise InputError(f"{self.path}: {key} must be an array of {kind.__name__}.")
        return value


def read_gguf(path: Path | str) -> GGUFFile:
    """Open a .gguf file and read its header. Raises InputError where it is missing, damaged or of another format."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(24)
            if start[:4] != _MAGIC:
                raise InputError(f"{path}: not a GGUF file (it does not begin with 'GGUF').")
            if len(start) < 24:
                raise InputError(f"{path}: a damaged GGUF file: it ends within its header. Copy or download it again.")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"{path}: cannot be opened ({error.strerror}).") from error
    return GGUFFile(path, data)


def _read_header(cursor: "_Cursor") -> tuple[dict[str, Any], dict[str, TensorEntry]]:
    cursor.at = len(_MAGIC)
    version = cursor.number(_U32)
    if version not in (2, 3):
        raise InputError(f"{cursor.path}: GGUF version {version} is not supported (2 and 3 are, little-endian only).")
    tensor_count, key_count = cursor.number(_U64), cursor.number(_U64)
    if max(tensor_count, key_count) > MAX_ENTRIES:
        cursor.damaged(f"its header announces {tensor_count} tensors and {key_count} keys")
    metadata: dict[str, Any] = {}
    for _ in range(key_count):
        key = cursor.string()
        if key in metadata:
            cursor.damaged(f"it has the key {key!r} twice")
        metadata[key] = _read_value(cursor, cursor.number(_U32))
    entries = [_read_entry(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1 or alignment & (alignment - 1):
        cursor.damaged(f"general.alignment is {alignment!r}, not a power of two")
    data_start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorEntry] = {}
    for name, shape, kind, offset in entries:
        if name in tensors:
            cursor.damaged(f"it has the tensor {name!r} twice")
        if offset % alignment or data_start + offset > cursor.size:
            cursor.damaged(f"the tensor {name!r} begins at {offset}, outside the file or unaligned")
        tensors[name] = TensorEntry(name, shape, kind, data_start + offset)
    return metadata, tensors


def _read_value(cursor: "_Cursor", kind: int) -> Any:
    if kind == _STRING:
        return cursor.string()
    if kind == _ARRAY:
        element, count = cursor.number(_U32), cursor.number(_U64)
        cursor.spend(count)
        return cursor.strings(count) if element == _STRING else cursor.scalars(element, count).tolist()
    value = cursor.scalars(kind, 1)[0]
    if _SCALARS[kind] == "<f4":
        return float(str(value))  # the shortest decimal: 1e-05, not 9.999999747378752e-06
    return value.item()


def _read_entry(cursor: "_Cursor") -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape, ggml type and offset into the data of the next tensor."""
    name = cursor.string()
    dimensions = cursor.number(_U32)
    if not 1 <= dimensions <= 4:
        cursor.damaged(f"the tensor {name!r} has {dimensions} dimensions")
    shape = tuple(cursor.number(_U64) for _ in range(dimensions))[::-1]
    if not all(shape):
        cursor.damaged(f"the tensor {name!r} has a dimension of 0")
    return name, shape, cursor.number(_U32), cursor.number(_U64)


class _Cursor:
    """Reads forward through a file, never past its end, MAX_HEADER bytes, or MAX_ITEMS array elements."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.size = data, path, len(data)
        self.end = min(self.size, MAX_HEADER)
        self.at = 0
        self.items_left = MAX_ITEMS

    def damaged(self, what: str) -> NoReturn:
        raise InputError(f"{self.path}: a damaged GGUF file: {what}. Copy or download it again.")

    def spend(self, items: int) -> None:
        self.items_left -= items
        if self.items_left < 0:
            self.damaged(f"an array of {items} at byte {self.at} is longer than any real one")

    def number(self, layout: struct.Struct) -> int:
        return layout.unpack_from(self.data, self._skip(layout.size))[0]

    def string(self) -> str:
        return self.strings(1)[0]

    def strings(self, count: int) -> list[str]:
        """One loop with local names: a vocabulary has hundreds of thousands."""
        data, end, at, unpack = self.data, self.end, self.at, _U64.unpack_from
        texts: list[str] = []
        try:
            for _ in range(count):
                start = at + 8
                at = start + unpack(data, at)[0]
                if at > end:
                    self.damaged(f"a text at byte {start} would end at byte {at}, and its header by {end}")
                texts.append(data[start:at].decode("utf-8"))
        except struct.error:
            self.damaged(f"it ends at byte {self.size}, within its header")
        except UnicodeDecodeError:
            self.damaged("a text of its header is not UTF-8")
        self.at = at
        return texts

    def scalars(self, kind: int, count: int) -> np.ndarray:
        layout = _SCALARS.get(kind)
        if layout is None:
            self.damaged(f"a value at byte {self.at} has the unknown type {kind}")
        dtype = np.dtype(layout)
        return np.frombuffer(self.data, dtype, count, self._skip(dtype.itemsize * count))

    def _skip(self, count: int) -> int:
        """Move on by ``count`` bytes; where they begin."""
        start = self.at
        if start + count > self.end:
            self.damaged(f"it ends at byte {self.size}, within its header, or that has more than {MAX_HEADER}")
        self.at = start + count
        return start
