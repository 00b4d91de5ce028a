"""The engine: requests go in, tokens come out, step by step. Rollouts, chat, evaluation and server all use it."""

from __future__ import annotations

import time
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from numbers import Integral
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from moreseek.engine.block_manager import BlockManager
from moreseek.engine.caches import cached_layers
from moreseek.engine.choice import choose
from moreseek.engine.drafts import Drafter, MTPDrafter, TextDrafter
from moreseek.engine.faults import first_not_finite
from moreseek.engine.logits import Grammar, Shaper, shape, top_logprobs
from moreseek.engine.native_runner import NativeRunner
from moreseek.engine.runner import Runner, make_runner
from moreseek.engine.sampling import Completion, SamplingParams, Structure
from moreseek.engine.scheduler import Scheduler, Step
from moreseek.engine.sequence import OnToken as Listener
from moreseek.engine.sequence import Sequence
from moreseek.engine.thinking import ThinkingIds
from moreseek.errors import FaultError, InputError
from moreseek.model.cache import bytes_per_token
from moreseek.model.transformer import Transformer
from moreseek.native.bindings import usable
from moreseek.native.step import BLOCK_SIZE, Precision

CACHE_BYTES = 4 << 30
"""The cache takes at most this much unless told otherwise. Memory is touched only as it is used."""

MOST_AT_ONCE_S = 0.004
"""Seconds after which a call of several steps begins no further one: what has come in meanwhile must not wait long."""

STEP_S = 0.5
"""Seconds that a step which reads prompts should take: so long everybody else waits for a token, and an abort."""
FEWEST_TOKENS = 64  # of such a step; with fewer, reading the weights takes longer than multiplying
GUESSED_FLOPS = 20e9  # a thread, before the first such step has been timed

OnToken = Callable[[int, int], None]  # (request, token id), after every token: for streaming


@dataclass(frozen=True)
class Drafting:
    """Speculative decoding: who guesses, how many tokens at a time, and up to how many rows it pays.

    ``by``: "mtp" is the model's multi-token-prediction module, "text" looks back in the text, "" is nobody: the
    default, since with a model of a few layers a guess costs as much as it saves (docs/engine.md).
    """

    by: Literal["mtp", "text", ""] = ""
    tokens: int = 2
    most_rows: int = 4


class Engine:
    """Samples from one model, many requests at once.

    ``frozen``: the weights never change, so they are packed once and prefixes are kept from call to call. Otherwise
    ``generate`` looks at the weights anew (a training step is seen at once); callers of ``step`` call ``refresh``.
    """

    def __init__(
        self, model: Transformer, max_rows: int = 256, frozen: bool = False, cache_bytes: int = CACHE_BYTES,
        budget: int = 2048, drafting: Drafting = Drafting(), precision: Precision = "fp32",
    ) -> None:  # fmt: skip
        if drafting.by == "mtp" and model.mtp is None:
            raise InputError("the model has no multi-token-prediction module to draft with.")
        self.drafting = drafting
        self.precision: Precision = precision
        self.model, self.max_rows, self.frozen, self.budget = model, max_rows, frozen, budget
        self.context = model.config.max_position_embeddings
        layers = cached_layers(model, drafting.by == "mtp")
        token_bytes = bytes_per_token(model.config, model.embed_tokens.weight.element_size(), layers)
        most = max_rows * -(-self.context // BLOCK_SIZE)
        self._blocks = 1 + max(1, min(most, cache_bytes // (token_bytes * BLOCK_SIZE)))
        self._runner: Runner | None = None
        self.scheduler = Scheduler(BlockManager(self._blocks, BLOCK_SIZE), max_rows, self.context, budget)
        self._arrivals = count()
        self._pace_by(STEP_S * GUESSED_FLOPS * torch.get_num_threads() / (2 * model.size))
        self.thinking: ThinkingIds | None = None  # for thinking budgets, and structures that begin after the thinking
        self.compile: Callable[[Structure], Grammar] | None = None  # for structured output

    # ------------------------------------------------------------------------------------------------ one at a time

    def add(
        self, prompt: Items[int], params: SamplingParams, seed: int | None = None,
        on_token: Listener | None = None,
    ) -> Sequence:  # fmt: skip
        """Queue a request. Raises InputError for an empty prompt, an id outside the vocabulary, or too long a text."""
        sequence = self.request(prompt, params, seed, on_token)
        self.scheduler.add(sequence)
        return sequence

    def request(
        self, prompt: Items[int], params: SamplingParams, seed: int | None = None,
        on_token: Listener | None = None,
    ) -> Sequence:  # fmt: skip
        """A request that the scheduler will take; nothing is queued, so any thread may call this. Raises as ``add``."""
        prompt = token_ids(prompt)
        self._check(prompt, params)
        ends = () if params.ignore_eos else self.model.config.eos_ids
        stops = tuple(sorted({*ends, *params.stop_token_ids}))
        shaper = None if params.plain else self._shaper(prompt, params, stops)
        seed = params.seed if seed is None else seed
        sequence = Sequence(prompt, params, seed, stops, on_token, shaper, next(self._arrivals))
        self.scheduler.check(sequence)
        return sequence

    def abort(self, sequence: Sequence) -> None:
        """End a request at any moment; its blocks are free at once."""
        self.scheduler.abort(sequence)

    def refresh(self) -> None:
        """The weights have changed: see them as they are now, and forget every cached prefix, running ones' too."""
        blocks = self.scheduler.blocks
        blocks.forget()
        for sequence in self.scheduler.running:
            sequence.prefix = blocks.nowhere()
        if self._runner is not None:
            self._runner.refresh()

    def step(self) -> list[Sequence]:
        """A step of the model for all that run, or a few where nobody needs to be asked in between; the sequences that
        ended in it.

        A request whose logits are not finite ends with the reason "error" and ``fault`` set, and the others go on.
        After any exception all requests have ended so, and new ones find a working engine.
        """
        try:
            ended, faulty = self._several_steps() or self._one_step()
            return self._end_faulty(faulty, ended) if faulty else ended
        except BaseException as error:  # an interrupt too: the arrays may be half written
            self._reset(f"the engine failed: {error!r}")
            raise

    def _one_step(self) -> tuple[list[Sequence], list[Sequence]]:
        runner, step = self.runner, self.scheduler.schedule()
        if step is None:
            return [], []
        started = time.perf_counter()
        logits, states = runner.logits(step)
        tokens, logprobs = self._choose(step, logits)
        fitting, count = STEP_S / (time.perf_counter() - started), len(step.ids)
        if fitting < 1 or count >= self.scheduler.budget:  # it took too long, or was as large as may be
            self._pace_by(count * min(max(fitting, 1 / 4), 2))  # no leaps: a moment may be a bad one
        return self.scheduler.commit(step, tokens, logprobs, self._draft_after(states))

    def _pace_by(self, tokens: float) -> None:
        """Read about so many tokens a step. On the native path alone: elsewhere sums depend on how a prompt is cut, and
        the same seed must give the same text however fast the machine is at the moment.
        """
        if usable(self.model.embed_tokens.weight):
            self.scheduler.budget = max(self.max_rows, int(min(self.budget, max(tokens, FEWEST_TOKENS))))

    def _several_steps(self) -> tuple[list[Sequence], list[Sequence]] | None:
        """Steps in one native call, where they can be."""
        runner, scheduler = self.runner, self.scheduler
        if self.drafter is not None or not isinstance(runner, NativeRunner):
            return None
        most = scheduler.several()
        if most < 2:
            return None
        step, cut = scheduler.catch_up(runner.multi_step(scheduler, most, MOST_AT_ONCE_S))
        rows = step.output_rows
        at = scheduler.known[rows]
        return scheduler.commit(step, scheduler.tokens[rows, at], scheduler.logprobs[rows, at], cut=cut)

    def _draft_after(self, states: Tensor | None) -> Callable[[Step, np.ndarray], None] | None:
        """What guesses the next tokens, where guessing pays: for few rows the model checks several as fast as one."""
        drafter = self.drafter
        if drafter is None or len(self.scheduler.running) > self.drafting.most_rows:
            return None
        return lambda step, going: drafter.draft(self.scheduler, step, going, states)

    def _choose(self, step: Step, logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
        if len(step.scored):
            logits, scored = logits.split([len(step.output), len(step.scored)])
            self._score(step, scored)
        if len(step.output) == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scheduler, rows = self.scheduler, step.output_rows
        single = np.flatnonzero(scheduler.single[rows]).tolist()
        asked = [(place, scheduler.running[rows[place]]) for place in single]
        raw = {place: logits[place].clone() for place, sequence in asked if sequence.params.logprobs is not None}
        self._shape(logits, asked, scheduler.temperature[rows])
        tokens, logprobs = choose(logits, scheduler.inverse[rows], scheduler.uniforms(step))
        for place, sequence in asked:
            if place in raw:
                count = sequence.params.logprobs or 0
                sequence.top_logprobs.append(shown_logprobs(raw[place].unsqueeze(0), count, [int(tokens[place])])[0])
        return tokens, logprobs

    def _shape(self, logits: Tensor, asked: list[tuple[int, Sequence]], temperature: np.ndarray) -> None:
        """Change the logits as the requests ask; those whose grammar goes no further get none that is a number."""
        rows = []
        for place, sequence in asked:
            if sequence.shaper is None:
                continue
            sequence.look_ahead()
            if sequence.fault is None:
                rows.append((place, sequence.shaper))
            else:
                logits[place] = float("nan")
        if rows:
            shape(logits, rows, torch.from_numpy(temperature).to(logits.device))

    def _shaper(self, prompt: Items[int], params: SamplingParams, stops: Items[int]) -> Shaper:
        grammar = None
        if params.structured is not None:
            if self.compile is None:
                raise InputError("structured output needs a tokenizer: ask an LLM for it.")
            grammar = self.compile(params.structured)
        return Shaper(params, prompt, self.model.config.vocab_size, stops, self.thinking, grammar)

    def _score(self, step: Step, logits: Tensor) -> None:
        """Log-probabilities of the prompts' tokens, each from the logits (s, V) of the token before it."""
        scheduler = self.scheduler
        after = step.start[step.scored_rows] + step.scored - step.first[step.scored_rows] + 1
        tokens = scheduler.tokens[step.scored_rows, after]
        for row in np.unique(step.scored_rows).tolist():
            mine = np.flatnonzero(step.scored_rows == row)
            sequence = scheduler.running[row]
            found = sequence.prompt_logprobs
            if not found:
                found.append(None)  # nothing stands before the first token
            shown = shown_logprobs(logits[mine], sequence.params.logprobs or 0, tokens[mine].tolist())
            found.extend(shown[len(found) - int(after[mine[0]]) :])  # a preempted prompt is read again

    def _end_faulty(self, faulty: list[Sequence], ended: list[Sequence]) -> list[Sequence]:
        """End those whose logits are not finite; what they left in the cache must not reach others."""
        blocks = self.scheduler.blocks
        written = {block for sequence in faulty for block in sequence.blocks}
        for sequence in faulty:
            self.scheduler.abort(sequence)
        blocks.forget()
        self.runner.cache.clear([block for block in written if not blocks.owned(block)])
        for sequence in faulty:
            sequence.finish_reason = "error"
            if sequence.fault is not None:
                continue
            try:
                place = f", first in {first_not_finite(self.model, sequence.tokens)}"
            except Exception:  # of memory, or of a file that is gone: it is one request's message, and others go on
                place = ""
            sequence.fault = f"the model's result is not a number{place}. Its weights may be damaged."
        return [*ended, *faulty]

    def _reset(self, fault: str) -> None:
        old = self.scheduler
        self.scheduler = Scheduler(BlockManager(self._blocks, BLOCK_SIZE), self.max_rows, self.context, old.budget)
        for sequence in [*old.running, *old.waiting]:
            if sequence.finish_reason is None:
                sequence.finish_reason, sequence.fault, sequence.row = "error", fault, -1

    @property
    def runner(self) -> Runner:
        if self._runner is None:
            self._runner = make_runner(self.model, self._blocks, self.drafting.by == "mtp", self.precision)
        return self._runner

    @cached_property
    def drafter(self) -> Drafter | None:
        if self.drafting.by == "mtp":
            return MTPDrafter(self.runner, self.drafting.tokens)
        return TextDrafter(self.drafting.tokens) if self.drafting.by == "text" else None

    # ------------------------------------------------------------------------------------------------ many at once

    def generate(
        self,
        prompts: Items[Items[int]],
        params: SamplingParams,
        seeds: Items[int] | None = None,
        on_token: OnToken | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> list[Completion]:
        """Complete every prompt; results are in the order of the prompts.

        ``seeds``: one a prompt (default: params.seed + index). ``on_progress(finished, total)``.
        Raises InputError for an empty prompt, an id outside the vocabulary, or more than the context holds.
        """
        if seeds is not None and len(seeds) != len(prompts):
            raise InputError(f"{len(seeds)} seeds for {len(prompts)} prompts: one each is needed.")
        if not self.frozen:
            self.refresh()
        was_training = self.model.training
        self.model.eval()
        sequences: list[Sequence] = []
        try:
            for index, prompt in enumerate(prompts):
                listener = None if on_token is None else lambda token, _, index=index: on_token(index, token)
                try:
                    seed = params.seed + index if seeds is None else int(seeds[index])
                    sequences.append(self.add(prompt, params, seed, listener))
                except InputError as error:
                    raise InputError(f"prompt {index}: {error}") from None
            finished, mine = 0, set(sequences)  # others may have been added before
            while finished < len(sequences):
                ended = len(mine.intersection(self.step()))
                finished += ended
                if ended and on_progress is not None:
                    on_progress(finished, len(sequences))
        finally:
            for sequence in sequences:
                self.abort(sequence)  # nothing, unless an error or an interrupt came between
            self.model.train(was_training)
        for index, sequence in enumerate(sequences):
            if sequence.fault is not None:
                raise FaultError(f"prompt {index}: {sequence.fault}")
        return [completion_of(sequence) for sequence in sequences]

    def _check(self, prompt: Items[int], params: SamplingParams) -> None:
        vocabulary = self.model.config.vocab_size
        named = params.stop_token_ids
        if named and max(named) >= vocabulary:
            raise InputError(f"token id {max(named)} is outside the model's vocabulary of {vocabulary}.")
        if prompt and (min(prompt) < 0 or max(prompt) >= vocabulary):
            raise InputError("the prompt holds a token id outside the model's vocabulary.")


def token_ids(prompt: Items[object]) -> tuple[int, ...]:
    """A prompt's ids, as Python's own integers. Raises InputError where one is none."""
    if not {type(id) for id in prompt} <= {int}:
        for id in prompt:
            if isinstance(id, bool) or not isinstance(id, Integral):
                raise InputError(f"a prompt must be text or token ids, which are integers, not {type(id).__name__}.")
        prompt = [int(id) for id in prompt]  # pyright: ignore[reportArgumentType]  (looked at above)
    return tuple(prompt)  # pyright: ignore[reportReturnType]


def completion_of(sequence: Sequence) -> Completion:
    """What a sequence that has ended wrote."""
    params = sequence.params
    return Completion(
        sequence.output, sequence.logprobs, sequence.told_reason,
        top_logprobs=None if params.logprobs is None else sequence.top_logprobs,
        prompt_logprobs=(sequence.prompt_logprobs or [None]) if params.prompt_logprobs else None,
    )  # fmt: skip


def shown_logprobs(logits: Tensor, count: int, tokens: Items[int]) -> list[dict[int, float]]:
    """Of the model's own distribution, logits (n, V): the ``count`` likeliest and the given token of each row."""
    ids, values, chosen = top_logprobs(logits, count, torch.tensor(tokens, device=logits.device))
    return [
        dict(zip(row, found, strict=True)) | {token: value}
        for row, found, token, value in zip(ids.tolist(), values.tolist(), tokens, chosen.tolist(), strict=True)
    ]
