"""Rollouts: sample groups of completions and score them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from moreseek.engine.sampling import SamplingParams
from moreseek.records import Problem
from moreseek.rewards.reflection import reflection_words
from moreseek.rewards.rubric import Rubric
from moreseek.text.prompts import encode_problem, message_text
from moreseek.text.tokenizer import Tokenizer
from moreseek.training.sampler import Sampler
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

    def __init__(self, sampler: Sampler, tokenizer: Tokenizer, rubric: Rubric, settings: GRPOSettings) -> None:
        self.sampler, self.tokenizer, self.rubric, self.settings = sampler, tokenizer, rubric, settings

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
        completions = self.sampler.generate(repeated, params, seeds)
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


def has_signal(group: Sequence[Rollout]) -> bool:
    """Whether the rewards of a group differ: only then does it teach anything."""
    rewards = {rollout.reward for rollout in group if rollout.reward is not None}
    return len(rewards) > 1


def measure(groups: list[list[Rollout]], settings: GRPOSettings) -> dict[str, float]:
    """Metrics of all rollouts that were drawn, before any is dropped."""
    rollouts = [rollout for group in groups for rollout in group]
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    lengths = [len(rollout.completion_ids) for rollout in rollouts]
    metrics = {
        "completion_tokens": float(np.mean(lengths)),
        "truncated": float(np.mean([rollout.truncated for rollout in rollouts])),
        "groups_without_signal": float(np.mean([not has_signal(group) for group in groups])),
        "verifier_errors": float(sum(bool(rollout.errors) for rollout in rollouts)),
        "reflection_words": float(np.mean([reflection_words(rollout.text) for rollout in rollouts])),
        "rollouts": float(len(rollouts)),
        "tokens": float(sum(lengths) + sum(len(rollout.prompt_ids) for rollout in rollouts)),
    }
    if rewards:  # an unknown reward is not a reward of 0
        metrics["reward"] = float(np.mean(rewards))
    for verifier in settings.rubric:
        values = [v for r in rollouts if (v := r.parts.get(verifier.name)) is not None]
        if values:
            metrics[f"reward/{verifier.name}"] = float(np.mean(values))
    return metrics
