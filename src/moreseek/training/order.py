"""The order in which things are trained on, epoch after epoch."""

import random
from collections.abc import Iterator


class EpochOrder(Iterator[int]):
    """The numbers 0 … count − 1 without end, in an order that is new in each epoch and follows from the seed alone.

    ``drawn`` counts over all epochs; setting it is all that a resume needs.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed, self.drawn = count, seed, 0
        self._epoch, self._order = -1, list[int]()

    def __next__(self) -> int:
        epoch, index = divmod(self.drawn, self.count)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, list(range(self.count))
            random.Random(self.seed * 7919 + epoch).shuffle(self._order)
        self.drawn += 1
        return self._order[index]
