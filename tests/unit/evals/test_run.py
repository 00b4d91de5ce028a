"""Evaluation with a sampler that answers from a script."""

from dataclasses import dataclass

import pytest

from moreseek.data.problems import ProblemSource
from moreseek.engine.sampling import Completion
from moreseek.errors import FaultError
from moreseek.evals.run import Graded, completion_seed, evaluate, vote
from moreseek.evals.tasks import EvalSettings, load_exam, spread
from moreseek.records import Problem, write_jsonl
from moreseek.text.tokenizer import train_tokenizer

PROBLEMS = [Problem(prompt=f"{n}+{n}=", answer=str(2 * n), tags={"difficulty": 1 + n % 3}) for n in range(10, 40)]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["12+34=46;46-5=41"] * 3, 300)


@pytest.fixture
def source(tmp_path):
    write_jsonl(tmp_path / "problems.jsonl", PROBLEMS)
    return ProblemSource(path=str(tmp_path / "problems.jsonl"), settings={"all": True})


@dataclass
class ScriptedSampler:
    """Answers ``answer(problem number, which of its samples)``; remembers how it was called."""

    tokenizer: object
    answer: object

    def __post_init__(self):
        self.calls = []

    def generate(self, prompts, params, seeds, *, on_progress=None):
        self.calls.append((list(prompts), params, list(seeds)))
        completions, seen = [], {}
        for prompt in prompts:
            number = int(self.tokenizer.decode(prompt).removeprefix("<|user|>").split("+")[0])
            seen[number] = seen.get(number, -1) + 1
            text = self.answer(number, seen[number])
            ids = self.tokenizer.encode(text)
            stopped = "</think>" in text
            completions.append(
                Completion([*ids, self.tokenizer.eos_ids[0]] if stopped else ids, [], "stop" if stopped else "length")
            )
            if on_progress:
                on_progress(len(completions), len(prompts))
        return completions


def settings(**changes):
    return EvalSettings(**{"problems": 30, "k": 4, "max_completion_tokens": 32, "samples": 6} | changes)


def test_a_perfect_model_scores_one_everywhere(tokenizer, source):
    result = evaluate(ScriptedSampler(tokenizer, lambda n, i: f"</think>{2 * n}"), tokenizer, source, settings())
    for measure in ("greedy", "pass_at_1", "pass_at_k", "cons_at_k"):
        assert result[measure]["value"] == 1
        assert 0.8 < result[measure]["ci_low"] < 1
    assert result["problems"] == 30
    assert result["truncated_share"] == result["verifier_errors"] == 0
    assert result["mean_completion_tokens"] == 4
    assert list(result["by_difficulty"]) == ["1", "2", "3"]
    assert result["longer_than_seen"] is None


def test_one_right_sample_in_four_gives_the_unbiased_shares(tokenizer, source):
    sampler = ScriptedSampler(tokenizer, lambda n, i: f"</think>{2 * n if i == 1 else 1}")
    result = evaluate(sampler, tokenizer, source, settings())
    assert result["greedy"]["value"] == 0
    assert result["pass_at_1"]["value"] == 0.25
    assert result["pass_at_k"]["value"] == 1
    assert {k: v["value"] for k, v in result["pass_curve"].items()} == {"1": 0.25, "2": 0.5, "4": 1.0}
    assert result["cons_at_k"]["value"] == 0


def test_greedy_and_sampled_take_one_call_each_with_their_own_seeds(tokenizer, source):
    sampler = ScriptedSampler(tokenizer, lambda n, i: "</think>1")
    seen = []
    evaluate(sampler, tokenizer, source, settings(seed=3), lambda *args: seen.append(args))
    (prompts, greedy, _), (repeated, sampled, seeds) = sampler.calls
    assert (greedy.temperature, sampled.temperature, sampled.top_p) == (0.0, 1.0, 1.0)
    assert (len(prompts), len(repeated)) == (30, 120)
    assert len(set(seeds)) == 120
    assert seen[0] == ("greedy", 1, 30)
    assert seen[-1] == ("sampled", 120, 120)


def test_a_completion_that_was_cut_off_is_counted_and_has_no_answer(tokenizer, source):
    result = evaluate(ScriptedSampler(tokenizer, lambda n, i: f"{2 * n}"), tokenizer, source, settings())
    assert result["truncated_share"] == 1
    assert result["greedy"]["value"] == 0
    assert result["samples"][0]["final"] == ""


def test_every_model_is_shown_on_the_same_samples_of_every_difficulty(tokenizer, source):
    shown = [
        evaluate(ScriptedSampler(tokenizer, answer), tokenizer, source, settings())["samples"]
        for answer in (lambda n, i: "</think>1", lambda n, i: f"{n}</think>{2 * n}")
    ]
    assert [one["prompt"] for one in shown[0]] == [one["prompt"] for one in shown[1]]
    assert {one["difficulty"] for one in shown[0]} == {"1", "2", "3"}
    first = shown[1][0]
    assert first["completion"] == f"<think>{first['thinking']}</think>{first['final']}"
    assert (first["reward"], first["final"]) == (1.0, first["answer"])


def test_longer_and_unseen_problems_are_told_apart(tokenizer, source, tmp_path):
    both = settings(longer=source, longer_problems=9, longer_k=2, unseen=[source], unseen_problems=5)
    sampler = ScriptedSampler(tokenizer, lambda n, i: f"</think>{2 * n}")
    result = evaluate(sampler, tokenizer, source, both)
    longer = result["longer_than_seen"]
    assert (longer["problems"], longer["k"]) == (9, 2)
    assert [cell["problems"] for cell in result["unseen_tasks"].values()] == [5]
    assert [len(call[0]) for call in sampler.calls] == [30, 120, 9, 18, 5]


def raising(problem, completion):
    if problem.prompt.startswith("11+"):
        raise RuntimeError("no such judge")
    return 1.0


def always_raising(problem, completion):
    raise RuntimeError("no such judge")


def judged_by(tmp_path, monkeypatch, verifier):
    monkeypatch.setattr("moreseek.rewards.answer.judge", verifier, raising=False)
    judged = [problem.model_copy(update={"verifier": "moreseek.rewards.answer:judge"}) for problem in PROBLEMS]
    write_jsonl(tmp_path / "judged.jsonl", judged)
    from moreseek.rewards import rubric

    rubric._function.cache_clear()
    return ProblemSource(path=str(tmp_path / "judged.jsonl"), settings={"all": True})


def test_a_failing_verifier_is_left_out_and_never_counts_as_wrong(tokenizer, tmp_path, monkeypatch):
    source = judged_by(tmp_path, monkeypatch, raising)
    result = evaluate(ScriptedSampler(tokenizer, lambda n, i: "</think>1"), tokenizer, source, settings())
    assert result["verifier_errors"] == 5
    assert result["greedy"]["value"] == result["pass_at_k"]["value"] == 1


def test_a_verifier_that_fails_too_often_stops_the_evaluation(tokenizer, tmp_path, monkeypatch):
    source = judged_by(tmp_path, monkeypatch, always_raising)
    with pytest.raises(FaultError, match=r"30 of 30 completions.*no such judge"):
        evaluate(ScriptedSampler(tokenizer, lambda n, i: "</think>1"), tokenizer, source, settings())


def graded(text, reward=0.0):
    return Graded(text, 3, False, reward)


def test_right_answers_vote_together_however_they_are_written():
    assert vote(graded("<think></think>46", 1.0)) == vote(graded("<think></think>It is 46.0!", 1.0))


def test_wrong_answers_vote_for_their_number_or_their_text():
    assert vote(graded("<think></think>It is 45.")) == vote(graded("<think>9</think>45"))
    assert vote(graded("<think></think>Paris ")) == vote(graded("<think></think>paris"))
    assert vote(graded("<think>45")) is None


def test_a_completions_seed_does_not_depend_on_the_batch():
    seeds = {completion_seed(seed, problem, i) for seed in (0, 1) for problem in PROBLEMS for i in range(16)}
    assert len(seeds) == 2 * 30 * 16
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_spread_takes_every_difficulty_in_order():
    chosen = [PROBLEMS[i].tags["difficulty"] for i in spread(PROBLEMS, 6)]
    assert chosen == [1, 1, 2, 2, 3, 3]
    assert len(spread(PROBLEMS, 100)) == 30
    assert spread(PROBLEMS, 0) == []


def test_two_sources_of_one_name_keep_both_results(source):
    exam = load_exam(source, settings(unseen=[source, source], unseen_problems=3))
    assert len(exam.unseen) == 2
