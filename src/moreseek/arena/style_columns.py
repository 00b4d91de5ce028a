"""The style of the two answers of each vote: from columns of numbers, from the answers, or from a file of answers."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moreseek.arena.style import style_of
from moreseek.arena.vote_files import Batch, VoteFile
from moreseek.arena.vote_lines import STYLE
from moreseek.arena.votes import Votes
from moreseek.errors import InputError

_META = "conv_metadata."
# Of each feature the columns of a's and of b's answer. A column that holds an object counts as the sum of its parts.
_NUMBERS = {
    "tokens": (("tokens_a", "tokens_b"), (f"{_META}sum_assistant_a_tokens", f"{_META}sum_assistant_b_tokens")),
    "headers": (("headers_a", "headers_b"), (f"{_META}header_count_a", f"{_META}header_count_b")),
    "bold": (("bold_a", "bold_b"), (f"{_META}bold_count_a", f"{_META}bold_count_b")),
    "lists": (("lists_a", "lists_b"), (f"{_META}list_count_a", f"{_META}list_count_b")),
    "latency": (("latency_a", "latency_b"),),
    "cost": (("cost_a", "cost_b"),),
}
_TEXTS = (("answer_a", "answer_b"), ("response_a", "response_b"), ("conversation_a", "conversation_b"))
_NAMES, _ANSWERS = ("name", "model", "contestant"), ("answer", "response", "result", "text")
_LATENCIES = {"latency": 1.0, "latency_s": 1.0, "duration": 1e-3}  # column: seconds of one unit


def style_features(batch: Batch, file: VoteFile) -> dict[str, np.ndarray]:
    """Whatever style a batch of votes tells, feature -> (n, 2). Raises InputError that names the line."""
    columns = dict(zip(batch.header, batch.columns, strict=True))
    out: dict[str, np.ndarray] = {}
    for feature, pairs in _NUMBERS.items():
        for pair in pairs:
            sides = [_parts(columns, name) for name in pair]
            if all(sides):
                out[feature] = np.column_stack([_summed(batch, file, parts) for parts in sides])
                break
    pair = next((pair for pair in _TEXTS if all(name in columns for name in pair)), None)
    if pair is not None and not set(STYLE) <= set(out):
        counted = [[style_of(assistant_text(value)) for value in columns[name]] for name in pair]
        for feature in set(STYLE) - set(out):
            out[feature] = np.array([[style[feature] for style in side] for side in counted], np.float64).T
    return {feature: out[feature] for feature in _NUMBERS if feature in out}


def _parts(columns: Mapping[str, Sequence[Any]], name: str) -> dict[str, Sequence[Any]]:
    return {key: values for key, values in columns.items() if key == name or key.startswith(f"{name}.")}


def _summed(batch: Batch, file: VoteFile, parts: Mapping[str, Sequence[Any]]) -> np.ndarray:
    total = np.zeros(len(batch))
    for name, values in parts.items():
        for row, value in enumerate(values):
            try:
                # A vote may lack one of several parts (no h5 anywhere), but not the only one.
                absent = value is None or value == ""
                number = 0.0 if absent and len(parts) > 1 else float(value)  # pyright: ignore[reportArgumentType]
            except (TypeError, ValueError):
                number = math.nan
            if not 0 <= number < math.inf:
                raise file.fault(batch.first + row, f"column '{name}': a number from 0 up is needed, found {value!r}.")
            total[row] += number
    return total


def assistant_text(value: Any) -> str:
    """The assistant's words in an answer or a conversation."""
    if isinstance(value, list):
        return "\n".join(
            assistant_text(turn.get("content")) for turn in value
            if isinstance(turn, dict) and turn.get("role", "assistant") == "assistant"
        )  # fmt: skip
    if isinstance(value, dict):
        return assistant_text(value.get("text", value.get("content")))
    return value if isinstance(value, str) else ""


def with_answers(votes: Votes, path: Path) -> Votes:
    """The votes with the style of answers that stand in a file of their own.

    One record an answer: ``name``, ``prompt`` and ``answer`` (or result, response), optionally ``latency`` in seconds
    or ``duration`` in milliseconds. Several answers of one contestant to one prompt count by their mean. Raises
    InputError when a vote's answer is not there.
    """
    if "prompt" not in votes.labels:
        raise InputError("answers are looked up by contestant and prompt, and the votes have no column 'prompt'.")
    M, prompts = len(votes.names), votes.labels["prompt"]
    names = {name: place for place, name in enumerate(votes.names)}
    known = {name: place for place, name in enumerate(prompts.names)}
    sums: dict[str, np.ndarray] = {}
    seen = np.zeros((M, len(prompts.names)))
    for name, prompt, style in _answers(path):
        if name in names and prompt in known:
            place = (names[name], known[prompt])
            seen[place] += 1
            for feature, value in style.items():
                sums.setdefault(feature, np.zeros(seen.shape))[place] += value
    for side in (votes.a, votes.b):
        lost = np.flatnonzero((prompts.codes < 0) | (seen[side, prompts.codes] == 0))
        if len(lost):
            prompt = prompts.names[prompts.codes[lost[0]]] if prompts.codes[lost[0]] >= 0 else ""
            raise InputError(f"{path}: no answer of '{votes.names[side[lost[0]]]}' to prompt '{prompt}'.")
    features = {}
    for feature, total in sums.items():
        mean = total / np.maximum(seen, 1)
        features[feature] = np.column_stack([mean[votes.a, prompts.codes], mean[votes.b, prompts.codes]])
    return votes.with_features(features)


def _answers(path: Path) -> Iterator[tuple[str, str, dict[str, float]]]:
    file = VoteFile(path)
    for batch in file.batches():
        columns = dict(zip(batch.header, batch.columns, strict=True))
        first: Callable[[Sequence[str]], str | None] = lambda names: next((n for n in names if n in columns), None)  # noqa: B023, E731
        name, answer = first(_NAMES), first(_ANSWERS)
        if name is None or answer is None or "prompt" not in columns:
            raise file.fault(batch.first, "an answer needs name, prompt and answer (or result, response, text).")
        latency = first(tuple(_LATENCIES))
        for row in range(len(batch)):
            style: dict[str, float] = dict(style_of(assistant_text(columns[answer][row])))
            if latency is not None:
                value = columns[latency][row]
                if not isinstance(value, (int, float)):
                    raise file.fault(batch.first + row, f"column '{latency}' needs a number, found {value!r}.")
                style["latency"] = value * _LATENCIES[latency]
            yield str(columns[name][row]).strip(), str(columns["prompt"][row]), style
