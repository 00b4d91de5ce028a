"""Examine a model on held-out problems: greedy accuracy, pass@1, pass@k, cons@k, lengths, samples."""

import hashlib
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from moreseek.data.problems import ProblemSource
from moreseek.engine.sampling import SamplingParams
from moreseek.errors import FaultError
from moreseek.evals.statistics import bootstrap_mean, majority_vote, pass_at_k, wilson
from moreseek.evals.tasks import EvalSettings, difficulty, difficulty_order, load_exam, spread
from moreseek.records import Problem
from moreseek.rewards.answer import answer_text
from moreseek.rewards.rubric import OWN, Rubric, VerifierSettings, require_verifiers
from moreseek.text.chat import split_thinking
from moreseek.text.prompts import encode_problem, message_text
from moreseek.text.tokenizer import Tokenizer

Progress = Callable[..., None]
RIGHT_FROM = 1.0 - 1e-9
"""A completion is right when its verifier says 1: partial credit (reasoning-gym gives some) is not accuracy."""
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


class Completion(Protocol):
    """What a sampler returns for one prompt."""

    @property
    def token_ids(self) -> Sequence[int]:
        """What the model wrote, the token that ended it included."""
        ...

    @property
    def finish_reason(self) -> str:
        """``stop``, or ``length`` when it ran into the cap."""
        ...


class Sampler(Protocol):
    """Anything that continues prompts: our engine, or a fake in a test."""

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seeds: Sequence[int],
        *,
        on_progress: Progress | None = None,
    ) -> Sequence[Completion]:
        """One completion a prompt, in the order of the prompts."""
        ...


@dataclass(frozen=True, slots=True)
class Graded:
    """One completion with what its verifier said; ``reward`` is None when the verifier failed."""

    text: str
    tokens: int
    truncated: bool
    reward: float | None

    @property
    def right(self) -> bool:
        """Whether the verifier gave the whole point."""
        return self.reward is not None and self.reward >= RIGHT_FROM


def evaluate(
    sampler: Sampler,
    tokenizer: Tokenizer,
    source: ProblemSource,
    settings: EvalSettings,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate on the held-out split of ``source``, on longer problems and on unseen tasks.

    Returns the ``eval`` object of report.json: estimates are ``{value, ci_low, ci_high}`` shares in 0..1 at
    95 %, lengths are tokens of the greedy completion. ``on_progress`` is called with a label ("greedy",
    "sampled", …) followed by whatever the sampler reports. Raises InputError for problems that cannot be
    loaded, FaultError when verifiers fail too often.
    """
    examiner = Examiner(sampler, tokenizer, settings, on_progress)
    exam = load_exam(source, settings)
    for posed in (exam.main, exam.longer or (), *exam.unseen.values()):
        require_verifiers(posed)  # sampling may take hours
    result = examiner.examine(exam.main, settings.k, "")
    result["longer_than_seen"] = None
    if exam.longer is not None:
        result["longer_than_seen"] = examiner.examine(exam.longer, settings.longer_k or settings.k, "longer, ")
    result["unseen_tasks"] = {name: examiner.greedy_only(unseen, name) for name, unseen in exam.unseen.items()}
    result["verifier_errors"] = examiner.verifier_errors
    result["samples"] = examiner.samples
    return result


def own_verifiers() -> Rubric:
    """The rubric of an evaluation: each problem's own verifier alone."""
    return Rubric([VerifierSettings(name="answer", verifier=OWN)])


class Examiner:
    """Poses problems to one model, and counts the verifier's failures on the way."""

    def __init__(
        self, sampler: Sampler, tokenizer: Tokenizer, settings: EvalSettings, on_progress: Progress | None = None
    ) -> None:
        self.sampler, self.tokenizer, self.settings, self.on_progress = sampler, tokenizer, settings, on_progress
        self.rubric = own_verifiers()
        self.verifier_errors = 0
        self.samples: list[dict[str, Any]] = []
        """Greedy completions of the first problems examined, for people to read."""

    def examine(self, problems: Sequence[Problem], k: int, label: str) -> dict[str, Any]:
        """All measures of one set of problems: one greedy and k sampled completions each."""
        greedy = self._answer(problems, 1, f"{label}greedy", greedy=True)
        sampled = self._answer(problems, k, f"{label}sampled", greedy=False)
        if not self.samples:
            self.samples = [_sample(problems[i], greedy[i][0]) for i in spread(problems, self.settings.samples)]
        result = self._greedy_measures(greedy)
        result |= self._sampled_measures(problems, sampled, k)
        result["by_difficulty"] = {
            name: self._greedy_measures([greedy[i] for i in where])
            | self._sampled_measures([problems[i] for i in where], [sampled[i] for i in where], k, curve=False)
            for name, where in _by_difficulty(problems).items()
        }
        return result

    def greedy_only(self, problems: Sequence[Problem], label: str) -> dict[str, Any]:
        """Greedy accuracy and length alone."""
        return self._greedy_measures(self._answer(problems, 1, label, greedy=True))

    def _answer(self, problems: Sequence[Problem], count: int, label: str, *, greedy: bool) -> list[list[Graded]]:
        """``count`` graded completions of every problem, from one call of the sampler."""
        settings = self.settings
        prompts = [
            encode_problem(self.tokenizer, problem, settings.system_prompt, settings.prompt_template)
            for problem in problems
        ]
        params = SamplingParams(
            temperature=0.0 if greedy else settings.temperature,
            top_p=1.0 if greedy else settings.top_p,
            max_tokens=settings.max_completion_tokens,
            seed=settings.seed,
        )
        completions = self.sampler.generate(
            [prompt for prompt in prompts for _ in range(count)],
            params,
            [completion_seed(settings.seed, problem, index) for problem in problems for index in range(count)],
            on_progress=self._labelled(label),
        )
        graded = self._grade([problem for problem in problems for _ in range(count)], completions)
        return [graded[start : start + count] for start in range(0, len(graded), count)]

    def _grade(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> list[Graded]:
        texts = [message_text(self.tokenizer, completion.token_ids) for completion in completions]
        scores = self.rubric.score_many(list(zip(problems, texts, strict=True)))
        failed = [place for place, score in enumerate(scores) if score.reward is None]
        self.verifier_errors += len(failed)
        if len(failed) > self.settings.max_verifier_errors * len(scores):
            problem, text = problems[failed[0]], texts[failed[0]]
            raise FaultError(
                f"evaluation: the verifier failed on {len(failed)} of {len(scores)} completions, so an accuracy "
                f"would mean nothing. The first failure, of {problem.verifier} on the problem {problem.prompt[:80]!r} "
                f"and the completion {text[:80]!r}: {scores[failed[0]].errors['answer']}. Mend the verifier, or in a "
                f"recipe raise max_verifier_errors (now {self.settings.max_verifier_errors:g})."
            )
        return [
            Graded(text, len(completion.token_ids), completion.finish_reason == "length", score.reward)
            for text, completion, score in zip(texts, completions, scores, strict=True)
        ]

    def _labelled(self, label: str) -> Progress | None:
        report = self.on_progress
        return None if report is None else lambda *numbers: report(label, *numbers)

    def _greedy_measures(self, greedy: Sequence[Sequence[Graded]]) -> dict[str, Any]:
        only = [completions[0] for completions in greedy]
        scored = [one for one in only if one.reward is not None]
        return {
            "problems": len(only),
            "greedy": wilson(sum(one.right for one in scored), len(scored)).as_dict() if scored else None,
            "mean_completion_tokens": float(np.mean([one.tokens for one in only])),
            "truncated_share": float(np.mean([one.truncated for one in only])),
        }

    def _sampled_measures(
        self, problems: Sequence[Problem], sampled: Sequence[Sequence[Graded]], k: int, *, curve: bool = True
    ) -> dict[str, Any]:
        """pass@1, pass@k and cons@k over the problems whose k completions could all be scored."""
        whole = [
            (p, group) for p, group in zip(problems, sampled, strict=True) if all(g.reward is not None for g in group)
        ]
        rights = [sum(one.right for one in group) for _, group in whole]
        seed = self.settings.seed

        def passes(of: int) -> dict[str, float] | None:
            return bootstrap_mean([pass_at_k(k, c, of) for c in rights], seed).as_dict() if rights else None

        cons = [majority_vote([vote(one) for one in group], _RIGHT) for _, group in whole]
        measures: dict[str, Any] = {
            "k": k,
            "pass_at_1": passes(1),
            "pass_at_k": passes(k),
            "cons_at_k": bootstrap_mean(cons, seed).as_dict() if cons else None,
        }
        if curve:
            measures["pass_curve"] = {str(of): passes(of) for of in sorted({2**i for i in range(k.bit_length())} | {k})}
        return measures


_RIGHT = ("right",)


def vote(completion: Graded) -> Hashable | None:
    """What a completion votes for; None when it gave no answer.

    All right completions name the same answer, however they write it. Wrong ones are told apart by the last
    number of the answer, or by its text where it has none: lumping is the careful side, it can only make the
    wrong camp larger.
    """
    if completion.right:
        return _RIGHT
    answer = answer_text(completion.text).strip()
    numbers = _NUMBER.findall(answer.replace(",", ""))
    return float(numbers[-1]) if numbers else " ".join(answer.casefold().split()) or None


def completion_seed(seed: int, problem: Problem, index: int) -> int:
    """A seed of 63 bits for one completion: it depends on the problem, not on its place in the batch."""
    digest = hashlib.blake2b(f"{seed}/{problem.id}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _by_difficulty(problems: Sequence[Problem]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for index, problem in enumerate(problems):
        label = difficulty(problem)
        if label is not None:
            places.setdefault(label, []).append(index)
    return {label: places[label] for label in sorted(places, key=difficulty_order)}


def _sample(problem: Problem, graded: Graded) -> dict[str, Any]:
    thinking, final = split_thinking(graded.text)
    return {
        "prompt": problem.prompt,
        "answer": problem.answer,
        "difficulty": difficulty(problem),
        "completion": graded.text,
        "thinking": thinking,
        "final": final,
        "reward": graded.reward,
        "completion_tokens": graded.tokens,
    }
