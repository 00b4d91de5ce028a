"""LLM: a model and its tokenizer behind two calls, generate and stream."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from collections.abc import Sequence as Items
from functools import cached_property
from pathlib import Path

import torch

from moreseek.engine.engine import Engine, completion_of
from moreseek.engine.loop import EngineLoop, listener, raised
from moreseek.engine.precision import Asked, choose_precision
from moreseek.engine.sampling import Completion, SamplingParams
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
        self.engine.compile = lambda structure: self._compiler.compile(structure)

    @cached_property
    def _compiler(self) -> Compiler:
        return Compiler(self.tokenizer, self.model.config.vocab_size)

    @cached_property
    def loop(self) -> EngineLoop:
        """The thread that steps the engine, begun when it is first needed."""
        return EngineLoop(self.engine)

    def generate(self, prompts: Items[str | Items[int]], params: SamplingParams | None = None) -> list[Completion]:
        """``params.n`` completions a prompt, one after the other, with .text, .token_ids, .logprobs, .finish_reason."""
        params = params or SamplingParams()
        ended: queue.SimpleQueue[Sequence] = queue.SimpleQueue()
        started: list[tuple[Sequence, TextStream]] = []
        try:
            for index, prompt in enumerate(prompts):
                ids = self._ids(prompt)
                for number in range(params.n):
                    text, seed = self.text_stream(params), params.seed + index * params.n + number
                    hear = listener(lambda token: None, text)
                    started.append((self.loop.submit(ids, params, seed, hear, ended.put), text))
            for _ in started:
                raised(ended.get())
        finally:
            for sequence, _ in started:
                self.loop.abort(sequence)  # nothing, unless an error or an interrupt came between
        return [_completion(sequence, text) for sequence, text in started]

    def stream(self, prompt: str | Items[int], params: SamplingParams | None = None) -> Iterator[Completion]:
        """The completion after each token; ``text`` holds back incomplete characters and what may be a stop string."""
        params = params or SamplingParams()
        if params.n != 1:
            raise InputError("stream gives one completion, so n must be 1.")
        text, so_far = self.text_stream(params), Completion()
        for item in self.loop.stream(self._ids(prompt), params, text=text):
            if isinstance(item, Sequence):
                last = _completion(item, text)
                if last.text != so_far.text:
                    yield last
                return
            so_far.token_ids.append(item.id)
            so_far.logprobs.append(item.logprob)
            so_far.text += item.text
            yield so_far

    def text_stream(self, params: SamplingParams) -> TextStream:
        """What turns the tokens of one completion into text, without the model's end tokens."""
        ends = frozenset(self.tokenizer.eos_ids)
        return TextStream(self.tokenizer, params.stop_strings, params.include_stop, ends, params.min_tokens)

    def _ids(self, prompt: str | Items[int]) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)


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
