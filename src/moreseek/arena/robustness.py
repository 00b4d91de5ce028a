"""How much of a board hangs on few votes or few voters: the votes that would flip the top, caps, leaving one out."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from moreseek.arena.cells import Cells, count_cells
from moreseek.arena.covariance import sandwich
from moreseek.arena.fit import fit, sigmoid
from moreseek.arena.ratings import POINTS, Ratings, plain, settle
from moreseek.arena.significance import tied_ranks
from moreseek.arena.votes import OUTCOMES, SCORES, Votes
from moreseek.errors import InputError

_NEAREST = 30  # rivals that are looked at, those with the next ratings
_RIVALS = 5  # of them, how many are tried with real refits, those that seem to need fewest votes first


@dataclass(frozen=True)
class Flip:
    """Votes whose removal changes who is first; found greedily, so fewer may do, and checked by rating again."""

    leader: str
    rival: str
    removed: int
    votes: int
    cells: list[dict[str, Any]]  # a, b, outcome, count of what was removed

    def sentence(self) -> str:
        """The robustness line of a board."""
        share = f"{self.removed:,} of {self.votes:,} votes ({self.removed / self.votes:.2%})"
        return f"Removing {share} puts {self.rival} before {self.leader}."


def fewest_votes_to_flip(ratings: Ratings) -> Flip | None:
    """The fewest votes found whose removal costs the first its place (Broderick, Giordano & Meager 2020).

    Removing a vote moves θ_first − θ_rival by about −(H⁺_first − H⁺_rival) · score; those that move it most go first,
    and how many are really needed is found by rating again. None when there is nobody to compare, or no number will do.
    """
    cells, theta = ratings.cells, ratings.theta
    ranked = np.flatnonzero(~ratings.provisional)
    if len(ranked) < 2:
        return None
    order = ranked[np.argsort(-theta[ranked], kind="stable")]
    leader, inverse = order[0], ratings.fitted.inverse
    residual = SCORES[None, :] - sigmoid(theta[cells.left] - theta[cells.right])[:, None]  # (K, 4)
    given = np.flatnonzero(cells.counts)  # places in (K, 4), of which most are empty
    counts = cells.counts.reshape(-1)[given]
    guesses = []
    for rival in order[1 : 1 + _NEAREST]:
        gap = inverse[leader] - inverse[rival]
        pull = ((gap[cells.left] - gap[cells.right])[:, None] * residual).reshape(-1)[given]  # what one vote holds up
        tried = sorted(guess for guess, _, _ in guesses)[:_RIVALS]
        if len(tried) == _RIVALS and theta[leader] - theta[rival] > pull.max() * tried[-1]:
            continue  # it needs more votes than the rivals that will be tried
        holding = np.flatnonzero(pull > 0)
        taken = holding[np.argsort(-pull[holding], kind="stable")]
        reach = np.cumsum(pull[taken] * counts[taken])
        enough = int(np.searchsorted(reach, theta[leader] - theta[rival]))
        guesses.append((int(counts[taken[: enough + 1]].sum()), int(rival), given[taken]))
    best: tuple[int, int, np.ndarray] | None = None
    for guess, rival, taken in sorted(guesses, key=lambda guess: guess[0])[:_RIVALS]:
        found = _needed(ratings, int(leader), rival, taken, guess, None if best is None else best[0])
        if found is not None:
            best = (found, rival, taken)
    if best is None:
        return None
    return _described(ratings, int(leader), best[1], best[2], best[0])


def _needed(ratings: Ratings, leader: int, rival: int, taken: np.ndarray, guess: int, below: int | None) -> int | None:
    """The smallest number of votes, taken in this order, after which the rival is before the leader.

    It is looked for around a guess, in steps that double: each look is a fit.
    """
    most = int(ratings.cells.counts.reshape(-1)[taken].sum()) if below is None else below - 1
    if most < 1:
        return None
    high, step = min(max(1, guess), most), 1
    if _flipped(ratings, leader, rival, taken, high):
        low = max(0, high - step)
        while low > 0 and _flipped(ratings, leader, rival, taken, low):
            step *= 2
            low, high = max(0, low - step), low
    else:
        low = high
        while True:
            if low == most:
                return None
            high = min(most, low + step)
            if _flipped(ratings, leader, rival, taken, high):
                break
            low, step = high, step * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _flipped(ratings, leader, rival, taken, middle) else (middle, high)
    return high


def _without(cells: Cells, taken: np.ndarray, number: int) -> tuple[Cells, np.ndarray]:
    counts = cells.counts.reshape(-1).copy()
    before = np.concatenate([[0.0], np.cumsum(counts[taken])[:-1]])
    gone = np.clip(number - before, 0.0, counts[taken])
    counts[taken] -= gone
    table = counts.reshape(cells.counts.shape)
    return Cells(cells.names, cells.left, cells.right, table, table), gone


def _flipped(ratings: Ratings, leader: int, rival: int, taken: np.ndarray, number: int) -> bool:
    cells, _ = _without(ratings.cells, taken, number)
    # Removing votes can cut the win graph, so a trace of a prior keeps every refit finite.
    theta = fit(cells, max(ratings.fitted.prior, 1e-3), start=ratings.theta).theta
    return bool(theta[rival] > theta[leader])


def _described(ratings: Ratings, leader: int, rival: int, taken: np.ndarray, number: int) -> Flip:
    cells = ratings.cells
    _, gone = _without(cells, taken, number)
    removed = [
        {
            "a": cells.names[cells.left[place // len(OUTCOMES)]], "b": cells.names[cells.right[place // len(OUTCOMES)]],
            "outcome": OUTCOMES[place % len(OUTCOMES)], "count": plain(round(float(count), 3)),
        }
        for place, count in zip(taken, gone, strict=True) if count > 0
    ]  # fmt: skip
    return Flip(cells.names[leader], cells.names[rival], number, int(cells.votes), removed)


def cap_voters(votes: Votes, most: int) -> Votes:
    """Weigh down voters with more than ``most`` votes, so that each counts for at most so many."""
    if most < 1:
        raise InputError(f"a cap of {most} votes a voter leaves nothing; 1 is the least.")
    if "voter" not in votes.labels:
        raise InputError("a cap needs to know who voted: a column 'voter'.")
    codes = votes.labels["voter"].codes
    given = np.bincount(codes[codes >= 0], minlength=1)
    weight = np.where(codes >= 0, np.minimum(1.0, most / np.maximum(given[codes], 1)), 1.0)
    return votes if (weight == 1).all() else votes.with_weight(weight)


def leave_one_voter_out(votes: Votes, most: int = 200) -> dict[str, Any]:
    """Rate again without each voter (the ``most`` busiest ones).

    ``rank_low`` and ``rank_high``: lists of the best and worst rank of each contestant (order of ``names``) over all
    of these boards. ``influence``: voter -> largest change of any rating, in points, strongest first.
    """
    if "voter" not in votes.labels:
        raise InputError("leaving one voter out needs to know who voted: a column 'voter'.")
    cells = count_cells(votes)
    whole, _, _ = settle(cells, None)
    ranks = [_ranks(cells, whole.theta, whole.prior)[1]]
    voters = votes.labels["voter"]
    given = np.bincount(voters.codes[voters.codes >= 0], minlength=len(voters.names))
    busiest = np.argsort(-given, kind="stable")[:most]
    order = np.argsort(voters.codes, kind="stable")
    starts = np.searchsorted(voters.codes[order], np.arange(len(voters.names) + 1))
    keys = cells.left * cells.size + cells.right
    influence = {}
    for voter in busiest.tolist():
        mine = count_cells(votes.where(order[starts[voter] : starts[voter + 1]]))
        counts = cells.counts.copy()
        counts[np.searchsorted(keys, mine.left * cells.size + mine.right)] -= mine.counts
        counts = np.maximum(counts, 0.0)
        rest = Cells(cells.names, cells.left, cells.right, counts, counts)
        theta, rank = _ranks(rest, whole.theta, max(whole.prior, 1e-3))
        ranks.append(rank)
        influence[voters.names[voter]] = float(POINTS * np.abs(theta - whole.theta).max(initial=0.0))
    table = np.array(ranks)
    return {
        "names": list(cells.names), "rank_low": table.min(axis=0).tolist(), "rank_high": table.max(axis=0).tolist(),
        "influence": dict(sorted(influence.items(), key=lambda item: -item[1])),
    }  # fmt: skip


def _ranks(cells: Cells, start: np.ndarray, prior: float) -> tuple[np.ndarray, np.ndarray]:
    found = fit(cells, prior, start=start)
    se = np.sqrt(np.maximum(np.diag(sandwich(cells, found)), 0.0))
    return found.theta, tied_ranks(found.theta - 1.96 * se, found.theta + 1.96 * se)
