"""Arenas whose truth is known: who votes how is drawn, and what a fit of endless votes would say is computed."""

from dataclasses import dataclass

import numpy as np

from moreseek.arena.cells import from_counts
from moreseek.arena.fit import fit
from moreseek.arena.votes import Labels, Votes

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(40)


@dataclass(frozen=True)
class Arena:
    """M strengths; a share of ties whatever the pair; voters and prompts with tastes of their own (log-odds)."""

    strength: np.ndarray
    ties: float = 0.3
    voters: int = 0
    prompts: int = 0
    taste: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"m{i}" for i in range(len(self.strength)))

    def truth(self) -> np.ndarray:
        """The strengths (mean zero) that ratings with half-win ties go to when votes never end."""
        kinds = (self.voters > 0) + (self.prompts > 0)
        spread = self.taste * np.sqrt(2 * kinds)
        gap = self.strength[:, None] - self.strength[None, :]
        chance = (1 / (1 + np.exp(-(gap[..., None] + spread * _NODES))) * _WEIGHTS).sum(-1) / _WEIGHTS.sum()
        counts = np.zeros((*gap.shape, 4))
        counts[..., 0], counts[..., 1], counts[..., 2] = (1 - self.ties) * chance, (1 - self.ties) * chance.T, self.ties
        counts[np.arange(len(gap)), np.arange(len(gap))] = 0
        return fit(from_counts(self.names, 1000 * counts)).theta

    def votes(self, n: int, rng: np.random.Generator) -> Votes:
        M = len(self.strength)
        a = rng.integers(M, size=n)
        b = (a + rng.integers(1, M, size=n)) % M
        logit = self.strength[a] - self.strength[b]
        labels = {}
        for name, count in (("voter", self.voters), ("prompt", self.prompts)):
            if count:
                who = rng.integers(count, size=n)
                taste = self.taste * rng.standard_normal((count, M))
                logit = logit + taste[who, a] - taste[who, b]
                labels[name] = Labels(who.astype(np.int32), tuple(map(str, range(count))))
        decided = np.where(rng.random(n) < 1 / (1 + np.exp(-logit)), 0, 1)
        outcome = np.where(rng.random(n) < self.ties, rng.integers(2, 4, size=n), decided)
        return Votes(self.names, a, b, outcome, labels)
