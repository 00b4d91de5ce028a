"""Log-probabilities in OpenAI's two shapes. A stream's parts, put together, are those of the whole answer."""

from __future__ import annotations

from collections.abc import Sequence as Items
from itertools import accumulate
from typing import Any

from moreseek.engine.llm import LLM

LEAST = -9999.0  # in place of −∞, which JSON does not have


def of_chat(llm: LLM, tokens: Items[int], shown: Items[dict[int, float]], count: int) -> list[dict[str, Any]]:
    """Of a chat completion's tokens, with the ``count`` likeliest at each place."""
    content = []
    for token, found in zip(tokens, shown, strict=False):
        top = [_named(llm, id, value) for id, value in _likeliest(found, count)]
        content.append(_named(llm, token, found[token]) | {"top_logprobs": top})
    return content


def of_text(
    llm: LLM, tokens: Items[int], shown: Items[dict[int, float] | None], count: int, start: int = 0
) -> dict[str, Any]:
    """Of a text completion's tokens; the first token of a prompt has none. ``start``: characters before them."""
    names = [llm.tokenizer.decode([token]) for token in tokens]
    offsets = list(accumulate(map(len, names), initial=start))[: len(names)]
    top = []
    for found in shown:
        ranked = _likeliest(found, max(count, 1)) if found else []
        top.append({llm.tokenizer.decode([id]): max(value, LEAST) for id, value in ranked} if found else None)
    values = [None if found is None else max(found[token], LEAST) for token, found in zip(tokens, shown, strict=True)]
    return {"tokens": names, "token_logprobs": values, "top_logprobs": top, "text_offset": offsets}


def _likeliest(found: dict[int, float], count: int) -> list[tuple[int, float]]:
    return sorted(found.items(), key=lambda item: -item[1])[:count]


def _named(llm: LLM, token: int, logprob: float) -> dict[str, Any]:
    text = llm.tokenizer.decode([token])
    return {"token": text, "logprob": max(logprob, LEAST), "bytes": list(text.encode("utf-8", "replace"))}
