"""LLM: a model and its tokenizer behind two calls, generate and stream."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from collections.abc import Sequence as Items
from functools import cached_property
from pathlib import Path

from moreseek.engine.engine import Engine, completion_of
from moreseek.engine.loop import EngineLoop, raised
from moreseek.engine.sampling import Completion, SamplingParams
from moreseek.engine.sequence import Sequence
from moreseek.errors import InputError
from moreseek.model.weights import load_model
from moreseek.run_folder import resolve_model
from moreseek.text.tokenizer import Tokenizer


class LLM:
    """Load a model folder, a .gguf file or a run and sample from it.

    A prompt is text (control strings such as <|user|> are understood) or token ids.
    """

    def __init__(self, path: str | Path, max_rows: int = 256) -> None:
        folder = resolve_model(str(path))
        self.tokenizer = Tokenizer.load(folder)
        self.model = load_model(folder)
        if self.tokenizer.vocab_size > self.model.config.vocab_size:
            raise InputError(f"{folder}: the tokenizer has more ids than the model; they do not belong together.")
        eos = list(self.tokenizer.eos_ids)
        self.model.config = self.model.config.model_copy(update={"eos_token_id": eos})
        self.engine = Engine(self.model, max_rows, frozen=True)

    @cached_property
    def loop(self) -> EngineLoop:
        """The thread that steps the engine, begun when it is first needed."""
        return EngineLoop(self.engine)

    def generate(self, prompts: Items[str | Items[int]], params: SamplingParams | None = None) -> list[Completion]:
        """One completion a prompt, with .text, .token_ids, .logprobs and .finish_reason."""
        params = params or SamplingParams()
        ended: queue.SimpleQueue[Sequence] = queue.SimpleQueue()
        sequences: list[Sequence] = []
        try:
            for index, prompt in enumerate(prompts):
                sequences.append(self.loop.submit(self._ids(prompt), params, params.seed + index, None, ended.put))
            for _ in prompts:
                raised(ended.get())
        finally:
            for sequence in sequences:
                self.loop.abort(sequence)  # nothing, unless an error or an interrupt came between
        completions = [completion_of(sequence) for sequence in sequences]
        for completion in completions:
            completion.text = self._text(completion.token_ids)
        return completions

    def stream(self, prompt: str | Items[int], params: SamplingParams | None = None) -> Iterator[Completion]:
        """The completion after each token; ``text`` holds back characters whose bytes are not complete yet."""
        so_far = Completion()
        for item in self.loop.stream(self._ids(prompt), params or SamplingParams()):
            if isinstance(item, Sequence):
                return
            so_far.token_ids.append(item.id)
            so_far.logprobs.append(item.logprob)
            so_far.text = self._text(so_far.token_ids).rstrip("\ufffd")
            yield so_far

    def _ids(self, prompt: str | Items[int]) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)

    def _text(self, ids: Items[int]) -> str:
        kept = [i for i in ids if i not in self.tokenizer.eos_ids]
        return self.tokenizer.decode(kept)
