"""The rubric: a weighted sum of named verifiers, in which a verifier's failure is an error and never a 0."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from pydantic import Field

from moreseek.config import Settings, import_name
from moreseek.errors import InputError
from moreseek.records import Problem
from moreseek.rewards.timer import TimedOut, Timer
from moreseek.rewards.verifier import Verifier, examples_of

OWN = "problem"
"""The verifier's name that stands for each problem's own."""


class VerifierSettings(Settings):
    """One verifier of a rubric. With weight 0 it is only reported."""

    name: str
    verifier: str = OWN
    weight: float = Field(1.0, ge=0.0, allow_inf_nan=False)
    timeout_s: float = Field(5.0, gt=0.0, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Score:
    """What the rubric says of one completion.

    reward: the weighted sum of the parts, or None where a verifier failed. parts: each verifier's value, 0..1,
    None where it failed. errors: what failed, by verifier.
    """

    reward: float | None
    parts: dict[str, float | None]
    errors: dict[str, str] = field(default_factory=dict)


class Rubric:
    """Scores completions. Raises InputError where a verifier cannot be found, is named twice, or none counts."""

    def __init__(self, verifiers: Sequence[VerifierSettings]) -> None:
        names = [verifier.name for verifier in verifiers]
        if len(set(names)) < len(names):
            raise InputError(f"rubric: two verifiers share a name ({', '.join(names)}).")
        if not any(verifier.weight > 0 for verifier in verifiers):
            raise InputError("rubric: at least one verifier needs a weight above 0.")
        self.verifiers = tuple(verifiers)
        for verifier in verifiers:
            if verifier.verifier != OWN:
                _function(verifier.verifier)

    @property
    def highest_reward(self) -> float:
        """The reward of a completion that every verifier gives 1."""
        return sum(verifier.weight for verifier in self.verifiers)

    def score(self, problem: Problem, completion: str) -> Score:
        """Score one completion (the whole assistant message)."""
        return self.score_many([(problem, completion)])[0]

    def score_many(self, pairs: Iterable[tuple[Problem, str]]) -> list[Score]:
        """Score many completions, in their order."""
        with Timer() as timer:
            return [self._score(problem, completion, timer) for problem, completion in pairs]

    def check(self, problems: Sequence[Problem], limit: int = 16) -> None:
        """Try every verifier on completions that are known to be right and wrong, on up to ``limit`` problems.

        Raises InputError that names the verifier, the problem and what came back, unless every right example
        scores above every wrong one.
        """
        step = max(1, len(problems) // limit)
        with Timer() as timer:
            for problem in problems[::step][:limit]:
                for verifier in self.verifiers:
                    self._check(verifier, problem, timer)

    def _score(self, problem: Problem, completion: str, timer: Timer) -> Score:
        parts: dict[str, float | None] = {}
        errors: dict[str, str] = {}
        reward = 0.0
        for verifier in self.verifiers:
            value = _try(verifier, problem, completion, timer)
            if isinstance(value, str):
                parts[verifier.name] = None
                errors[verifier.name] = value
            else:
                parts[verifier.name] = value
                reward += verifier.weight * value
        return Score(None if errors else reward, parts, errors)

    def _check(self, verifier: VerifierSettings, problem: Problem, timer: Timer) -> None:
        name = problem.verifier if verifier.verifier == OWN else verifier.verifier
        right, wrong = examples_of(_function(name), problem)
        scores: dict[str, list[tuple[float, str]]] = {"right": [], "wrong": []}
        for kind, completions in (("right", right), ("wrong", wrong)):
            for completion in completions:
                value = _try(verifier, problem, completion, timer)
                if isinstance(value, str):
                    raise InputError(
                        _complaint(verifier.name, name, problem, f"failed on the {kind} {completion!r}: {value}")
                    )
                scores[kind].append((value, completion))
        if scores["right"] and scores["wrong"] and min(scores["right"])[0] <= max(scores["wrong"])[0]:
            (low, right_text), (high, wrong_text) = min(scores["right"]), max(scores["wrong"])
            found = f"gave {low} to the right {right_text!r} and {high} to the wrong {wrong_text!r}"
            raise InputError(
                _complaint(verifier.name, name, problem, f"{found}. The function's examples(problem) say what is right")
            )


def _complaint(name: str, function: str, problem: Problem, found: str) -> str:
    return f"verifier '{name}' ({function}), tried on the problem {problem.prompt[:80]!r}, {found}."


@lru_cache(maxsize=1_024)
def _function(name: str) -> Verifier:
    return import_name(name)


def _try(verifier: VerifierSettings, problem: Problem, completion: str, timer: Timer) -> float | str:
    """A verifier's value, or what went wrong."""
    try:
        function = _function(problem.verifier if verifier.verifier == OWN else verifier.verifier)
        value = timer.call(function, problem, completion, verifier.timeout_s)
    except TimedOut:
        return f"no value after {verifier.timeout_s:g} s"
    except Exception as error:  # foreign code: whatever it raises is its error
        return f"{type(error).__name__}: {error}"
    if isinstance(value, (bool, int, float)) and math.isfinite(value) and 0.0 <= value <= 1.0:
        return float(value)
    return f"gave {value!r}, a number from 0 to 1 is needed"
