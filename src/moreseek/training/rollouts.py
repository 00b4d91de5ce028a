"""Rollouts: sample groups of completions, score them, and lay them out as packed training batches."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from moreseek.engine.sampler import Sampler
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


@dataclass
class RolloutBatch:
    """Rollouts packed into rows, and one flat entry a completion token. Shapes: (b, T) and (M,)."""

    ids: Tensor
    documents: Tensor | None  # None when every row holds one rollout
    positions: Tensor  # (M,) index into (b·T): the hidden state that predicts the token
    targets: Tensor  # (M,)
    owner: Tensor  # (M,) rollout within this batch
    sampler_logprobs: Tensor  # (M,)
    advantage: Tensor  # (M,)
    weight: Tensor  # (M,)
    old_logprobs: Tensor | None = None


def pack(
    rollouts: Sequence[Rollout],
    advantage: Sequence[float],
    weight: Sequence[float],
    tokens_at_once: int,
    device: torch.device,
) -> list[RolloutBatch]:
    """Lay rollouts out in rows as wide as the longest, first-fit by falling length, and cut them into batches.

    Short rollouts share a row (attention stays inside each), so little padding is computed.
    """
    lengths = [len(r.prompt_ids) + len(r.completion_ids) for r in rollouts]
    width = max(lengths)
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(rollouts)), key=lambda i: (-lengths[i], i)):
        row = next((r for r, left in enumerate(room) if left >= lengths[index]), None)
        if row is None:
            rows.append([])
            room.append(width)
            row = len(rows) - 1
        rows[row].append(index)
        room[row] -= lengths[index]
    at_once = max(1, tokens_at_once // width)
    parts = [rows[low : low + at_once] for low in range(0, len(rows), at_once)]
    return [_lay_out(part, rollouts, advantage, weight, width, device) for part in parts]


def _lay_out(
    rows: list[list[int]],
    rollouts: Sequence[Rollout],
    advantage: Sequence[float],
    weight: Sequence[float],
    width: int,
    device: torch.device,
) -> RolloutBatch:
    ids = np.zeros((len(rows), width), dtype=np.int64)
    documents = np.full((len(rows), width), -1, dtype=np.int32)
    flat: dict[str, list[np.ndarray]] = {
        k: [] for k in ("position", "target", "owner", "logprob", "advantage", "weight")
    }
    owner = 0
    for row, members in enumerate(rows):
        column = 0
        for document, index in enumerate(members):
            rollout = rollouts[index]
            prompt, completion = rollout.prompt_ids, rollout.completion_ids
            end = column + len(prompt) + len(completion)
            ids[row, column:end] = prompt + completion
            documents[row, column:end] = document
            first = row * width + column + len(prompt) - 1
            count = len(completion)
            flat["position"].append(np.arange(first, first + count))
            flat["target"].append(np.array(completion, dtype=np.int64))
            flat["owner"].append(np.full(count, owner))
            flat["logprob"].append(np.array(rollout.sampler_logprobs, dtype=np.float32))
            flat["advantage"].append(np.full(count, advantage[index], dtype=np.float32))
            flat["weight"].append(np.full(count, weight[index], dtype=np.float32))
            owner += 1
            column = end
    tensors = {key: torch.from_numpy(np.concatenate(value)).to(device) for key, value in flat.items()}
    alone = all(len(members) == 1 for members in rows)  # padding after a lone rollout is never attended to
    return RolloutBatch(
        ids=torch.from_numpy(ids).to(device),
        documents=None if alone else torch.from_numpy(documents).to(device),
        positions=tensors["position"], targets=tensors["target"], owner=tensors["owner"],
        sampler_logprobs=tensors["logprob"], advantage=tensors["advantage"], weight=tensors["weight"],
    )  # fmt: skip
