"""Lays completions out as batches: packed into rows, or as branches of their prompts, whichever computes less."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from moreseek.data.loader import PADDING
from moreseek.model.branches import Branches
from moreseek.training.rollouts import Rollout


class Completed(Protocol):
    """A prompt and what follows it."""

    @property
    def prompt_ids(self) -> list[int]: ...

    @property
    def completion_ids(self) -> list[int]: ...


@dataclass
class CompletionBatch:
    """Completions as one forward pass, and one flat entry a completion token. Shapes: (b, T) and (M,)."""

    ids: Tensor
    documents: Tensor | None  # None when every row holds one completion
    branches: Branches | None  # set when the ids are one flat row of prompts and their completions
    real: Tensor  # (b, T) bool: what is not padding
    positions: Tensor  # (M,) index into (b·T): the hidden state that predicts the token
    targets: Tensor  # (M,)
    owner: Tensor  # (M,) completion within this batch
    members: list[int]  # where each of them stands in what was laid out


@dataclass
class RolloutBatch(CompletionBatch):
    """Rollouts with what their losses are made of."""

    sampler_logprobs: Tensor  # (M,)
    advantage: Tensor  # (M,)
    weight: Tensor  # (M,)
    on_policy: bool = field(default=True, init=False)  # False after a step's first update: the policy has moved
    old_logprobs: Tensor | None = field(default=None, init=False)  # (M,) the trainer's own, before a step's updates


def pack(
    rollouts: Sequence[Rollout],
    advantage: Sequence[float],
    weight: Sequence[float],
    tokens_at_once: int,
    device: torch.device,
) -> list[RolloutBatch]:
    """Rollouts laid out, each token with its rollout's advantage and weight."""
    batches = []
    for batch in lay_out(rollouts, tokens_at_once, device):
        sampled = np.concatenate([np.array(rollouts[i].sampler_logprobs, dtype=np.float32) for i in batch.members])
        worth = [torch.tensor([column[i] for i in batch.members], device=device) for column in (advantage, weight)]
        batches.append(
            RolloutBatch(
                **vars(batch),
                sampler_logprobs=torch.from_numpy(sampled).to(device),
                advantage=worth[0][batch.owner],
                weight=worth[1][batch.owner],
            )
        )
    return batches


def lay_out(completions: Sequence[Completed], tokens_at_once: int, device: torch.device) -> list[CompletionBatch]:
    """Batches of at most about ``tokens_at_once`` tokens; a completion is never cut.

    Packed: rows as wide as the longest text, first-fit, attention stays inside each. Shared: every prompt once,
    completions padded to the longest of their batch. The one that computes fewer tokens is taken.
    """
    rows, width = _packed_rows(completions)
    shared = _shared_parts(completions, tokens_at_once)
    builder = _Builder(completions, device)
    if sum(_shared_tokens([completions[i] for i in part]) for part in shared) < len(rows) * width:
        return [builder.share(part) for part in shared]
    at_once = max(1, tokens_at_once // width)
    return [builder.pack(rows[low : low + at_once], width) for low in range(0, len(rows), at_once)]


def _packed_rows(completions: Sequence[Completed]) -> tuple[list[list[int]], int]:
    """First-fit by falling length: the completions of each row, and the rows' width."""
    lengths = [len(r.prompt_ids) + len(r.completion_ids) for r in completions]
    width = max(lengths)
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(completions)), key=lambda i: (-lengths[i], i)):
        row = next((r for r, left in enumerate(room) if left >= lengths[index]), None)
        if row is None:
            rows.append([])
            room.append(width)
            row = len(rows) - 1
        rows[row].append(index)
        room[row] -= lengths[index]
    return rows, width


def _shared_parts(completions: Sequence[Completed], tokens_at_once: int) -> list[list[int]]:
    """Completions by falling completion length, cut into batches."""
    parts: list[list[int]] = []
    prompts: set[int] = set()
    numbers = _prompt_numbers(completions)
    longest_prompt = max(len(one.prompt_ids) for one in completions)
    branch = 0
    for index in sorted(range(len(completions)), key=lambda i: (-len(completions[i].completion_ids), i)):
        prompts.add(numbers[index])
        if not parts or len(prompts) * longest_prompt + (len(parts[-1]) + 1) * branch > tokens_at_once:
            parts.append([])
            prompts = {numbers[index]}
            branch = _branch_tokens([completions[index]])
        parts[-1].append(index)
    return parts


def _prompt_numbers(completions: Sequence[Completed]) -> list[int]:
    """For each rollout the number of its prompt; equal prompts have one number."""
    numbers: dict[tuple[int, ...], int] = {}
    return [numbers.setdefault(tuple(one.prompt_ids), len(numbers)) for one in completions]


def _shared_tokens(completions: Sequence[Completed]) -> int:
    prompts = max(_prompt_numbers(completions)) + 1
    return prompts * max(len(r.prompt_ids) for r in completions) + len(completions) * _branch_tokens(completions)


def _branch_tokens(completions: Sequence[Completed]) -> int:
    """A completion's last token predicts nothing, so it is not computed."""
    return max(1, *(len(r.completion_ids) - 1 for r in completions))


class _Builder:
    """Makes one batch after the other: the token grid and the flat entries."""

    def __init__(self, completions: Sequence[Completed], device: torch.device) -> None:
        self.completions, self.device = completions, device

    def pack(self, rows: list[list[int]], width: int) -> CompletionBatch:
        ids = np.zeros((len(rows), width), dtype=np.int64)
        documents = np.full((len(rows), width), PADDING, dtype=np.int32)
        members: list[int] = []
        positions: list[np.ndarray] = []
        for row, inside in enumerate(rows):
            column = 0
            for document, index in enumerate(inside):
                prompt, completion = self.completions[index].prompt_ids, self.completions[index].completion_ids
                end = column + len(prompt) + len(completion)
                ids[row, column:end] = prompt + completion
                documents[row, column:end] = document
                first = row * width + column + len(prompt) - 1
                members.append(index)
                positions.append(np.arange(first, first + len(completion)))
                column = end
        alone = all(len(inside) == 1 for inside in rows)  # padding after a lone completion is never attended to
        shown = None if alone else torch.from_numpy(documents).to(self.device)
        return self._finish(ids, shown, None, documents >= 0, members, positions)

    def share(self, members: list[int]) -> CompletionBatch:
        chosen = [self.completions[index] for index in members]
        prompts = list(dict.fromkeys(tuple(one.prompt_ids) for one in chosen))
        number = {prompt: i for i, prompt in enumerate(prompts)}
        parent = [number[tuple(one.prompt_ids)] for one in chosen]
        lengths = [len(prompt) for prompt in prompts]
        tokens = _branch_tokens(chosen)
        branches = Branches.of(lengths, parent, tokens, torch.float32, self.device)
        start = branches.prompts_end
        ids = np.full(start + len(chosen) * tokens, PADDING, dtype=np.int64)
        positions: list[np.ndarray] = []
        for i, prompt in enumerate(prompts):
            ids[i * branches.prompt_tokens :][: len(prompt)] = prompt
        for branch, one in enumerate(chosen):
            first, body = start + branch * tokens, one.completion_ids[:-1]
            ids[first : first + len(body)] = body
            last_of_prompt = parent[branch] * branches.prompt_tokens + lengths[parent[branch]] - 1
            positions.append(np.array([last_of_prompt, *range(first, first + len(body))]))
        real = ids != PADDING
        return self._finish(np.where(real, ids, 0)[None], None, branches, real[None], members, positions)

    def _finish(
        self, ids: np.ndarray, documents: Tensor | None, branches: Branches | None, real: np.ndarray,
        members: list[int], positions: list[np.ndarray],
    ) -> CompletionBatch:  # fmt: skip
        targets = [np.array(self.completions[index].completion_ids, dtype=np.int64) for index in members]
        owner = np.repeat(np.arange(len(members)), [len(mine) for mine in targets])
        flat = (torch.from_numpy(part).to(self.device) for part in
                (ids, real, np.concatenate(positions), np.concatenate(targets), owner))  # fmt: skip
        grid, real_ones, where, what, whose = flat
        return CompletionBatch(grid, documents, branches, real_ones, where, what, whose, members)
