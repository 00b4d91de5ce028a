"""LLM: a model and its tokenizer behind two calls, generate and stream."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from moreseek.engine.engine import Engine
from moreseek.engine.sampling import Completion, SamplingParams
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

    def generate(
        self, prompts: Sequence[str | Sequence[int]], params: SamplingParams | None = None
    ) -> list[Completion]:
        """One completion a prompt, with .text, .token_ids, .logprobs and .finish_reason."""
        completions = self.engine.generate([self._ids(prompt) for prompt in prompts], params or SamplingParams())
        for completion in completions:
            completion.text = self._text(completion.token_ids)
        return completions

    def stream(self, prompt: str | Sequence[int], params: SamplingParams | None = None) -> Iterator[Completion]:
        """The completion after each token; ``text`` holds back characters whose bytes are not complete yet."""
        tokens: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                self.engine.generate(
                    [self._ids(prompt)], params or SamplingParams(), on_token=lambda _, token: tokens.put(token)
                )
                tokens.put(None)
            except BaseException as error:  # handed to the reader's thread
                tokens.put(error)

        threading.Thread(target=work, daemon=True).start()
        so_far = Completion()
        while (item := tokens.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            so_far.token_ids.append(item)
            so_far.text = self._text(so_far.token_ids).rstrip("\ufffd")
            yield so_far

    def _ids(self, prompt: str | Sequence[int]) -> list[int]:
        return self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)

    def _text(self, ids: Sequence[int]) -> str:
        kept = [i for i in ids if i not in self.tokenizer.eos_ids]
        return self.tokenizer.decode(kept)
