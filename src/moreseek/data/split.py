"""Train and held-out prompts, apart by construction: which side a prompt is on follows from its hash alone."""

import hashlib
from collections.abc import Iterable
from typing import Literal

from moreseek.errors import InputError
from moreseek.records import Problem

Split = Literal["train", "heldout"]

HELDOUT_SHARE = 1 / 8


def is_heldout(prompt: str) -> bool:
    """Whether a prompt belongs to the held-out eighth, whatever the source, count or seed."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()[0] % 8 == 0


def split_of(prompt: str) -> Split:
    """The side of a prompt: "train" or "heldout"."""
    return "heldout" if is_heldout(prompt) else "train"


def check_disjoint(train: Iterable[Problem], heldout: Iterable[Problem]) -> None:
    """Raise InputError with examples where a held-out problem's prompt is also trained on."""
    check_apart((problem.prompt for problem in train), (problem.prompt for problem in heldout), "problems")


def check_apart(trained: Iterable[str], heldout: Iterable[str], what: str) -> None:
    """The same for prompts of any kind: ``what`` is trained on."""
    leaked = sorted(set(heldout) & set(trained))
    if leaked:
        shown = "; ".join(repr(prompt[:80]) for prompt in leaked[:3])
        raise InputError(
            f"{len(leaked)} held-out problems are also training {what}: {shown}. "
            "Remove them from one side, or let one file be split by itself."
        )
