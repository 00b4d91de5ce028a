"""Lays rollouts out as training batches: packed into rows, or as branches of their prompts, whichever computes less."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from moreseek.model.branches import Branches
from moreseek.training.rollouts import Rollout


@dataclass
class RolloutBatch:
    """Rollouts as one forward pass, and one flat entry a completion token. Shapes: (b, T) and (M,)."""

    ids: Tensor
    documents: Tensor | None  # None when every row holds one rollout
    branches: Branches | None  # set when the ids are one flat row of prompts and their completions
    positions: Tensor  # (M,) index into (b·T): the hidden state that predicts the token
    targets: Tensor  # (M,)
    owner: Tensor  # (M,) rollout within this batch
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
    """Batches of at most about ``tokens_at_once`` tokens; a rollout is never cut.

    Packed: rows as wide as the longest rollout, first-fit, attention stays inside each. Shared: every prompt once,
    completions padded to the longest of their batch. The one that computes fewer tokens is taken.
    """
    rows, width = _packed_rows(rollouts)
    shared = _shared_parts(rollouts, tokens_at_once)
    if sum(_shared_tokens([rollouts[i] for i in part]) for part in shared) < len(rows) * width:
        return [_Builder(rollouts, advantage, weight, device).share(part) for part in shared]
    at_once = max(1, tokens_at_once // width)
    parts = [rows[low : low + at_once] for low in range(0, len(rows), at_once)]
    return [_Builder(rollouts, advantage, weight, device).pack(part, width) for part in parts]


def _packed_rows(rollouts: Sequence[Rollout]) -> tuple[list[list[int]], int]:
    """First-fit by falling length: the rollouts of each row, and the rows' width."""
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
    return rows, width


def _shared_parts(rollouts: Sequence[Rollout], tokens_at_once: int) -> list[list[int]]:
    """Rollouts by falling completion length, cut into batches."""
    parts: list[list[int]] = []
    prompts: set[int] = set()
    numbers = _prompt_numbers(rollouts)
    longest_prompt = max(len(rollout.prompt_ids) for rollout in rollouts)
    branch = 0
    for index in sorted(range(len(rollouts)), key=lambda i: (-len(rollouts[i].completion_ids), i)):
        prompts.add(numbers[index])
        if not parts or len(prompts) * longest_prompt + (len(parts[-1]) + 1) * branch > tokens_at_once:
            parts.append([])
            prompts = {numbers[index]}
            branch = _branch_tokens([rollouts[index]])
        parts[-1].append(index)
    return parts


def _prompt_numbers(rollouts: Sequence[Rollout]) -> list[int]:
    """For each rollout the number of its prompt; equal prompts have one number."""
    numbers: dict[tuple[int, ...], int] = {}
    return [numbers.setdefault(tuple(rollout.prompt_ids), len(numbers)) for rollout in rollouts]


def _shared_tokens(rollouts: Sequence[Rollout]) -> int:
    prompts = max(_prompt_numbers(rollouts)) + 1
    return prompts * max(len(r.prompt_ids) for r in rollouts) + len(rollouts) * _branch_tokens(rollouts)


def _branch_tokens(rollouts: Sequence[Rollout]) -> int:
    """A completion's last token predicts nothing, so it is not computed."""
    return max(1, *(len(r.completion_ids) - 1 for r in rollouts))


class _Builder:
    """Collects one batch: the token grid and the flat entries."""

    def __init__(
        self, rollouts: Sequence[Rollout], advantage: Sequence[float], weight: Sequence[float], device: torch.device
    ) -> None:
        self.rollouts, self.advantage, self.weight, self.device = rollouts, advantage, weight, device
        self.columns: dict[str, list[np.ndarray]] = {
            key: [] for key in ("positions", "targets", "owner", "sampler_logprobs", "advantage", "weight")
        }

    def pack(self, rows: list[list[int]], width: int) -> RolloutBatch:
        ids = np.zeros((len(rows), width), dtype=np.int64)
        documents = np.full((len(rows), width), -1, dtype=np.int32)
        for row, members in enumerate(rows):
            column = 0
            for document, index in enumerate(members):
                prompt, completion = self.rollouts[index].prompt_ids, self.rollouts[index].completion_ids
                end = column + len(prompt) + len(completion)
                ids[row, column:end] = prompt + completion
                documents[row, column:end] = document
                first = row * width + column + len(prompt) - 1
                self._add(index, np.arange(first, first + len(completion)))
                column = end
        alone = all(len(members) == 1 for members in rows)  # padding after a lone rollout is never attended to
        return self._finish(ids, None if alone else torch.from_numpy(documents).to(self.device), None)

    def share(self, members: list[int]) -> RolloutBatch:
        chosen = [self.rollouts[index] for index in members]
        prompts = list(dict.fromkeys(tuple(rollout.prompt_ids) for rollout in chosen))
        number = {prompt: i for i, prompt in enumerate(prompts)}
        parent = [number[tuple(rollout.prompt_ids)] for rollout in chosen]
        lengths = [len(prompt) for prompt in prompts]
        tokens = _branch_tokens(chosen)
        branches = Branches.of(lengths, parent, tokens, torch.float32, self.device)
        start = branches.prompts_end
        ids = np.zeros(start + len(chosen) * tokens, dtype=np.int64)
        for i, prompt in enumerate(prompts):
            ids[i * branches.prompt_tokens :][: len(prompt)] = prompt
        for branch, (index, rollout) in enumerate(zip(members, chosen, strict=True)):
            first, body = start + branch * tokens, rollout.completion_ids[:-1]
            ids[first : first + len(body)] = body
            last_of_prompt = parent[branch] * branches.prompt_tokens + lengths[parent[branch]] - 1
            self._add(index, np.array([last_of_prompt, *range(first, first + len(body))]))
        return self._finish(ids[None], None, branches)

    def _add(self, index: int, positions: np.ndarray) -> None:
        """One rollout's flat entries, in the order of its tokens."""
        rollout, count, columns = self.rollouts[index], len(positions), self.columns
        columns["positions"].append(positions)
        columns["targets"].append(np.array(rollout.completion_ids, dtype=np.int64))
        columns["owner"].append(np.full(count, len(columns["owner"])))
        columns["sampler_logprobs"].append(np.array(rollout.sampler_logprobs, dtype=np.float32))
        columns["advantage"].append(np.full(count, self.advantage[index], dtype=np.float32))
        columns["weight"].append(np.full(count, self.weight[index], dtype=np.float32))

    def _finish(self, ids: np.ndarray, documents: Tensor | None, branches: Branches | None) -> RolloutBatch:
        flat = {key: torch.from_numpy(np.concatenate(parts)).to(self.device) for key, parts in self.columns.items()}
        return RolloutBatch(torch.from_numpy(ids).to(self.device), documents, branches, **flat)
