"""LLM: a model and its tokenizer behind two calls, generate and stream."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Sequence as Items
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Self
from weakref import finalize

import torch

from moreseek.engine.engine import Engine, completion_of, token_ids
from moreseek.engine.logits import Grammar
from moreseek.engine.loop import EngineLoop, listener, raised
from moreseek.engine.precision import Asked, choose_precision
from moreseek.engine.sampling import Completion, SamplingParams, Structure
from moreseek.engine.sequence import Sequence
from moreseek.engine.stops import TextStream
from moreseek.engine.structured import Compiler
from moreseek.engine.thinking import ThinkingIds
from moreseek.errors import InputError
from moreseek.model.stored import open_stored
from moreseek.model.transformer import Transformer
from moreseek.model.weights import load_model
from moreseek.native.bindings import why_not
from moreseek.run_folder import resolve_model
from moreseek.text.tokenizer import Tokenizer


class LLM:
    """Load a model folder, a .gguf file or a run and sample from it.

    A prompt is text (control strings such as <|user|> are understood) or token ids. ``precision`` "auto": on a CPU, of
    fp32, bf16 and int8 what is fastest here without a measurable loss (engine/precision.py); on a GPU bf16. Where
    there are no native kernels, as on a GPU, the model's own torch code runs.
    """

    def __init__(
        self, path: str | Path, max_rows: int = 256, precision: Asked = "auto", device: str | torch.device = "cpu"
    ) -> None:
        folder = resolve_model(str(path))
        self.tokenizer = Tokenizer.load(folder)
        self.model = open_model(folder, precision, torch.device(device))
        if self.tokenizer.vocab_size > self.model.config.vocab_size:
            raise InputError(f"{folder}: the tokenizer has more ids than the model; they do not belong together.")
        eos = list(self.tokenizer.eos_ids)
        self.model.config = self.model.config.model_copy(update={"eos_token_id": eos})
        self.precision = choose_precision(self.model, precision)
        self.engine = Engine(self.model, max_rows, frozen=True, precision=self.precision)
        self.engine.thinking = ThinkingIds.of(self.tokenizer)
        self.engine.compile = _compiler(self.tokenizer, self.model.config.vocab_size)
        self._lock = threading.Lock()

    @cached_property
    def loop(self) -> EngineLoop:
        """The thread that steps the engine, from when it is first needed until nobody has this LLM any longer."""
        with self._lock:  # cached_property has had none since Python 3.12
            if "loop" not in vars(self):
                vars(self)["loop"] = made = EngineLoop(self.engine)
                finalize(self, made.stop).atexit = False
            return vars(self)["loop"]

    def generate(self, prompts: Items[str | Items[int]], params: SamplingParams | None = None) -> list[Completion]:
        """``params.n`` completions a prompt, one after the other, with .text, .token_ids, .logprobs, .finish_reason.

        Completion i of a prompt is sampled with ``params.seed`` + i, whatever the other prompts are; one that is asked
        again counts on. Raises InputError for what is no prompt.
        """
        params = _checked(params)
        if isinstance(prompts, str) or not isinstance(prompts, Iterable):
            raise InputError("prompts must be a list of texts, or of lists of token ids.")
        ended: queue.SimpleQueue[Sequence] = queue.SimpleQueue()
        started: list[tuple[Sequence, TextStream]] = []
        made = Counter[tuple[int, ...]]()
        try:
            for prompt in prompts:
                ids = self._ids(prompt)
                for _ in range(params.n):
                    text, seed = self.text_stream(params), params.seed + made[ids]
                    made[ids] += 1
                    hear = listener(lambda token: None, text)
                    started.append((self.loop.submit(ids, params, seed, hear, ended.put), text))
            for _ in started:
                raised(ended.get())
        finally:
            for sequence, _ in started:
                self.loop.abort(sequence)  # nothing, unless an error or an interrupt came between
        return [_completion(sequence, text) for sequence, text in started]

    def stream(self, prompt: str | Items[int], params: SamplingParams | None = None) -> Iterator[Completion]:
        """The completion so far after each token, and at last the whole one, which says why it ended.

        ``text`` holds back incomplete characters and what may be a stop string.
        """
        params = _checked(params)
        if params.n != 1:
            raise InputError("stream gives one completion, so n must be 1.")
        text, so_far = self.text_stream(params), Completion()
        for item in self.loop.stream(self._ids(prompt), params, text=text):
            if isinstance(item, Sequence):
                yield _completion(item, text)
                return
            so_far = replace(
                so_far, token_ids=[*so_far.token_ids, item.id], logprobs=[*so_far.logprobs, item.logprob],
                text=so_far.text + item.text,
            )  # fmt: skip
            yield so_far

    def text_stream(self, params: SamplingParams) -> TextStream:
        """What turns the tokens of one completion into text, without the model's end tokens."""
        ends = frozenset(self.tokenizer.eos_ids)
        return TextStream(self.tokenizer, params.stop_strings, params.include_stop, ends, params.min_tokens)

    def close(self) -> None:
        """End what runs, and the engine's thread; also at the end of a ``with``. Nothing more can be asked.

        The memory is given back when nobody has this LLM any longer, which ends the thread too.
        """
        self.loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ids(self, prompt: str | Items[int]) -> tuple[int, ...]:
        if isinstance(prompt, str):
            return tuple(self.tokenizer.encode(prompt))
        if not isinstance(prompt, Iterable):
            raise InputError(f"a prompt must be text or a list of token ids, not {type(prompt).__name__}.")
        return token_ids(list(prompt))


def _compiler(tokenizer: Tokenizer, vocabulary: int) -> Callable[[Structure], Grammar]:
    """Made when it is first asked. The engine holds this, and must not hold the LLM: its thread outlives none."""
    made = lru_cache(lambda: Compiler(tokenizer, vocabulary))
    return lambda structure: made().compile(structure)


def _checked(params: SamplingParams | None) -> SamplingParams:
    if params is not None and not isinstance(params, SamplingParams):
        raise InputError(f"params must be SamplingParams, not {type(params).__name__}.")
    return params or SamplingParams()


def open_model(folder: Path, asked: Asked, device: torch.device) -> Transformer:
    """A model to sample from: on a GPU in bf16 unless fp32 is asked for, and without its matrices where the native
    kernels pack their own.
    """
    if device.type == "cpu" and (asked != "bf16" or why_not() is None):
        return open_stored(folder)
    return load_model(folder, torch.float32 if asked in ("fp32", "int8") else torch.bfloat16, device)


def _completion(sequence: Sequence, text: TextStream) -> Completion:
    completion = completion_of(sequence)
    text.finish()
    completion.text = text.text
    return completion
