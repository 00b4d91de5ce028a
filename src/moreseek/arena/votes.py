"""Votes in memory: one integer code a column, so that a million of them cost a few megabytes."""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field, replace

import numpy as np

from moreseek.config import did_you_mean
from moreseek.errors import InputError

OUTCOMES = ("model_a", "model_b", "tie", "both_bad")
A_WINS, B_WINS, TIE, BOTH_BAD = range(4)
SCORES = np.array([1.0, 0.0, 0.5, 0.5])
"""What each outcome counts for the left contestant: ties and both_bad half a win each way."""

SYNONYMS = {
    **{name: code for code, name in enumerate(OUTCOMES)},
    "a": A_WINS, "left": A_WINS, "leftvote": A_WINS,
    "b": B_WINS, "right": B_WINS, "rightvote": B_WINS,
    "draw": TIE, "tievote": TIE,
    "tie (bothbad)": BOTH_BAD, "tie (both bad)": BOTH_BAD, "bothbad": BOTH_BAD, "both bad": BOTH_BAD,
    "bothbad_vote": BOTH_BAD,
}  # fmt: skip
LABELS = ("voter", "prompt", "category", "language")
KEEP_ALONE = -1
"""The code of a vote without a label: it stands for itself."""


class Codes(dict[Hashable, int]):
    """Values to consecutive codes; a value not seen before gets the next one when it is looked up."""

    def __missing__(self, value: Hashable) -> int:
        code = len(self)
        self[value] = code
        return code

    def of(self, values: Iterable[Hashable], count: int) -> np.ndarray:
        """The codes (count,) of so many values."""
        return np.fromiter(map(self.__getitem__, values), np.int32, count)


@dataclass(frozen=True, slots=True)
class Labels:
    """A column of names, such as the voters: a code a vote, -1 where none is given."""

    codes: np.ndarray  # (n,) int32
    names: tuple[str, ...]

    def where(self, chosen: np.ndarray | slice) -> "Labels":
        """The same names for some of the votes."""
        return Labels(self.codes[chosen], self.names)


@dataclass(frozen=True)
class Votes:
    """n votes on battles between M contestants. ``a`` was shown on the left, ``b`` on the right."""

    names: tuple[str, ...]
    a: np.ndarray  # (n,) integers, places in names
    b: np.ndarray  # (n,)
    outcome: np.ndarray  # (n,) integers, places in OUTCOMES
    labels: dict[str, Labels] = field(default_factory=dict)
    time: np.ndarray | None = None  # (n,) seconds since 1970; NaN where none is given
    features: dict[str, np.ndarray] = field(default_factory=dict)  # name -> (n, 2): of a's answer, of b's
    weight: np.ndarray | None = None  # (n,)
    warnings: tuple[str, ...] = ()
    gaps: bool = False  # names were made from codes, and some of them may be nobody's

    def __len__(self) -> int:
        return len(self.a)

    def where(self, chosen: np.ndarray | slice) -> "Votes":
        """Some of the votes, by a mask or by places; every contestant keeps its place."""
        return replace(
            self, a=self.a[chosen], b=self.b[chosen], outcome=self.outcome[chosen],
            labels={name: labels.where(chosen) for name, labels in self.labels.items()},
            time=None if self.time is None else self.time[chosen],
            features={name: pair[chosen] for name, pair in self.features.items()},
            weight=None if self.weight is None else self.weight[chosen],
        )  # fmt: skip

    def with_weight(self, weight: np.ndarray) -> "Votes":
        """The same votes, each counted so many times, on top of any weight that it has."""
        return replace(self, weight=weight if self.weight is None else self.weight * weight)

    def with_features(self, features: dict[str, np.ndarray]) -> "Votes":
        """The same votes with features (n, 2) of the two answers beside those that they have."""
        return replace(self, features={**self.features, **features})

    def present(self) -> "Votes":
        """Without names that no vote mentions."""
        seen = np.bincount(self.a, minlength=len(self.names)) + np.bincount(self.b, minlength=len(self.names)) > 0
        places = np.cumsum(seen, dtype=np.int32) - 1
        names = tuple(name for name, there in zip(self.names, seen, strict=True) if there)
        return replace(self, names=names, a=places[self.a], b=places[self.b], gaps=False)

    def among(self, names: Iterable[str]) -> "Votes":
        """Only the battles between these contestants, and only they on the board."""
        kept = tuple(names)
        places = np.full(len(self.names), -1, np.int32)
        for place, name in enumerate(kept):
            if name not in self.names:
                raise InputError(f"no contestant '{name}'{did_you_mean(name, self.names)}")
            places[self.names.index(name)] = place
        votes = self.where((places[self.a] >= 0) & (places[self.b] >= 0))
        return replace(votes, names=kept, a=places[votes.a], b=places[votes.b])

    def labelled(self, column: str, value: str) -> "Votes":
        """The votes with this category, language, voter or prompt."""
        if column not in self.labels:
            raise InputError(f"the votes have no column '{column}'{did_you_mean(column, list(self.labels))}")
        labels = self.labels[column]
        if value not in labels.names:
            raise InputError(f"no {column} '{value}'{did_you_mean(value, labels.names)}")
        return self.where(labels.codes == labels.names.index(value))

    def between(self, start: float = -math.inf, stop: float = math.inf) -> "Votes":
        """The votes given from ``start`` up to ``stop`` (seconds since 1970)."""
        if self.time is None:
            raise InputError("the votes have no time, so they cannot be cut by it.")
        return self.where((self.time >= start) & (self.time < stop))
