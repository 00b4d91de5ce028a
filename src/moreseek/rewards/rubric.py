"""The rubric: a weighted sum of named verifiers, in which a verifier's failure is an error and never a 0."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Real

from pydantic import Field

from moreseek.config import Settings, import_name, told
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
    weight: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    timeout_s: float = Field(default=5.0, gt=0.0, allow_inf_nan=False)


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
        require_verifiers(problems)
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
        function = problem.verifier if verifier.verifier == OWN else verifier.verifier
        where = f"verifier '{verifier.name}' ({function}), tried on the problem {problem.prompt[:80]!r}"
        try:
            right, wrong = examples_of(_function(function), problem)
        except Exception as error:  # foreign code
            raise InputError(f"{where}: its examples failed: {_told(error, function)}.") from error

        def value_of(completion: str) -> float:
            value = _try(verifier, problem, completion, timer)
            if isinstance(value, str):
                hint = "" if completion in right else " It must give 0 to an answer that it cannot read."
                raise InputError(f"{where}: {value} (for the completion {completion!r}).{hint}")
            return value

        rights = [(value_of(completion), completion) for completion in right]
        wrongs = [(value_of(completion), completion) for completion in wrong]
        if rights and wrongs and min(rights)[0] <= max(wrongs)[0]:
            (low, worst), (high, best) = min(rights), max(wrongs)
            raise InputError(
                f"{where}: gave {low:g} to the right {worst!r} and {high:g} to the wrong {best!r}. "
                "If these are not right and wrong, give the function its own examples(problem)."
            )


def require_verifiers(problems: Iterable[Problem]) -> None:
    """Import every verifier that the problems name. Raises InputError for one that is not there."""
    for name in sorted({problem.verifier for problem in problems}):
        _function(name)


@lru_cache(maxsize=1_024)
def _function(name: str) -> Verifier:
    return import_name(name)


def _try(verifier: VerifierSettings, problem: Problem, completion: str, timer: Timer) -> float | str:
    """A verifier's value, or what went wrong."""
    name = problem.verifier if verifier.verifier == OWN else verifier.verifier
    try:
        value = timer.call(_function(name), problem, completion, verifier.timeout_s)
    except TimedOut:
        return f"no value after {verifier.timeout_s:g} s"
    except (Exception, SystemExit) as error:  # foreign code: whatever it raises is its error
        return _told(error, name)
    number = float(value) if isinstance(value, Real) else math.nan
    if 0.0 <= number <= 1.0:  # NaN is not
        return number
    return f"gave {value!r}, a number from 0 to 1 is needed"


def _told(error: BaseException, verifier: str) -> str:
    return told(error, verifier.partition(":")[0])
