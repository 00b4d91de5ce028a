"""Problems from reasoning-gym (Apache-2.0): any of its tasks by name, scored by its own scorer."""

from collections.abc import Mapping
from typing import Any

from moreseek.config import did_you_mean
from moreseek.data.split import Split, split_of
from moreseek.errors import InputError
from moreseek.records import Problem

PREFIX = "reasoning-gym:"
_TUPLE, _ITEMS = "$tuple", "$items"
VERIFIER = "moreseek.rewards.gym:score"
_TRIES_PER_PROBLEM = 64
"""An eighth of the entries is held out and small tasks repeat themselves: beyond this the task is used up."""


def gym_dataset(task: str, settings: Mapping[str, Any]) -> Any:
    """reasoning-gym's dataset of a task. Raises InputError for an unknown task, a wrong setting, no package."""
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise InputError(f"{PREFIX}{task} needs reasoning-gym: pip install reasoning-gym") from error
    if task not in DATASETS:
        raise InputError(f"{PREFIX}{task}: no such task{did_you_mean(task, list(DATASETS))}")
    try:
        return reasoning_gym.create_dataset(task, **settings)
    except (TypeError, ValueError, AssertionError) as error:
        known = [key for key in DATASETS[task][1].__dataclass_fields__ if key not in ("seed", "size")]
        unknown = [key for key in settings if key not in known and key not in ("seed", "size")]
        hint = f"unknown setting '{unknown[0]}'{did_you_mean(unknown[0], known)}" if unknown else f"{error}."
        raise InputError(f"{PREFIX}{task}: {hint}") from error


def gym_problems(task: str, count: int, split: Split, seed: int, settings: Mapping[str, Any]) -> list[Problem]:
    """``count`` distinct problems of one side of a task. Raises InputError where the task has fewer."""
    tries = count * _TRIES_PER_PROBLEM
    dataset = gym_dataset(task, {**settings, "seed": seed, "size": tries})
    found: dict[str, Problem] = {}
    for index in range(tries):
        entry = dataset[index]
        prompt = entry["question"]
        if split_of(prompt) == split and prompt not in found:
            found[prompt] = _problem(task, entry, settings)
            if len(found) == 1:
                _check_stored(dataset, entry, found[prompt])
            if len(found) == count:
                return list(found.values())
    raise InputError(f"{PREFIX}{task} ({split}): {count} problems wanted, {len(found)} found. Ask for fewer.")


def to_json(value: Any) -> Any:
    """A value in JSON's types from which from_json restores tuples and keys that are not strings.

    Some scorers compare with tuples: as lists they would call every right answer wrong.
    """
    if isinstance(value, tuple):
        return {_TUPLE: [to_json(item) for item in value]}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, Mapping):
        if all(isinstance(key, str) for key in value):
            return {key: to_json(item) for key, item in value.items()}
        return {_ITEMS: [[to_json(key), to_json(item)] for key, item in value.items()]}
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


def from_json(value: Any) -> Any:
    """The value that to_json was given; what JSON has no type for stays text."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, dict):
        if value.keys() == {_TUPLE}:
            return tuple(from_json(item) for item in value[_TUPLE])
        if value.keys() == {_ITEMS}:
            return {from_json(key): from_json(item) for key, item in value[_ITEMS]}
        return {key: from_json(item) for key, item in value.items()}
    return value


def _problem(task: str, entry: Mapping[str, Any], settings: Mapping[str, Any]) -> Problem:
    answer = entry["answer"]
    return Problem(
        prompt=entry["question"],
        answer="" if answer is None else str(answer),  # some tasks have many right answers and name none
        verifier=VERIFIER,
        tags={"task": task},
        metadata={"task": task, "settings": dict(settings), "entry": to_json(entry)},
    )


def _check_stored(dataset: Any, entry: Mapping[str, Any], problem: Problem) -> None:
    """The scorer must judge the stored entry as it judges its own."""
    stored = from_json(problem.metadata["entry"])
    own, from_stored = (dataset.score_answer(answer=entry["answer"], entry=item) for item in (entry, stored))
    if own != from_stored:
        raise InputError(
            f"{PREFIX}{problem.metadata['task']}: its entries do not survive being stored as JSON "
            f"(the right answer scores {own:g}, then {from_stored:g}). This task cannot be used."
        )
