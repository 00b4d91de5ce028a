"""How often a judge and people, or two judges, say the same of the same battles: the same two answers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from moreseek.arena.agreement import agreement
from moreseek.arena.replay import Replay
from moreseek.arena.votes import OUTCOMES, Codes, Labels, Votes
from moreseek.evals.statistics import wilson

PEOPLE = "people"
_DECIDED = OUTCOMES[:2]
Line = dict[str, Any]


def agreements(replay: Replay, judge: str) -> list[dict[str, Any]]:
    """A judge against people's rated votes, and against every other judge, where they have battles in common.

    ``battles`` in common; ``same``: the share on which both said the same of the four outcomes, with Wilson's
    interval; ``decided``: the same among battles in which neither said tie or both_bad; ``alpha``: Krippendorff's,
    nominal.
    """
    others: dict[str, Mapping[str, Line]] = {PEOPLE: {vote["battle"]: vote for vote in replay.rated()}}
    others |= {name: replay.judged(name) for name in replay.judges if name != judge}
    return agreed(judge, replay.judged(judge), others)


def agreed(judge: str, own: Mapping[str, Line], others: Mapping[str, Mapping[str, Line]]) -> list[dict[str, Any]]:
    """The same from lines of the ledger by battle: the judge's own, and those of others by their name."""
    return [
        {"judge": judge, "with": name, **_compared(own, other)}
        for name, other in others.items()
        if own.keys() & other.keys()
    ]


def _compared(first: Mapping[str, Line], second: Mapping[str, Line]) -> dict[str, Any]:
    pairs = {battle: (said["outcome"], second[battle]["outcome"]) for battle, said in first.items() if battle in second}
    decided = [(a, b) for a, b in pairs.values() if a in _DECIDED and b in _DECIDED]
    codes = Codes()
    names = [first[battle][side] for side in ("left", "right") for battle in pairs]
    left, right = np.split(codes.of(names, len(names)), 2)
    outcome = np.array([[OUTCOMES.index(said) for said in pair] for pair in pairs.values()], np.int32)  # (n, 2)
    units = np.arange(len(pairs), dtype=np.int32)
    votes = Votes(
        tuple(map(str, codes)), np.tile(left, 2), np.tile(right, 2), outcome.T.reshape(-1),
        {"prompt": Labels(np.tile(units, 2), tuple(pairs))},
    )  # fmt: skip
    return {
        "battles": len(pairs), "same": _share(list(pairs.values())),
        "decided": {"battles": len(decided), "same": _share(decided)},
        "alpha": agreement(votes).alpha,
    }  # fmt: skip


def _share(pairs: list[tuple[str, str]]) -> dict[str, float] | None:
    return wilson(sum(a == b for a, b in pairs), len(pairs)).as_dict() if pairs else None
