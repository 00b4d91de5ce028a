"""What a request asks of its logits beyond temperature: bias, penalties, masks, forced tokens, truncation.

Every row's result depends on that row alone, to the bit: each step is elementwise, or an operation that works row by
row (softmax, topk, cumsum). Sums over a row are taken by cumsum, which adds in order; ``sum`` splits its work
differently where there are fewer rows.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from moreseek.engine.sampling import SamplingParams
from moreseek.engine.thinking import Stage, Thinking, ThinkingIds
from moreseek.errors import InputError

NEVER = float("-inf")
LOOKS = (128, 4_096)  # likeliest tokens among which top-p's end is looked for before a row is sorted whole


class Grammar(Protocol):
    """What a Shaper needs of a grammar (engine/structured.py)."""

    def mask(self) -> np.ndarray:
        """(vocab_size,) bool: what may come next, and a stop id where the text may end."""
        ...

    def observe(self, token: int) -> None:
        """A token was written."""
        ...


class Shaper:
    """What one running sequence asks of its logits. ``observe`` every token after it was chosen.

    ``thinking``: the ids of <think> and </think> where the model knows them. Raises InputError for a biased id
    outside the vocabulary, and for a thinking budget where the model has no such tokens.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        vocab_size: int,
        stop_ids: Sequence[int] = (),
        thinking: ThinkingIds | None = None,
        grammar: Grammar | None = None,
    ) -> None:
        if params.logit_bias and max(params.logit_bias) >= vocab_size:
            raise InputError(f"logit_bias: id {max(params.logit_bias)} is outside the vocabulary of {vocab_size:,}.")
        if params.thinking_budget is not None and thinking is None:
            raise InputError("thinking_budget: this model's tokenizer has no tokens <think> and </think>.")
        self.params = params
        self.written = 0
        self.bias_ids = np.array(list(params.logit_bias), np.int64)
        self.biases = np.array(list(params.logit_bias.values()), np.float32)
        self._stop_ids = np.array([id for id in stop_ids if 0 <= id < vocab_size], np.int64)
        self._thinking = None if thinking is None else Thinking(thinking, prompt, params.thinking_budget)
        self._grammar = grammar
        self._place: dict[int, int] = {}  # id → where it stands in the two arrays below
        self._ids = np.zeros(64, np.int64)
        self._counts = np.zeros(64, np.float32)  # in the output
        if params.repetition_penalty != 1:
            for token in prompt:
                self._count(token, 0)

    def observe(self, token: int) -> None:
        """A token was written."""
        if self.params.penalizes:
            self._count(token, 1)
        if self._grammar is not None and self._constrained(token):
            self._grammar.observe(token)
        if self._thinking is not None:
            self._thinking.observe(token)
        self.written += 1

    @property
    def seen(self) -> np.ndarray:
        """The different ids of the output, and of the prompt where repetition counts."""
        return self._ids[: len(self._place)]

    @property
    def forced(self) -> int | None:
        """The token that must come next."""
        return None if self._thinking is None else self._thinking.forced

    @property
    def charges(self) -> np.ndarray:
        """For each seen id what presence and frequency penalties take from its logit."""
        counts = self._counts[: len(self._place)]
        present = np.float32(self.params.presence_penalty) * (counts > 0)
        return present + np.float32(self.params.frequency_penalty) * counts

    def allowed(self) -> np.ndarray | None:
        """(vocab_size,) bool: what grammar and min_tokens let through; None for everything.

        Where the grammar leaves nothing but the end, min_tokens gives way.
        """
        grammar = self._grammar_mask()
        if grammar is None or self.written >= self.params.min_tokens:
            return grammar
        without_end = grammar.copy()
        without_end[self._stop_ids] = False
        return without_end if without_end.any() else grammar

    def banned(self) -> np.ndarray:
        """The ids that min_tokens forbids; none where ``allowed`` sees to it, or where one token must come."""
        free = self.written >= self.params.min_tokens or (self._grammar is not None and not self._thinks())
        free = free or self.forced is not None
        return self._stop_ids[:0] if free else self._stop_ids

    def _thinks(self) -> bool:
        return self._thinking is not None and self._thinking.stage is Stage.INSIDE

    def _constrained(self, token: int) -> bool:
        """Whether a token belongs to the structured part: not the thinking, nor its marks."""
        if self._thinking is None or self._thinking.stage is Stage.AFTER:
            return True
        return self._thinking.stage is Stage.BEFORE and token != self._thinking.ids.open

    def _grammar_mask(self) -> np.ndarray | None:
        if self._grammar is None or self._thinks():
            return None
        mask = self._grammar.mask()
        if self._thinking is not None and self._thinking.stage is Stage.BEFORE:
            mask = mask.copy()
            mask[self._thinking.ids.open] = True
        return mask

    def _count(self, token: int, times: int) -> None:
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._ids):
            self._ids, self._counts = (np.concatenate([old, np.zeros_like(old)]) for old in (self._ids, self._counts))
        self._ids[place] = token
        self._counts[place] += times


Rows = Sequence[tuple[int, Shaper]]


def shape(logits: Tensor, rows: Rows, temperature: Tensor) -> None:
    """Edit logits (o, V) fp32 in place as each of ``rows`` (row, its shaper) asks; other rows stay untouched.

    ``temperature`` (o,): by which the caller divides afterwards; truncation looks at the distribution that results.
    """
    _add_biases(logits, rows)
    _penalize(logits, rows)
    _mask(logits, rows)
    _force(logits, rows)
    _truncate(logits, [(row, shaper) for row, shaper in rows if shaper.params.truncates], temperature)


def top_logprobs(logits: Tensor, count: int, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Raw logits (o, V), chosen (o,) → the likeliest ids and their log-probabilities (o, count), and the chosen one's.

    All from one log-softmax: where the chosen token is the likeliest the two numbers are bit-equal.
    """
    logprobs = logits.float().log_softmax(-1)  # (o, V)
    values, ids = logprobs.topk(min(count, logits.shape[1]), dim=-1)
    return ids, values, logprobs.gather(1, chosen.unsqueeze(1)).squeeze(1)


def _add_biases(logits: Tensor, rows: Rows) -> None:
    picked = [(row, shaper) for row, shaper in rows if len(shaper.bias_ids)]
    if picked:
        places = _places(logits, picked, lambda shaper: shaper.bias_ids)
        logits[places] += _joined(logits, [shaper.biases for _, shaper in picked])


def _penalize(logits: Tensor, rows: Rows) -> None:
    picked = [(row, shaper) for row, shaper in rows if shaper.params.penalizes and len(shaper.seen)]
    if not picked:
        return
    places = _places(logits, picked, lambda shaper: shaper.seen)
    repetition = [np.full(len(shaper.seen), shaper.params.repetition_penalty, np.float32) for _, shaper in picked]
    factor = _joined(logits, repetition)
    values = logits[places]
    values = torch.where(values > 0, values / factor, values * factor)
    logits[places] = values - _joined(logits, [shaper.charges for _, shaper in picked])


def _mask(logits: Tensor, rows: Rows) -> None:
    picked = [(row, shaper) for row, shaper in rows if len(shaper.banned())]
    if picked:
        logits[_places(logits, picked, lambda shaper: shaper.banned())] = NEVER
    for row, shaper in rows:
        allowed = shaper.allowed() if shaper.forced is None else None
        if allowed is not None:
            logits[row].masked_fill_(~torch.from_numpy(allowed).to(logits.device), NEVER)


def _force(logits: Tensor, rows: Rows) -> None:
    for row, shaper in rows:
        if shaper.forced is not None:
            value = logits[row, shaper.forced].clone()  # a NaN stays one, and is told
            logits[row] = NEVER
            logits[row, shaper.forced] = value


def _truncate(logits: Tensor, rows: Rows, temperature: Tensor) -> None:
    """Leave out what is below the logit of the least likely token that stays; equals of that one stay with it."""
    if not rows:
        return
    index = torch.tensor([row for row, _ in rows], device=logits.device)
    wanted = [shaper.params for _, shaper in rows]
    picked, heat = logits[index], temperature[index].unsqueeze(1)  # (m, V), (m, 1)
    floor = torch.full_like(heat, NEVER)
    by_rank = [place for place, params in enumerate(wanted) if 0 < params.top_k < logits.shape[1]]
    by_mass = [place for place, params in enumerate(wanted) if params.top_p < 1 and place not in set(by_rank)]
    if by_rank:
        floor[by_rank] = _rank_floor(picked[by_rank], heat[by_rank], [wanted[place] for place in by_rank])
    if by_mass:
        limit = torch.tensor([[wanted[place].top_p] for place in by_mass], dtype=torch.float64, device=logits.device)
        floor[by_mass] = _mass_floor(picked[by_mass], heat[by_mass], limit)
    share = torch.tensor([[params.min_p] for params in wanted], device=logits.device).log()  # −inf: off
    floor = torch.maximum(floor, picked.amax(-1, keepdim=True) + share * heat)
    logits[index] = picked.masked_fill_(picked < floor, NEVER)


def _rank_floor(logits: Tensor, heat: Tensor, wanted: Sequence[SamplingParams]) -> Tensor:
    """The smallest logit (m, 1) that top-k keeps, then top-p among those."""
    last = torch.tensor([[params.top_k - 1] for params in wanted], device=logits.device)
    limit = torch.tensor([[params.top_p] for params in wanted], dtype=torch.float64, device=logits.device)
    values = logits.topk(int(last.max()) + 1, dim=-1).values  # (m, k)
    ranks = torch.arange(values.shape[1], device=logits.device)
    weights = ((values - values[:, :1]) / heat).exp().masked_fill(ranks > last, 0.0)
    before, mass = _mass_before(weights)
    kept = (before < limit * mass) | (limit >= 1)
    end = torch.minimum((kept.sum(-1, keepdim=True) - 1).clamp(min=0), last)
    return values.gather(1, end)


def _mass_floor(logits: Tensor, heat: Tensor, limit: Tensor) -> Tensor:
    """The smallest logit (m, 1) that top-p keeps. Most rows end among the first few."""
    highest = logits.amax(-1, keepdim=True)
    scaled = (logits - highest) / heat
    log_mass = -scaled.log_softmax(-1).amax(-1, keepdim=True)  # the highest is 0 before
    floor = highest.clone()
    missing = torch.arange(len(logits), device=logits.device)
    for width in sorted({min(look, logits.shape[1]) for look in (*LOOKS, logits.shape[1])}):
        whole = width == logits.shape[1]  # sort is the faster of the two there
        picked = logits[missing]
        values = (picked.sort(descending=True) if whole else picked.topk(width)).values
        rest = (highest[missing], heat[missing], log_mass[missing], limit[missing])
        floor[missing], found = _end_of_mass(values, *rest)
        missing = missing[~found.squeeze(1)]
        if not len(missing):
            break
    return floor


def _end_of_mass(
    values: Tensor, highest: Tensor, heat: Tensor, log_mass: Tensor, limit: Tensor
) -> tuple[Tensor, Tensor]:
    """values: (m, k) in falling order → the last one (m, 1) that top-p keeps, and whether the end is among them."""
    before, mass = _mass_before(((values - highest) / heat - log_mass).exp())
    end = ((before < limit).sum(-1, keepdim=True) - 1).clamp(min=0)
    return values.gather(1, end), mass >= limit


def _mass_before(weights: Tensor) -> tuple[Tensor, Tensor]:
    """(m, k) → fp64: the sum of all weights before each one (m, k), and of all (m, 1)."""
    sums = weights.double().cumsum(-1)
    return torch.cat([torch.zeros_like(sums[:, :1]), sums[:, :-1]], -1), sums[:, -1:]


def _places(logits: Tensor, rows: Rows, ids_of: Callable[[Shaper], np.ndarray]) -> tuple[Tensor, Tensor]:
    """(row, id) of every logit to edit, as two index tensors."""
    ids = [ids_of(shaper) for _, shaper in rows]
    numbers = np.repeat(np.array([row for row, _ in rows], np.int64), [len(piece) for piece in ids])
    return torch.from_numpy(numbers).to(logits.device), torch.from_numpy(np.concatenate(ids)).to(logits.device)


def _joined(logits: Tensor, pieces: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(pieces).astype(np.float32, copy=False)).to(logits.device)
