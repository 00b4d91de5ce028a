import contextlib
import math
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from moreseek.data.arithmetic import problems
from moreseek.errors import InputError
from moreseek.records import Problem
from moreseek.rewards.rubric import Rubric, Score, VerifierSettings
from moreseek.rewards.verifier import with_examples

PROBLEM = Problem(prompt="40+1=", answer="41")
RIGHT, WRONG = "<think></think>41", "<think></think>42"


def half(problem, completion):
    return 0.5


def raises(problem, completion):
    raise KeyError("broken")


def reads_numbers_only(problem, completion):
    return float(int(completion.removeprefix("<think></think>")) == int(problem.answer))


def leaves(problem, completion):
    raise SystemExit(1)


def hangs(problem, completion):
    while True:
        time.sleep(0.01)


def hangs_and_swallows(problem, completion):
    while True:
        with contextlib.suppress(Exception):
            time.sleep(10)


def gives(value):
    return lambda problem, completion: value


gives_none, gives_nan, gives_two, gives_negative = gives(None), gives(math.nan), gives(2.0), gives(-0.1)
gives_text, gives_infinity = gives("1.0"), gives(math.inf)
gives_true, gives_float32, gives_int = gives(True), gives(np.float32(0.5)), gives(1)


def upside_down(problem, completion):
    return 0.0 if problem.answer in completion else 1.0


@with_examples(lambda problem: (["short"], ["a very long one"]))
def short(problem, completion):
    return 1.0 / len(completion) if completion else 0.0


@with_examples(lambda problem: problem.metadata["no such key"])
def broken_examples(problem, completion):
    return 1.0


def rubric(*names, **settings):
    verifiers = [VerifierSettings(name=name, verifier=f"{__name__}:{name}", **settings) for name in names]
    return Rubric([VerifierSettings(name="answer"), *verifiers])


def test_the_reward_is_the_weighted_sum_of_the_parts():
    score = rubric("half", weight=0.2).score(PROBLEM, RIGHT)
    assert score == Score(1.1, {"answer": 1.0, "half": 0.5}, {})
    assert rubric("half", weight=0.0).score(PROBLEM, RIGHT).reward == 1.0
    assert rubric("half", weight=0.2).highest_reward == 1.2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", "KeyError: 'broken'"),
        ("leaves", "SystemExit"),
        ("hangs", "no value after 0.05 s"),
        ("hangs_and_swallows", "no value after 0.05 s"),
        ("gives_none", "gave None"),
        ("gives_nan", "gave nan"),
        ("gives_infinity", "gave inf"),
        ("gives_two", "gave 2.0"),
        ("gives_negative", "gave -0.1"),
        ("gives_text", "gave '1.0'"),
    ],
)
@pytest.mark.parametrize("in_main_thread", [True, False])
def test_a_failing_verifier_is_an_error_and_never_a_zero(name, message, in_main_thread):
    scorer = rubric(name, timeout_s=0.05)
    if in_main_thread:
        score = scorer.score(PROBLEM, RIGHT)
    else:
        with ThreadPoolExecutor(1) as pool:
            score = pool.submit(scorer.score, PROBLEM, RIGHT).result(timeout=5)
    assert score.reward is None
    assert score.parts == {"answer": 1.0, name: None}
    assert message in score.errors[name]


@pytest.mark.parametrize(("name", "value"), [("gives_true", 1.0), ("gives_float32", 0.5), ("gives_int", 1.0)])
def test_every_kind_of_real_number_is_taken(name, value):
    assert rubric(name).score(PROBLEM, RIGHT).parts[name] == value


def test_one_hanging_verifier_does_not_stop_the_others():
    scores = rubric("hangs", timeout_s=0.02).score_many([(PROBLEM, RIGHT), (PROBLEM, WRONG)])
    assert [score.parts["answer"] for score in scores] == [1.0, 0.0]


def test_somebody_elses_alarm_still_rings():
    rung = threading.Event()
    former = signal.signal(signal.SIGALRM, lambda *_: rung.set())
    was, _ = signal.setitimer(signal.ITIMER_REAL, 0.15)
    try:
        rubric("hangs", timeout_s=0.02).score(PROBLEM, RIGHT)
        assert not rung.is_set()
        time.sleep(0.2)
        assert rung.is_set()
    finally:
        signal.signal(signal.SIGALRM, former)
        signal.setitimer(signal.ITIMER_REAL, was)


def test_cheap_verifiers_are_cheap():
    found = problems(256, "train", seed=1)
    pairs = [(problem, f"<think>1+1=2</think>{i}") for i, problem in enumerate(found)]
    form = VerifierSettings(name="format", verifier="moreseek.rewards.format:think", weight=0.1)
    scorer = Rubric([VerifierSettings(name="answer"), form])
    times = []
    for _ in range(5):
        start = time.process_time()
        scores = scorer.score_many(pairs)
        times.append(time.process_time() - start)
    assert len(scores) == 256
    assert min(times) < 0.05


def test_a_rubric_whose_verifiers_tell_right_from_wrong_passes_the_check():
    checked = Rubric(
        [
            VerifierSettings(name="answer"),
            VerifierSettings(name="exact", verifier="moreseek.rewards.answer:exact"),
            VerifierSettings(name="think", verifier="moreseek.rewards.format:think"),
            VerifierSettings(name="tags", verifier="moreseek.rewards.format:tags"),
            VerifierSettings(name="short", verifier=f"{__name__}:short"),
        ]
    )
    checked.check(problems(50, "train", seed=1))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("upside_down", "gave 0 to the right .*41.* and 1 to the wrong"),
        ("half", "gave 0.5 to the right"),
        ("raises", "KeyError: 'broken'"),
        ("hangs", "no value after"),
        ("gives_none", "gave None"),
        ("broken_examples", "its examples failed: KeyError"),
    ],
)
def test_a_broken_verifier_is_found_before_the_first_step(name, message):
    with pytest.raises(InputError, match=message) as error:
        rubric(name, timeout_s=0.05).check([PROBLEM])
    assert f"verifier '{name}'" in str(error.value)
    assert "40+1=" in str(error.value)


def test_every_verifier_that_a_problem_names_is_looked_up_before_any_is_tried():
    lost = Problem(prompt="1+1=", answer="2", verifier="moreseek.rewards.answer:nubmer")
    many = problems(64, "train", seed=1)
    with pytest.raises(InputError, match=r"has no function 'nubmer'\. Did you mean 'number'") as error:
        Rubric([VerifierSettings(name="answer")]).check([*many, lost])  # beyond the sixteen that are tried
    assert "examples failed" not in str(error.value)


def test_a_verifier_that_fails_is_told_with_its_line():
    said = rubric("raises").score(PROBLEM, "41").errors["raises"]
    assert re.fullmatch(r"KeyError: 'broken' \(test_rubric\.py:\d+\)", said)


def test_a_verifier_that_cannot_read_a_wrong_answer_is_told_to_give_it_0():
    with pytest.raises(InputError, match="It must give 0 to an answer that it cannot read"):
        rubric("reads_numbers_only").check([PROBLEM])


def test_a_problem_that_its_verifier_cannot_judge_is_named():
    with pytest.raises(InputError, match=r"what colour.*is not a number"):
        Rubric([VerifierSettings(name="answer")]).check([Problem(prompt="what colour?", answer="blue")])


@pytest.mark.parametrize(
    ("verifiers", "message"),
    [
        ([], "at least one verifier"),
        ([VerifierSettings(name="a", weight=0.0)], "weight above 0"),
        ([VerifierSettings(name="a"), VerifierSettings(name="a")], "share a name"),
        ([VerifierSettings(name="a", verifier="moreseek.rewards.answer:numbr")], "Did you mean 'number'"),
        ([VerifierSettings(name="a", verifier="no.module:x")], "cannot import"),
    ],
)
def test_an_impossible_rubric_is_refused(verifiers, message):
    with pytest.raises(InputError, match=message):
        Rubric(verifiers)
