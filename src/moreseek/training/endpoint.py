"""An OpenAI-compatible endpoint as the sampler of rollouts, over /v1/completions with token ids as prompts."""

import json
import math
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from moreseek.engine.sampling import Completion, SamplingParams
from moreseek.errors import FaultError, InputError
from moreseek.model.transformer import Transformer
from moreseek.text.tokenizer import Tokenizer
from moreseek.training.sampler import WeightsFolder
from moreseek.training.settings import SamplerSettings

_TRIES, _FIRST_WAIT_S = 4, 0.5
_COME_BACK = (408, 429, 500, 502, 503, 504)
_NAMED_ID = "token_id:"  # vLLM's return_tokens_as_token_ids


class EndpointSampler:
    """Any server of OpenAI's completions API: vLLM, SGLang, llama.cpp, `moreseek serve`.

    The weights reach it through a folder that both see and the calls of ``[[stage.sampler.reload]]``; with
    ``renew_every_steps = 0`` it keeps those that it has.
    """

    def __init__(self, settings: SamplerSettings, tokenizer: Tokenizer, folder: Path) -> None:
        self.settings, self.tokenizer = settings, tokenizer
        self.ratio_cap = settings.ratio_cap
        self._weights = WeightsFolder(folder, tokenizer, settings.renew_every_steps)
        self._key = None
        if settings.api_key_env is not None:
            self._key = os.environ.get(settings.api_key_env)
            if not self._key:
                raise InputError(f"sampler.api_key_env: the environment has no {settings.api_key_env}.")

    def renew(self, model: Transformer, step: int) -> None:
        """Save the weights and make the calls, where it is time. Raises FaultError where a call fails."""
        if not self.settings.renew_every_steps or not self._weights.write_if_due(model, step):
            return
        for call in self.settings.reload:
            self._post(call.url, _with_folder(call.body, str(self._weights.path)))

    def generate(
        self, prompts: Sequence[Sequence[int]], params: SamplingParams, seeds: Sequence[int], /
    ) -> list[Completion]:
        """One request a completion, ``at_once`` of them in flight. Raises FaultError where the endpoint fails."""
        with ThreadPoolExecutor(min(self.settings.at_once, max(1, len(prompts)))) as pool:
            futures = [pool.submit(self._one, p, params, s) for p, s in zip(prompts, seeds, strict=True)]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _one(self, prompt: Sequence[int], params: SamplingParams, seed: int) -> Completion:
        assert self.settings.url is not None
        asked = {
            "model": self.settings.model, "prompt": list(prompt), "max_tokens": params.max_tokens,
            "temperature": params.temperature, "seed": seed % 2**31, "logprobs": 1,
        }  # fmt: skip
        url = self.settings.url.rstrip("/") + "/completions"
        answer = self._post(url, asked | self.settings.body)
        try:
            return self._completion(answer["choices"][0], params.max_tokens)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise FaultError(f"{url}: its answer is not a completion ({error!r}).") from error

    def _completion(self, choice: dict[str, Any], most: int) -> Completion:
        """The tokens of an answer. Where the ids are not told, they are made from the text again."""
        told = choice.get("logprobs") or {}
        logprobs, names = told.get("token_logprobs"), told.get("tokens") or []
        ended = choice.get("finish_reason") == "stop"
        ids = choice.get("token_ids")
        if ids is None and names and all(str(name).startswith(_NAMED_ID) for name in names):
            ids = [int(name.removeprefix(_NAMED_ID)) for name in names]
        if ids is None:
            ids = self.tokenizer.encode(choice["text"])
            ids += [self.tokenizer.eos_ids[0]] if ended else []
        self._check(ids, most)
        if logprobs is None or len(logprobs) != len(ids):  # cut into other tokens than were sampled
            logprobs = [math.nan] * len(ids)
        return Completion(
            list(ids),
            [math.nan if value is None else float(value) for value in logprobs],
            "stop" if ended else "length",
            choice.get("text") or "",
        )

    def _check(self, ids: Any, most: int) -> None:
        size = self.tokenizer.vocab_size
        if not isinstance(ids, list) or not ids or not all(type(id) is int and 0 <= id < size for id in ids):
            raise FaultError(
                f"{self.settings.url}: it answered with no tokens, or with ids outside the {size} of the tokenizer "
                "here. Does it serve a model with the same tokenizer?"
            )
        if len(ids) > most + 1:
            raise FaultError(f"{self.settings.url}: it answered with {len(ids)} tokens where {most} were asked for.")

    def _post(self, url: str, body: dict[str, Any]) -> Any:
        """The JSON that comes back, or None. What may pass is tried again. Raises FaultError."""
        headers = {"content-type": "application/json"}
        headers |= {"authorization": f"Bearer {self._key}"} if self._key else {}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        what = ""
        for again in range(_TRIES):
            if again:
                time.sleep(_FIRST_WAIT_S * 2 ** (again - 1))
            try:
                with urllib.request.urlopen(request, timeout=self.settings.timeout_s) as answer:
                    text = answer.read()
                return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                what = f"{error.code}: {error.read(500).decode('utf-8', 'replace')}"
                if error.code not in _COME_BACK:
                    break
            except (OSError, ValueError) as error:  # no connection, or no JSON
                what = str(getattr(error, "reason", error))
        raise FaultError(
            f"{url}: {what}. When the engine is well, start the same command again: it goes on from the last "
            "checkpoint."
        )


def _with_folder(value: Any, folder: str) -> Any:
    """A body with the folder's path where it says {folder}."""
    if isinstance(value, str):
        return value.replace("{folder}", folder)
    if isinstance(value, dict):
        return {key: _with_folder(item, folder) for key, item in value.items()}
    return [_with_folder(item, folder) for item in value] if isinstance(value, list) else value
