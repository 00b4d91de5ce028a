"""GSM8K's own JSONL (MIT licence): ``question``, and an ``answer`` whose last line is ``#### 42``."""

import random
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from moreseek.data.split import Split, check_disjoint, split_of
from moreseek.errors import InputError
from moreseek.records import Problem, read_jsonl

_MARK = "####"


class _Line(BaseModel):
    model_config = ConfigDict(extra="ignore")

    question: str
    answer: str


def problems(count: int, split: Split, seed: int, path: str, heldout_path: str | None = None) -> list[Problem]:
    """``count`` problems of one side.

    With ``heldout_path`` (GSM8K's test.jsonl) each side is its own file; with ``path`` alone the file is split
    by the hash of each question. Raises InputError where the file is missing, malformed or too short.
    """
    found = _read(path)
    if heldout_path is None:
        found = [problem for problem in found if split_of(problem.prompt) == split]
    else:
        heldout = _read(heldout_path)
        check_disjoint(found, heldout)
        found = found if split == "train" else heldout
    if count > len(found):
        raise InputError(f"{path} ({split}): {count} problems wanted, {len(found)} found. Ask for fewer.")
    return random.Random(seed).sample(found, count)


def _read(path: str) -> list[Problem]:
    return [_problem(line, path) for line in read_jsonl(Path(path), _Line)]


def _problem(line: _Line, path: str) -> Problem:
    steps, mark, answer = line.answer.rpartition(_MARK)
    if not mark:
        raise InputError(f"{path}: the answer to {line.question[:60]!r} has no '{_MARK} number' at its end.")
    operations = steps.count("<<")  # GSM8K marks every calculation as <<48/2=24>>
    return Problem(prompt=line.question, answer=answer.strip().replace(",", ""), tags={"difficulty": operations})
