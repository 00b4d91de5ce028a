"""Problems from reasoning-gym (Apache-2.0): any of its tasks by name, scored by its own scorer."""

import json
from collections.abc import Mapping
from typing import Any

from moreseek.config import did_you_mean
from moreseek.data.split import Split, split_of
from moreseek.errors import InputError
from moreseek.records import Problem

PREFIX = "reasoning-gym:"
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
            if len(found) == count:
                return list(found.values())
    raise InputError(f"{PREFIX}{task} ({split}): {count} problems wanted, {len(found)} found. Ask for fewer.")


def _problem(task: str, entry: Mapping[str, Any], settings: Mapping[str, Any]) -> Problem:
    plain = json.loads(json.dumps(dict(entry), default=str))  # what the scorer will read, also from a file
    tags: dict[str, str | int | float | bool] = {"task": task}
    return Problem(
        prompt=entry["question"],
        answer=str(entry["answer"]),
        verifier=VERIFIER,
        tags=tags,
        metadata={"task": task, "settings": dict(settings), "entry": plain},
    )
