"""The verifier of reasoning-gym problems: the task's own scorer."""

import json
from functools import lru_cache
from typing import Any

from moreseek.data.gym import from_json, gym_dataset
from moreseek.errors import InputError
from moreseek.records import Problem
from moreseek.rewards.answer import answer_text
from moreseek.rewards.verifier import Examples, with_examples


def _examples(problem: Problem) -> Examples:
    answer = problem.metadata.get("entry", {}).get("answer")
    return ([] if answer is None else [f"<think></think>{answer}"]), [""]


@with_examples(_examples)
def score(problem: Problem, completion: str) -> float:
    """What the scorer of ``metadata["task"]`` gives the answer: 0 to 1, partial credit where the task has it.

    Raises InputError where the problem does not come from reasoning-gym.
    """
    metadata = problem.metadata
    if "task" not in metadata or "entry" not in metadata:
        raise InputError("moreseek.rewards.gym:score needs a problem from reasoning-gym (metadata: task, entry).")
    answer = answer_text(completion)
    if not answer:
        return 0.0
    dataset = _dataset(metadata["task"], json.dumps(metadata.get("settings", {}), sort_keys=True))
    return float(dataset.score_answer(answer=answer, entry=from_json(metadata["entry"])))


@lru_cache(maxsize=128)
def _dataset(task: str, settings: str) -> Any:
    return gym_dataset(task, json.loads(settings))
