"""Many boards of one set of votes, boards over time, and one board that follows every vote."""

from collections.abc import Iterator, Sequence

import numpy as np

from moreseek.arena.cells import KINDS, Cells, from_counts
from moreseek.arena.ratings import MIN_VOTES, Ratings, bradley_terry, from_cells
from moreseek.arena.votes import OUTCOMES, SYNONYMS, Votes
from moreseek.config import did_you_mean
from moreseek.errors import InputError

DAY_S = 86_400.0


def boards_of(
    votes: Votes, columns: Sequence[str] = ("category", "language"), least: int = 100, min_votes: int = MIN_VOTES
) -> dict[str, Ratings]:
    """The overall board, and one for each category and language with at least ``least`` votes."""
    boards = {"overall": bradley_terry(votes, min_votes=min_votes)}
    for column in columns:
        labels = votes.labels.get(column)
        for name in labels.names if labels else ():
            some = votes.labelled(column, name).present()
            if len(some) >= least:
                boards[f"{column}:{name}"] = bradley_terry(some, min_votes=min_votes)
    return boards


def over_time(
    votes: Votes, every_s: float = DAY_S, window_s: float | None = None, min_votes: int = MIN_VOTES
) -> Iterator[tuple[float, Ratings]]:
    """The board at the end of each period: of all votes so far, or of those of the last ``window_s`` seconds.

    Votes without a time are left out. Yields (seconds since 1970, ratings).
    """
    if votes.time is None:
        raise InputError("the votes have no time, so there is no board over time.")
    if every_s <= 0:
        raise InputError(f"a period of {every_s} s is none.")
    votes = votes.where(np.isfinite(votes.time))
    assert votes.time is not None
    if len(votes) == 0:
        return
    start, last = float(votes.time.min()), float(votes.time.max())
    for number in range(1, int((last - start) // every_s) + 2):
        stop = start + number * every_s
        begin = start if window_s is None else start + (number * every_s - window_s)
        some = votes.between(begin, stop)
        yield stop, bradley_terry(some.present(), min_votes=min_votes)


class LiveBoard:
    """Counts that a vote changes in constant time, and ratings from them in milliseconds."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names: list[str] = []
        self._places: dict[str, int] = {}
        self._counts = np.zeros((8, 8, KINDS))
        self._theta = np.zeros(0)
        for name in names:
            self.enter(name)

    def enter(self, name: str) -> int:
        """A contestant's place; a new one is added at the end."""
        if name not in self._places:
            self._places[name] = len(self.names)
            self.names.append(name)
            room = len(self._counts)
            if len(self.names) > room:
                self._counts = np.pad(self._counts, ((0, room), (0, room), (0, 0)))
        return self._places[name]

    def add(self, a: str, b: str, outcome: str, count: int = 1) -> None:
        """Count a vote; ``count`` −1 takes one back. Raises InputError for one that was never given."""
        kind = SYNONYMS.get(outcome)
        if kind is None:
            raise InputError(f"outcome '{outcome}' is none of {', '.join(OUTCOMES)}{did_you_mean(outcome, OUTCOMES)}")
        if count < 0 and (a not in self._places or b not in self._places):
            raise InputError(f"no vote on {a} against {b} can be taken back: there was none.")
        left, right = self.enter(a), self.enter(b)
        if self._counts[left, right, kind] + count < 0:
            raise InputError(f"no vote '{outcome}' on {a} against {b} can be taken back: there was none.")
        self._counts[left, right, kind] += count

    @property
    def cells(self) -> Cells:
        """The counts as they are now."""
        M = len(self.names)
        return from_counts(self.names, self._counts[:M, :M])

    def ratings(self, min_votes: int = MIN_VOTES) -> Ratings:
        """The board after the last vote. It starts from the one before, so few steps are needed."""
        start = np.zeros(len(self.names))
        start[: len(self._theta)] = self._theta
        found = from_cells(self.cells, start=start, min_votes=min_votes)
        self._theta = found.theta
        return found
