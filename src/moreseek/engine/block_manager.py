"""Who owns which block of the paged cache, and which blocks hold a prefix that can be used again. No torch in here."""

from collections import OrderedDict, deque
from collections.abc import Sequence as Items
from dataclasses import dataclass

ROOT = 0
"""The prefix before the first token."""


@dataclass(slots=True)
class _Cached:
    """What a reusable block holds: the tokens of one block after a prefix, which has a number of its own."""

    key: tuple[int, tuple[int, ...]]  # (number of the prefix before it, its tokens)
    number: int  # of the prefix that ends with this block


class BlockManager:
    """Blocks 1 .. count − 1 of a cache (0 takes what is never read).

    A block is shared by counting its owners. A block that lost its last owner, but holds a known prefix, stays until
    room is needed; then the one left longest goes first. Prefixes are compared token by token, not by a hash alone,
    so that no text, however chosen, gets another's cache.
    """

    def __init__(self, count: int, size: int, reuse: bool = True) -> None:
        self.count, self.size, self.reuse = count, size, reuse
        self._empty = deque(range(1, count))
        self._idle: OrderedDict[int, None] = OrderedDict()  # without an owner, but with a known prefix; oldest first
        self._owners = [0] * count
        self._held: dict[int, _Cached] = {}
        self._found: dict[tuple[int, tuple[int, ...]], int] = {}
        self._numbers = ROOT

    @property
    def free(self) -> int:
        """Blocks that can be allocated now."""
        return len(self._empty) + len(self._idle)

    def allocate(self, count: int) -> list[int] | None:
        """So many blocks for one owner, or None when there are too few."""
        if count > self.free:
            return None
        taken = []
        for _ in range(count):
            block = self._empty.pop() if self._empty else self._evict()
            self._owners[block] = 1
            taken.append(block)
        return taken

    def share(self, blocks: Items[int]) -> None:
        """One more owner for each block."""
        for block in blocks:
            if self._owners[block] == 0:
                del self._idle[block]
            self._owners[block] += 1

    def release(self, blocks: Items[int]) -> None:
        """One owner less. The end of a text is forgotten before its beginning."""
        for block in reversed(blocks):
            self._owners[block] -= 1
            if self._owners[block] == 0:
                if block in self._held:
                    self._idle[block] = None
                else:
                    self._empty.append(block)

    def owned(self, block: int) -> bool:
        """Whether anybody has the block."""
        return self._owners[block] > 0

    def match(self, tokens: Items[int]) -> tuple[list[int], int]:
        """Blocks that hold the longest known prefix of ``tokens``, not yet shared, and that prefix's number.

        At least one token stays to be computed, since its result is needed.
        """
        found: list[int] = []
        number = ROOT
        if self.reuse:
            for low in range(0, len(tokens) - self.size, self.size):
                block = self._found.get((number, tuple(tokens[low : low + self.size])))
                if block is None:
                    break
                found.append(block)
                number = self._held[block].number
        return found, number

    def remember(self, block: int, before: int, tokens: Items[int]) -> int:
        """``block`` now holds these tokens after the prefix ``before``. The number of the prefix that ends with it."""
        key = (before, tuple(tokens))
        known = self._found.get(key)
        if known is not None:
            return self._held[known].number
        number = self.nowhere()
        self._found[key] = block
        self._held[block] = _Cached(key, number)
        return number

    def forget(self) -> None:
        """No prefix can be used again: the weights have changed."""
        self._empty.extend(self._idle)
        self._idle.clear()
        self._held.clear()
        self._found.clear()

    def nowhere(self) -> int:
        """The number of a prefix that nobody finds, so that none that goes on from it is found either."""
        self._numbers += 1
        return self._numbers

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        del self._found[self._held.pop(block).key]
        return block
