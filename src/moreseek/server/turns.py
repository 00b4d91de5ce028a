"""Whose completion goes into the engine next: a bounded queue in which the keys of clients take turns."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from moreseek.server.errors import RefusedError


class FairQueue:
    """``places`` completions at a time; beyond them at most ``most_waiting`` requests wait, and more are refused.

    Keys take turns, so that one with a thousand requests holds up nobody who has one. Used in one event loop.
    """

    def __init__(self, places: int, most_waiting: int) -> None:
        self.places, self.most_waiting = places, most_waiting
        self.running = self.waiting = 0  # completions, requests
        self._keys: OrderedDict[int, deque[Turn]] = OrderedDict()  # the first has the next turn

    def join(self, key: int, count: int) -> Turn:
        """A turn for ``count`` completions; more than there are places take all of them.

        Raises RefusedError (429) when too many wait.
        """
        turn = Turn(self, key, min(count, self.places))
        if not self.waiting and self._fits(turn):
            self._admit(turn)
        elif self.waiting >= self.most_waiting:
            raise RefusedError(429, "Too many requests are waiting. Please come back.", "queue_full", retry_s=2)
        else:
            self._keys.setdefault(key, deque()).append(turn)
            self.waiting += 1
        return turn

    def remove(self, turn: Turn) -> None:
        """It has ended, or does not wait any longer: others may come in."""
        if turn.admitted.is_set():
            self.running -= turn.count
        else:
            mine = self._keys[turn.key]
            mine.remove(turn)
            self.waiting -= 1
            if not mine:
                del self._keys[turn.key]
        while self._keys:
            key, mine = next(iter(self._keys.items()))
            if not self._fits(mine[0]):
                return
            self.waiting -= 1
            self._admit(mine.popleft())
            self._keys.move_to_end(key)
            if not mine:
                del self._keys[key]

    def _fits(self, turn: Turn) -> bool:
        return self.running + turn.count <= self.places

    def _admit(self, turn: Turn) -> None:
        self.running += turn.count
        turn.admitted.set()


class Turn:
    """A request's place in the queue, then in the engine. Whoever joined must leave."""

    def __init__(self, queue: FairQueue, key: int, count: int) -> None:
        self.queue, self.key, self.count = queue, key, count
        self.admitted = asyncio.Event()
        self._left = False

    async def wait(self) -> None:
        """Until there is room."""
        await self.admitted.wait()

    def leave(self) -> None:
        """Give the places back, or the place in the queue; nothing when it has left."""
        if not self._left:
            self._left = True
            self.queue.remove(self)
