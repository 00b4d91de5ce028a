"""Plain CSV by the block: fields found and told apart in numpy, without a Python object for each.

Only for blocks without quotes, whose lines all have the header's number of fields; everything else goes to Python's
own csv reader, which also finds the line of an error. A test holds the two to the same result.
"""

import secrets
from collections.abc import Iterator, Sequence

import numpy as np

BLOCK = 1 << 23  # bytes
_WORD = 8
_FREE = -2
LONGEST = 96  # bytes of a field that is told apart here
_BITS = 18  # of a table's slots; values that share a slot are told apart by a dictionary

# Every process draws its own factors: nobody can prepare two names that would be taken for one.
_FACTORS = np.array([secrets.randbits(64) | 1 for _ in range(LONGEST // _WORD + 1)], np.uint64)
_MASKS = np.array([(1 << (8 * length)) - 1 for length in range(_WORD + 1)], np.uint64)


class Fields(Sequence[str]):
    """One column of a block: bytes with the place of each field; text is made only when asked for."""

    def __init__(self, block: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
        self._block, self._starts, self._stops = block, starts, stops

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, row: int) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._block[self._starts[row] : self._stops[row]].tobytes().decode("utf-8")

    def __iter__(self) -> Iterator[str]:
        return (self[row] for row in range(len(self)))

    @property
    def longest(self) -> int:
        """Bytes of the longest field."""
        return int((self._stops - self._starts).max(initial=0))

    def hashes(self) -> np.ndarray:
        """A 64-bit number of each field's bytes, (n,)."""
        lengths = self._stops - self._starts
        # A view with one word from every byte on: fields start anywhere. The block ends with padding for the last ones.
        words = np.ndarray(len(self._block) - _WORD + 1, "<u8", self._block.data, strides=(1,))
        out = lengths.astype(np.uint64) * _FACTORS[0]
        for place in range(-(-self.longest // _WORD)):
            left = lengths - place * _WORD
            there = slice(None) if int(left.min(initial=1)) > 0 else np.flatnonzero(left > 0)
            word = words[self._starts[there] + place * _WORD] & _MASKS[np.minimum(left[there], _WORD)]
            mixed = (out[there] ^ word) * _FACTORS[place + 1]
            out[there] = mixed ^ (mixed >> np.uint64(29))
        return out


class HashTable:
    """Codes of fields by their hash. Which code a new value gets is up to the dictionary of the column."""

    def __init__(self) -> None:
        self._hash = np.zeros(1 << _BITS, np.uint64)
        self._code = np.full(1 << _BITS, _FREE, np.int32)
        self._others: dict[int, int] = {}

    def codes(self, fields: Fields, known: dict[str, int]) -> np.ndarray:
        """The codes (n,) of a column; ``known[text]`` is asked once for each value not seen before."""
        hashes = fields.hashes()
        slots = (hashes >> np.uint64(64 - _BITS)).astype(np.intp)
        out = self._code[slots]
        free = np.flatnonzero(out == _FREE)
        if len(free):
            fresh, first = np.unique(hashes[free], return_index=True)
            for value, row in zip(fresh.tolist(), free[first].tolist(), strict=True):
                slot = value >> (64 - _BITS)
                if self._code[slot] == _FREE:
                    self._hash[slot], self._code[slot] = value, known[fields[row]]
            out = self._code[slots]
        shared = np.flatnonzero(self._hash[slots] != hashes)
        for row, value in zip(shared.tolist(), hashes[shared].tolist(), strict=True):
            if value not in self._others:
                self._others[value] = known[fields[row]]
            out[row] = self._others[value]
        return out


def split(block: bytes, delimiter: bytes, width: int) -> list[Fields] | None:
    """The columns of whole lines; None where Python's csv reader is needed."""
    if b'"' in block:
        return None
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n")
        if b"\r" in block:
            return None
    if not block.endswith(b"\n"):
        block += b"\n"
    data = np.frombuffer(block + bytes(LONGEST + _WORD), np.uint8)
    body = data[: len(block)]
    if int(body.max()) > 127:
        block.decode("utf-8")  # raises where it is not
    newline = body == 10
    ends = np.flatnonzero(newline | (body == delimiter[0]))
    lines = int(np.count_nonzero(newline))
    if len(ends) != lines * width:
        return None
    ends = ends.reshape(lines, width)
    if not newline[ends[:, -1]].all():
        return None
    starts = np.empty_like(ends)
    starts[:, 1:] = ends[:, :-1] + 1
    starts[0, 0], starts[1:, 0] = 0, ends[:-1, -1] + 1
    if width == 1 and (starts == ends).any():
        return None  # blank lines
    return [Fields(data, starts[:, place].copy(), ends[:, place].copy()) for place in range(width)]
