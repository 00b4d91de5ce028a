import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moreseek.data.gym import from_json, to_json
from moreseek.data.problems import ProblemSource, load_problems
from moreseek.data.split import split_of
from moreseek.records import Problem
from moreseek.rewards.gym import score
from moreseek.rewards.rubric import Rubric, VerifierSettings

rg = pytest.importorskip("reasoning_gym")

scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        | st.dictionaries(st.tuples(st.integers(), st.integers()), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values)
def test_entries_survive_json_with_their_tuples(value):
    assert from_json(json.loads(json.dumps(to_json(value)))) == value


# A sum, words, a grid that its scorer compares with tuples, a task with many right answers.
TASKS = ["chain_sum", "letter_counting", "arc_agi", "n_queens"]


def check_task(task):
    for split in ("train", "heldout"):
        for problem in load_problems(ProblemSource(source=f"reasoning-gym:{task}"), 3, split, seed=2):
            stored = Problem.model_validate_json(problem.model_dump_json())
            assert split_of(stored.prompt) == split
            Rubric([VerifierSettings(name="answer")]).check([stored])
            if stored.answer:
                assert score(stored, f"<think>so</think>{stored.answer}") == 1.0
            assert score(stored, "<think>so</think>") == 0.0


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_split_and_scored_by_its_own_scorer(task):
    check_task(task)


@pytest.mark.slow
def test_every_task_of_reasoning_gym_can_be_used():
    from reasoning_gym.factory import DATASETS

    for task in sorted(set(DATASETS) - {"composite"}):  # a mixture of others: it needs their names
        check_task(task)


def test_settings_reach_the_task():
    source = ProblemSource(source="reasoning-gym:chain_sum", settings={"min_terms": 2, "max_terms": 2})
    assert all(
        problem.metadata["entry"]["metadata"]["num_terms"] == 2 for problem in load_problems(source, 5, "train", 1)
    )
    assert load_problems(source, 5, "train", 1) == load_problems(source, 5, "train", 1)
