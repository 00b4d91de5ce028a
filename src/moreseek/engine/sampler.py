"""Batched sampling by the training model's own code, with a preallocated cache.

Prompts that are equal (a group of rollouts) are read once. A finished row leaves the batch at once: a waiting
request takes its slot, or the last row moves into it, so that the active rows are always one contiguous range.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from moreseek.engine.sampling import Completion, SamplingParams
from moreseek.errors import InputError
from moreseek.model.cache import Cache, CacheView
from moreseek.model.linear import decoding
from moreseek.model.transformer import Transformer
from moreseek.native.bindings import usable
from moreseek.native.decode import choose_tokens

WORTH_A_COPY = 64  # rows × tokens of a call from which transposed weights pay
BLOCK = 64  # tokens whose probabilities are summed before one of them is looked for
MOST_UNIFORM = 1 - 2.0**-50  # times any sum stays below that sum, so that no token of probability 0 is chosen
OnToken = Callable[[int, int], None]  # (request, token id), after every token: for streaming


@dataclass
class _Rows:
    """State of the active rows, index-aligned: only the first ``count`` entries live."""

    request: Tensor  # (slots,) which request sits in the slot
    cached: Tensor  # (slots,) tokens in the cache
    made: Tensor  # (slots,) tokens sampled so far
    last: Tensor  # (slots,) last sampled token, not yet in the cache
    prompt: Tensor  # (slots,) number of the row's prompt; equal prompts have one number
    prompt_tokens: Tensor  # (slots,)
    count: int = 0

    def move(self, source: int, target: int) -> None:
        for tensor in (self.request, self.cached, self.made, self.last, self.prompt, self.prompt_tokens):
            tensor[target] = tensor[source]

    def same(self) -> tuple[Tensor, Tensor]:
        """For each active row the first one with the same prompt, and how many tokens the two share."""
        prompt = self.prompt[: self.count]
        leader = (prompt.unsqueeze(1) == prompt).to(torch.uint8).argmax(dim=1)
        return leader, self.prompt_tokens[: self.count]


class Sampler:
    """Samples completions from a model. Weights are read in place, so a training step is seen at once."""

    def __init__(self, model: Transformer, max_rows: int = 256) -> None:
        self.model = model
        self.max_rows = max_rows

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seeds: Sequence[int] | None = None,
        on_token: OnToken | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Completion]:
        """Complete every prompt; results are in the order of the prompts.

        ``seeds``: one a prompt (default: params.seed + index). ``on_progress(finished, total)``.
        Raises InputError for an empty prompt, an id outside the vocabulary, or more than the context holds.
        """
        if not prompts:
            return []
        self._check(prompts, params)
        was_training = self.model.training
        self.model.eval()
        work = min(len(prompts), self.max_rows) * params.max_tokens
        copies = self.model.device.type == "cpu" and work >= WORTH_A_COPY
        try:
            with decoding(self.model, copies):
                return _Generation(self, prompts, params, seeds, on_token, on_progress).run()
        finally:
            self.model.train(was_training)

    def _check(self, prompts: Sequence[Sequence[int]], params: SamplingParams) -> None:
        context = self.model.config.max_position_embeddings
        for index, prompt in enumerate(prompts):
            if not prompt:
                raise InputError(f"prompt {index} is empty: there is nothing to continue.")
            if min(prompt) < 0 or max(prompt) >= self.model.config.vocab_size:
                raise InputError(f"prompt {index} holds a token id outside the model's vocabulary.")
            if len(prompt) + params.max_tokens > context:
                raise InputError(
                    f"prompt {index} has {len(prompt)} tokens; with max_tokens {params.max_tokens} that passes the "
                    f"model's context of {context}. Shorten it or lower max_tokens."
                )


class _Generation:
    """One call of generate: the queue, the rows and the output buffers."""

    def __init__(
        self,
        sampler: Sampler,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seeds: Sequence[int] | None,
        on_token: OnToken | None,
        on_progress: Callable[[int, int], None] | None,
    ) -> None:
        self.model, self.prompts, self.params = sampler.model, [tuple(p) for p in prompts], params
        self.on_token, self.on_progress = on_token, on_progress
        device = self.model.device
        total = len(prompts)
        self.slots = min(sampler.max_rows, total)
        length = max(map(len, self.prompts)) + params.max_tokens
        self.cache = Cache(self.model.config, self.slots, length, self.model.embed_tokens.weight)
        self.waiting = deque(range(total))
        long = {"dtype": torch.int64, "device": device}
        request, cached, made, last, prompt, prompt_tokens = torch.zeros(6, self.slots, **long).unbind()
        self.rows = _Rows(request, cached, made, last, prompt, prompt_tokens)
        self.numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(self.prompts))}
        self.same: tuple[Tensor, Tensor] | None = None  # of the rows as they stand; None after any has moved
        self.tokens = torch.zeros(total, params.max_tokens, **long)
        self.logprobs = torch.zeros(total, params.max_tokens, device=device)
        self.uniforms = self._draw(seeds, total).to(device) if params.temperature > 0 else None
        stops = () if params.ignore_eos else self.model.config.eos_ids
        self.stops = torch.tensor(sorted({*stops, *params.stop_token_ids}), **long)
        self.done: dict[int, Completion] = {}
        self.longest = 0  # an upper bound of cached tokens over active rows, so that no step waits for the device

    def _draw(self, seeds: Sequence[int] | None, total: int) -> Tensor:
        """One uniform a token from the request's own seed, so that its neighbours do not matter."""
        chosen = seeds if seeds is not None else range(self.params.seed, self.params.seed + total)
        draws = [np.random.Generator(np.random.Philox(int(s) % 2**63)).random(self.params.max_tokens) for s in chosen]
        return torch.from_numpy(np.stack(draws))

    def run(self) -> list[Completion]:
        while self.waiting or self.rows.count:
            free = self.slots - self.rows.count
            if self.waiting and (free >= max(1, self.slots // 8) or free >= len(self.waiting)):
                self._admit(free)
            if self.rows.count:
                self._step()
        return [self.done[request] for request in range(len(self.prompts))]

    def _admit(self, free: int) -> None:
        """Read the prompts of the next requests, equal prompts once, and sample their first token."""
        requests = [self.waiting.popleft() for _ in range(min(free, len(self.waiting)))]
        unique = list(dict.fromkeys(self.prompts[request] for request in requests))
        index = {prompt: row for row, prompt in enumerate(unique)}
        device = self.model.device
        longest = max(map(len, unique))
        padded = torch.tensor([list(prompt) + [0] * (longest - len(prompt)) for prompt in unique], device=device)
        scratch = Cache(self.model.config, len(unique), longest, self.model.embed_tokens.weight)
        start = torch.zeros(len(unique), dtype=torch.int64, device=device)
        hidden = self.model.cached_hidden_states(padded, CacheView(scratch, 0, start, longest, 0))
        ends = torch.tensor([len(prompt) - 1 for prompt in unique], device=device)
        last = hidden[torch.arange(len(unique), device=device), ends]

        source = torch.tensor([index[self.prompts[request]] for request in requests], device=device)
        low, high = self.rows.count, self.rows.count + len(requests)
        target = torch.arange(low, high, device=device)
        self.cache.copy_rows(scratch, source, target, longest)
        self.rows.request[low:high] = torch.tensor(requests, device=device)
        self.rows.cached[low:high] = ends[source] + 1
        self.rows.made[low:high] = 0
        self.rows.prompt[low:high] = torch.tensor([self.numbers[self.prompts[r]] for r in requests], device=device)
        self.rows.prompt_tokens[low:high] = self.rows.cached[low:high]
        self.same = None
        self.rows.count = high
        self.longest = max(self.longest, longest)
        self._sample(last[source], low, high)

    def _step(self) -> None:
        count = self.rows.count
        if self.same is None:
            self.same = self.rows.same()
        view = CacheView(self.cache, 0, self.rows.cached[:count], 1, self.longest, self.same)
        hidden = self.model.cached_hidden_states(self.rows.last[:count].unsqueeze(1), view)
        self.rows.cached[:count] += 1
        self.longest += 1
        self._sample(hidden.squeeze(1), 0, count)

    def _sample(self, hidden: Tensor, low: int, high: int) -> None:
        """hidden: (high − low, D). Choose a token for these rows, record it, and let finished rows leave."""
        logits = self.model.logits(hidden).float()  # (n, V)
        requests, made = self.rows.request[low:high], self.rows.made[low:high]
        uniforms = None if self.uniforms is None else self.uniforms[requests, made]
        tokens, logprobs = choose(logits, self.params, uniforms)
        self.tokens[requests, made] = tokens
        self.logprobs[requests, made] = logprobs
        made += 1
        self.rows.last[low:high] = tokens
        stopped = torch.isin(tokens, self.stops)
        if self.on_token is not None:
            for request, token in zip(requests.tolist(), tokens.tolist(), strict=True):
                self.on_token(request, token)
        leaving = (stopped | (made >= self.params.max_tokens)).nonzero().squeeze(1).tolist()
        for row in reversed(leaving):
            self._finish(low + row, bool(stopped[row]))

    def _finish(self, row: int, stopped: bool) -> None:
        request, made = int(self.rows.request[row]), int(self.rows.made[row])
        self.done[request] = Completion(
            token_ids=self.tokens[request, :made].tolist(),
            logprobs=self.logprobs[request, :made].tolist(),
            finish_reason="stop" if stopped else "length",
        )
        last = self.rows.count - 1
        if row != last:
            self.cache.move_row(last, row, int(self.rows.cached[last]))
            self.rows.move(last, row)
        self.rows.count, self.same = last, None
        if last:
            self.longest = int(self.rows.cached[:last].max())
        else:
            self.longest = 0
        if self.on_progress is not None:
            self.on_progress(len(self.done), len(self.prompts))


def choose(logits: Tensor, params: SamplingParams, uniforms: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pick one token a row. logits: (n, V) fp32, uniforms: (n,) fp64 in [0, 1) → ids (n,), log-probabilities (n,).

    Sampling inverts the cumulative distribution with the row's own uniform, which is faster than multinomial and
    ties a request's text to its seed alone: first among blocks of tokens, then inside one.
    """
    native = usable(logits)
    if params.temperature == 0 or uniforms is None:
        if native:
            return choose_tokens(logits, None, 1.0)
        best = logits.max(dim=-1)
        return best.indices, best.values - logits.logsumexp(-1)
    if params.temperature != 1.0:
        logits = logits / params.temperature
    if params.top_k or params.top_p < 1:
        logits = _truncate(logits, params)
    if native:
        return choose_tokens(logits, uniforms, 1.0)
    highest = logits.amax(-1, keepdim=True)
    blocks = (logits - highest).exp_()
    blocks = F.pad(blocks, (0, -blocks.shape[1] % BLOCK)).unflatten(1, (-1, BLOCK))  # (n, V / BLOCK, BLOCK)
    sums = blocks.sum(-1).double()
    block, within = _invert(sums, uniforms)
    chosen = blocks.gather(1, block.view(-1, 1, 1).expand(-1, 1, BLOCK)).squeeze(1)
    tokens = block * BLOCK + _invert(chosen.double(), within)[0]
    logprobs = logits.gather(1, tokens.unsqueeze(1)).sub_(highest).squeeze(1) - sums.sum(-1).log().float()
    return tokens, logprobs


def _invert(weights: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row's uniform falls in the cumulative sum of weights: (n, K) → index (n,), the rest in [0, 1)."""
    cumulative = weights.cumsum(-1)
    threshold = uniforms.clamp(max=MOST_UNIFORM).unsqueeze(1) * cumulative[:, -1:]
    index = torch.searchsorted(cumulative, threshold, right=True).clamp_(max=weights.shape[1] - 1)  # NaN is beyond
    weight = weights.gather(1, index)
    rest = (threshold - cumulative.gather(1, index) + weight) / weight
    return index.squeeze(1), rest.clamp_(min=0.0).squeeze(1)


def _truncate(logits: Tensor, params: SamplingParams) -> Tensor:
    """Set to −inf what top-k and top-p leave out; the most likely token always stays."""
    ordered, order = logits.sort(dim=-1, descending=True)
    if params.top_k:
        ordered[:, params.top_k :] = float("-inf")
    if params.top_p < 1:
        probabilities = ordered.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        ordered = ordered.masked_fill(before >= params.top_p, float("-inf"))
    return torch.empty_like(logits).scatter_(1, order, ordered)
