"""Many continuations of few prompts in one pass: each prompt is computed once, forward and backward.

All tokens lie flat in one row, so that every layer but attention sees an ordinary batch of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moreseek.model.scores import attend
from moreseek.native.attention import Layout


@dataclass(frozen=True)
class Branches:
    """The layout of one flat row: prompts (P, prompt_tokens), then branches (C, branch_tokens), both right-padded."""

    prompt_tokens: int
    branch_tokens: int
    parent: Tensor  # (C,) int64: the prompt that a branch continues
    lengths: Tensor  # (P,) int64: tokens of each prompt without padding
    mask: Tensor | None  # additive (C, 1, branch_tokens, prompt_tokens + branch_tokens); None for equal prompts

    @classmethod
    def of(
        cls, prompt_lengths: Sequence[int], parent: Sequence[int], branch_tokens: int, dtype: torch.dtype,
        device: torch.device,
    ) -> "Branches":  # fmt: skip
        """Lay out ``len(parent)`` branches of ``branch_tokens`` tokens each."""
        longest = max(prompt_lengths)
        lengths = torch.tensor(prompt_lengths, device=device)
        parents = torch.tensor(parent, device=device)
        mask = None
        if min(prompt_lengths) < longest:
            hidden = torch.arange(longest, device=device) >= lengths[parents].unsqueeze(1)  # (C, prompt_tokens)
            hidden = hidden[:, None, None].expand(-1, 1, branch_tokens, -1)
            future = torch.ones(branch_tokens, branch_tokens, dtype=torch.bool, device=device).triu(1)
            hidden = torch.cat([hidden, future.expand(len(parent), 1, -1, -1)], dim=-1)
            mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, float("-inf"))
        return cls(longest, branch_tokens, parents, lengths, mask)

    @property
    def prompts_end(self) -> int:
        """Where the branches begin in the flat row."""
        return self.lengths.numel() * self.prompt_tokens

    @property
    def positions(self) -> Tensor:
        """(1, N) int64: every token's place in its own text."""
        device = self.parent.device
        of_prompts = torch.arange(self.prompt_tokens, device=device).repeat(self.lengths.numel())
        of_branches = self.lengths[self.parent].unsqueeze(1) + torch.arange(self.branch_tokens, device=device)
        return torch.cat([of_prompts, of_branches.flatten()]).unsqueeze(0)

    def layout(self, phases: Tensor) -> Layout:
        """The same for the native kernel. phases: complex (1, N, 1, R/2), one a flat row."""
        prompts, branches, end = self.lengths.numel(), self.parent.numel(), self.prompts_end
        order = self.parent.argsort(stable=True)  # a stem's branches stand together
        offset = torch.zeros(prompts + 1, dtype=torch.int64)
        offset[1:] = torch.bincount(self.parent, minlength=prompts).cumsum(0)
        return Layout(
            torch.arange(prompts) * self.prompt_tokens, self.lengths, offset,
            end + order * self.branch_tokens, torch.full((branches,), self.branch_tokens),
            torch.arange(end + branches * self.branch_tokens),
            torch.view_as_real(phases).flatten(0, -3).flatten(1).contiguous(), whole=self.mask is None,
        )  # fmt: skip

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
        """Like scores.attend, for flat rows: (1, N, H, D) → (1, N, H, Dv)."""
        (q_top, q_low), (k_top, k_low), (v_top, v_low) = map(self._split, (q, k, v))
        top = attend(q_top, k_top, v_top, scale, None)
        k_low = torch.cat([k_top.index_select(0, self.parent), k_low], dim=1)
        v_low = torch.cat([v_top.index_select(0, self.parent), v_low], dim=1)
        low = attend(q_low, k_low, v_low, scale, self.mask)
        return torch.cat([top.flatten(0, 1), low.flatten(0, 1)]).unsqueeze(0)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        rows = x.flatten(0, 1)
        top, low = rows.split([self.prompts_end, rows.shape[0] - self.prompts_end])
        return top.unflatten(0, (-1, self.prompt_tokens)), low.unflatten(0, (-1, self.branch_tokens))
