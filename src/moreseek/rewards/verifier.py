"""What a verifier is: a function that scores one completion of one problem from 0 to 1.

It sees the whole assistant message, starting with <think> where the template opened it. It says 0.0 only for a
completion that is wrong; what it cannot judge it raises, and that is counted as an error.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from moreseek.records import Problem

Verifier = Callable[[Problem, str], float]
Examples = tuple[list[str], list[str]]
"""Completions that are known to be right, and completions that are known to be wrong."""

V = TypeVar("V", bound=Callable[..., Any])


def with_examples(examples: Callable[[Problem], Examples]) -> Callable[[V], V]:
    """Give a verifier its examples: the rubric tries them before training starts."""

    def attach(verifier: V) -> V:
        verifier.__dict__["examples"] = examples
        return verifier

    return attach


def examples_of(verifier: Verifier, problem: Problem) -> Examples:
    """A verifier's own examples, else the problem's answer and something that is not it."""
    own = getattr(verifier, "examples", None)
    if own is not None:
        return own(problem)
    return [f"<think></think>{problem.answer}"], [f"<think></think>{problem.answer}0 no", ""]
