"""llama.cpp for tests: one .gguf file at a time, on one thread, keys and values in float32 unless told otherwise."""

import sys
from pathlib import Path
from typing import Any

import llama_cpp

sys.path.insert(0, str(Path(__file__).parent))
from answering import answer

_opened: dict[str, llama_cpp.Llama] = {}


def _peer() -> llama_cpp.Llama:
    return next(iter(_opened.values()))


def open_file(path: str, **options: Any) -> None:
    """``options``: of llama_cpp.Llama. The file before is closed."""
    for peer in _opened.values():
        peer.close()
    _opened.clear()
    exact = {"flash_attn": False, "type_k": 0, "type_v": 0, "n_ctx": 128, "logits_all": True}
    _opened[path] = llama_cpp.Llama(path, n_threads=1, verbose=False, **(exact | options))


def logits(ids: list[int]) -> list[list[float]]:
    """After each id: (T, V)."""
    peer = _peer()
    peer.reset()
    peer.eval(ids)
    return peer.scores[: len(ids)].tolist()


def greedy(ids: list[int], count: int) -> list[int]:
    peer = _peer()
    peer.reset()
    stream = peer.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0)
    return [token for token, _ in zip(stream, range(count), strict=False)]


def complete(ids: list[int], count: int) -> dict[str, str]:
    """The text of a completion as its users get it, and why it ended."""
    answer = _peer().create_completion(ids, max_tokens=count, temperature=0.0, repeat_penalty=1.0)
    return {key: answer["choices"][0][key] for key in ("text", "finish_reason")}


def tokenize(texts: list[str], add_bos: bool = False) -> list[list[int]]:
    return [_peer().tokenize(text.encode(), add_bos=add_bos, special=True) for text in texts]


def facts() -> dict[str, Any]:
    peer = _peer()
    return {"bos": peer.token_bos(), "eos": peer.token_eos(), "metadata": peer.metadata}


answer(open_file, logits, greedy, complete, tokenize, facts)
