"""Votes as columns that grow with the lines of a ledger, so that a board after a vote does not read all votes again."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from moreseek.arena.votes import LABELS, OUTCOMES, Codes, Labels, Votes

STYLE = ("tokens", "headers", "bold", "lists")
SERVED = ("latency", "cost")
"""What a vote's line says of its two answers: their style, then seconds and USD, null where those are not known."""


class VoteLines:
    """Takes lines one after another and gives all of them as votes in memory, in their order."""

    def __init__(self, labels: Sequence[str] = LABELS) -> None:
        self._left, self._right, self._outcome = array("i"), array("i"), array("b")
        self._time = array("d")
        self._labels = {label: _Label() for label in labels}
        self._features = {name: array("d") for name in (*STYLE, *SERVED)}  # only what all lines so far tell

    def add(self, lines: Iterable[Mapping[str, Any]], place: Mapping[str, int]) -> None:
        """More lines. ``place``: where each contestant stands among the names."""
        for line in lines:
            self._left.append(place[line["left"]])
            self._right.append(place[line["right"]])
            self._outcome.append(OUTCOMES.index(line["outcome"]))
            self._time.append(line["at"])
            for label, column in self._labels.items():
                column.codes.append(column.values[line[label]])
            sides = line.get("style") or ([], [])
            for at, name in enumerate((*STYLE, *SERVED)):
                if name in self._features:
                    if all(at < len(side) and side[at] is not None for side in sides):
                        self._features[name].extend(side[at] for side in sides)
                    else:
                        del self._features[name]

    def votes(self, names: Sequence[str]) -> Votes:
        """All of them, with those features of the answers that every line tells."""
        features = {name: np.array(column).reshape(-1, 2) for name, column in self._features.items() if column}
        labels = {label: column.labels() for label, column in self._labels.items()}
        left, right, outcome = (np.array(one, np.int32) for one in (self._left, self._right, self._outcome))
        return Votes(tuple(names), left, right, outcome, labels, np.array(self._time), features)


class _Label:
    def __init__(self) -> None:
        self.values, self.codes, self._names = Codes(), array("i"), list[str]()

    def labels(self) -> Labels:
        self._names.extend(map(str, islice(self.values, len(self._names), None)))
        return Labels(np.array(self.codes), tuple(self._names))


def tells(line: Mapping[str, Any], features: Sequence[str]) -> bool:
    """Whether a vote's line has these features of both answers. (Older lines have the style alone, or nothing.)"""
    told = line.get("style") or [[], []]
    places = [(*STYLE, *SERVED).index(name) for name in features]
    return all(place < len(side) and side[place] is not None for side in told for place in places)


def votes_from(
    lines: Iterable[Mapping[str, Any]], names: Sequence[str], labels: Sequence[str] = LABELS
) -> Votes:  # fmt: skip
    """Votes in memory from lines of a ledger, in their order; as features, what all of them tell of their answers."""
    found = VoteLines(labels)
    found.add(lines, {name: place for place, name in enumerate(names)})
    return found.votes(names)
