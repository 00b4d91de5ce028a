"""What a model makes of completions: the log-probability of each token, and the MTP module's loss on them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from moreseek.model.attention import Pass
from moreseek.model.losses import cross_entropy, token_logprobs
from moreseek.model.transformer import Transformer
from moreseek.training.packing import CompletionBatch


def completion_logprobs(
    model: Transformer, batch: CompletionBatch, temperature: float = 1.0, mtp_weight: float = 0.0
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Log-probabilities and entropies (M,) of the completion tokens, on which alone the head runs; and where it is
    trained (``mtp_weight`` > 0, gradients on), the sum of the MTP module's losses.
    """
    shared = model.start_pass(batch.ids, batch.documents, branches=batch.branches, real=batch.real)
    states = model.hidden_states(batch.ids, shared=shared)
    hidden = states.flatten(0, 1).index_select(0, batch.positions)
    logprobs, entropy = token_logprobs(hidden, model.head, batch.targets, temperature)
    trains_mtp = model.mtp is not None and mtp_weight > 0 and torch.is_grad_enabled()
    return logprobs, entropy, mtp_loss(model, states, batch, shared) if trains_mtp else None


def mtp_loss(model: Transformer, states: Tensor, batch: CompletionBatch, shared: Pass) -> Tensor:
    """Sum of −log p of the tokens two ahead, so that the drafts keep up with the policy. No gradient for the policy.

    states: (b, T, hidden). A completion's first token is left out: in a group its position is its siblings' too.
    """
    inside = batch.owner[1:] == batch.owner[:-1]  # (M − 1,): entry m + 1 follows entry m in the same completion
    first = F.pad((~inside).nonzero().squeeze(1) + 1, (1, 0))  # entry 0, and those where a completion begins
    begins, order = batch.positions[first].sort(stable=True)
    eldest = first[order][torch.cat([begins.new_ones(1), begins.diff()]) != 0]  # siblings begin at one place
    known = torch.cat([eldest, inside.nonzero().squeeze(1) + 1])
    next_ids = batch.ids.flatten().roll(-1)
    next_ids[batch.positions[known]] = batch.targets[known]
    trained = (inside[1:] & inside[:-1]).nonzero().squeeze(1) + 1
    ahead = model.mtp_alone(states, next_ids.view_as(batch.ids), shared).flatten(0, 1)
    rows = ahead.index_select(0, batch.positions[trained])
    return cross_entropy(rows, model.head.detach(), batch.targets[trained + 1], 1.0)
