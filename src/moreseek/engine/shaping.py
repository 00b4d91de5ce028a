"""What a request's settings do to its logits before a token is chosen, and which log-probabilities it wants to see."""

from __future__ import annotations

from collections.abc import Sequence as Items

import torch
from torch import Tensor

from moreseek.engine.sampling import SamplingParams

NEVER = float("-inf")
FEW = 256  # the likeliest tokens that are looked at first: a sort of the whole vocabulary is rarely needed


class Shaper:
    """The memory of one request: what it has seen, and whether it is thinking.

    ``thinking``: the ids of <think> and </think> where the model has them. A prompt may have opened the thinking.
    """

    def __init__(
        self, params: SamplingParams, prompt: Items[int], vocabulary: int, stops: Items[int],
        thinking: tuple[int, int] | None,
    ) -> None:  # fmt: skip
        self.params, self.made = params, 0
        self.top_logprobs: list[dict[int, float]] = []
        self._stops = torch.tensor(sorted(stops), dtype=torch.int64)
        self._bias = torch.tensor(list(params.logit_bias), dtype=torch.int64)
        self._added = torch.tensor(list(params.logit_bias.values()))
        penalised = (params.repetition_penalty, params.presence_penalty, params.frequency_penalty) != (1, 0, 0)
        self._counts = torch.zeros(vocabulary) if penalised else None  # of the completion's tokens
        self._seen = torch.zeros(vocabulary, dtype=torch.bool) if penalised else None  # the prompt's too
        if self._seen is not None:
            self._seen[torch.tensor(prompt)] = True
        self._open, self._close = thinking or (-1, -1)
        self._thought: int | None = None  # tokens of the thinking so far; None outside
        for token in prompt:
            self._think(token)
        self._thought = None if self._thought is None else 0  # what the prompt thought is not charged

    def observe(self, token: int) -> None:
        """A token was chosen."""
        self.made += 1
        self._think(token)
        if self._counts is not None and self._seen is not None:
            self._counts[token] += 1
            self._seen[token] = True

    def _think(self, token: int) -> None:
        if token == self._open:
            self._thought = 0
        elif token == self._close:
            self._thought = None
        elif self._thought is not None:
            self._thought += 1

    def change(self, logits: Tensor) -> None:
        """Bias, penalties, and what may not or must come next. logits: (V,), changed in place."""
        params = self.params
        if len(self._bias):
            logits[self._bias] += self._added
        if self._seen is not None and params.repetition_penalty != 1:  # CTRL's rule
            penalised = torch.where(logits > 0, logits / params.repetition_penalty, logits * params.repetition_penalty)
            torch.where(self._seen, penalised, logits, out=logits)
        if self._counts is not None:
            logits -= params.frequency_penalty * self._counts + params.presence_penalty * (self._counts > 0)
        if self.made < params.min_tokens:
            logits[self._stops] = NEVER
        budget = params.thinking_budget
        if budget is not None and self._thought is not None and self._thought >= budget:
            forced = logits[self._close].clone()
            logits.fill_(NEVER)
            logits[self._close] = torch.where(forced.isfinite(), forced, 0.0)


def shape(logits: Tensor, rows: Items[tuple[int, Shaper]]) -> None:
    """Change the logits (o, V) of these rows in place, each by its own request alone."""
    for place, shaper in rows:
        shaper.change(logits[place])
        params = shaper.params
        if params.temperature > 0 and (params.top_k or params.top_p < 1 or params.min_p > 0):
            truncate(logits[place], params)


def truncate(logits: Tensor, params: SamplingParams) -> None:
    """Leave out of logits (V,) what top-k, top-p and min-p leave out; the most likely token always stays."""
    vocabulary = logits.shape[0]
    scaled = logits / params.temperature
    total = scaled.logsumexp(0)
    few = vocabulary if params.top_k >= FEW else min(FEW, vocabulary)
    while True:
        values, ids = scaled.topk(few)
        probabilities = (values - total).exp()
        enough = few == vocabulary or float(probabilities.sum()) >= params.top_p or 0 < params.top_k <= few
        if enough or (params.top_p == 1 and float(probabilities[-1]) < params.min_p * float(probabilities[0])):
            break
        few = vocabulary
    keep = torch.ones_like(ids, dtype=torch.bool)
    if params.top_k:
        keep[params.top_k :] = False
        probabilities = torch.where(keep, probabilities, 0.0)
        probabilities /= probabilities.sum()
    before = probabilities.cumsum(0) - probabilities
    if params.top_p < 1:
        keep &= before < params.top_p
    keep &= probabilities >= params.min_p * probabilities[0]
    keep[0] = True
    kept = ids[keep]
    values = logits[kept].clone()
    logits.fill_(NEVER)
    logits[kept] = values


def top_logprobs(logits: Tensor, count: int, chosen: int) -> dict[int, float]:
    """Of the model's own distribution, logits (V,): the ``count`` likeliest tokens and the chosen one.

    One subtraction a token from one sum, so that equal tokens have bit-equal values wherever they are asked for.
    """
    values, ids = logits.topk(min(count, logits.shape[0]))
    wanted = [*ids.tolist(), chosen]
    found = torch.cat([values, logits[chosen].unsqueeze(0)]) - logits.logsumexp(0)
    return dict(zip(wanted, found.tolist(), strict=True))
