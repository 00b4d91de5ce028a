"""Rollouts: sample groups of completions and score them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from moreseek.engine.engine import Engine
from moreseek.engine.sampling import SamplingParams
from moreseek.records import Problem
from moreseek.rewards.rubric import Rubric
from moreseek.text.prompts import encode_problem, message_text
from moreseek.text.tokenizer import Tokenizer
from moreseek.training.settings import GRPOSettings


@dataclass
class Rollout:
    """One completion with its reward and the log-probabilities it was sampled with."""

    problem: Problem
    prompt_ids: list[int]
    completion_ids: list[int]
    sampler_logprobs: list[float]
    text: str
    truncated: bool
    reward: float | None = None  # None: a verifier failed
    parts: dict[str, float | None] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass
class RolloutTimes:
    """Seconds of one collection."""

    sample_s: float = 0.0
    score_s: float = 0.0


class Collector:
    """Samples and scores groups of rollouts."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, rubric: Rubric, settings: GRPOSettings) -> None:
        self.engine, self.tokenizer, self.rubric, self.settings = engine, tokenizer, rubric, settings

    def collect(self, problems: Sequence[Problem], seed: int, times: RolloutTimes) -> list[list[Rollout]]:
        """One group of ``group_size`` rollouts a problem. The same seed and weights give the same rollouts."""
        settings, size = self.settings, self.settings.group_size
        started = time.monotonic()
        prompts = [
            encode_problem(self.tokenizer, problem, settings.system_prompt, settings.prompt_template)
            for problem in problems
        ]
        params = SamplingParams(temperature=settings.temperature, max_tokens=settings.max_completion_tokens)
        repeated = [prompt for prompt in prompts for _ in range(size)]
        seeds = np.random.SeedSequence(seed).generate_state(len(repeated), np.uint64).tolist()
        completions = self.engine.generate(repeated, params, seeds)
        rollouts = [
            Rollout(
                problem=problems[index // size],
                prompt_ids=repeated[index],
                completion_ids=completion.token_ids,
                sampler_logprobs=completion.logprobs,
                text=message_text(self.tokenizer, completion.token_ids),
                truncated=completion.finish_reason == "length",
            )
            for index, completion in enumerate(completions)
        ]
        times.sample_s += time.monotonic() - started
        started = time.monotonic()
        for rollout, score in zip(
            rollouts, self.rubric.score_many([(r.problem, r.text) for r in rollouts]), strict=True
        ):
            rollout.reward, rollout.parts, rollout.errors = score.reward, score.parts, score.errors
        times.score_s += time.monotonic() - started
        return [rollouts[low : low + size] for low in range(0, len(rollouts), size)]
