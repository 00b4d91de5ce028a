"""How to sample, and what comes back. No torch in here.

Requests come from strangers, so every value is checked here once, by its type too, and sizes before they are walked.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, Literal, get_args

from moreseek.errors import InputError

MOST_COMPLETIONS = 1_024
MOST_TOP_LOGPROBS = 1_000
MOST_STOPS, LONGEST_STOP = 64, 1_000
MOST_BIASES, LARGEST_BIAS = 16_384, 100.0
MOST_STOP_IDS = 16_384
LONGEST_STRUCTURE = 200_000
LARGEST_ID = 2**31 - 1
LEAST_TEMPERATURE = 1e-5  # below it is greedy: one over it must stay a float when logits are multiplied by it

StructureKind = Literal["json_schema", "json_object", "regex", "choice", "grammar"]
FinishReason = Literal["stop", "length"]
OFF: dict[str, float] = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""Penalties that change nothing."""


@dataclass(frozen=True)
class Structure:
    """What the text of a completion must look like, after the thinking.

    ``text`` is the JSON schema, nothing (json_object: any object), the regular expression, a JSON list of strings
    (choice), or the Lark grammar. Whether it is a valid one is told when it is compiled (engine/structured.py).
    """

    kind: StructureKind
    text: str = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(StructureKind):
            raise InputError(f"structured: kind {self.kind!r} is unknown. Known: {', '.join(get_args(StructureKind))}.")
        if not isinstance(self.text, str):
            raise InputError(f"structured: the text of a {self.kind} must be a string, not {_type(self.text)}.")
        if len(self.text) > LONGEST_STRUCTURE:
            raise InputError(
                f"structured: this {self.kind} has {len(self.text):,} characters; {LONGEST_STRUCTURE:,} are the most."
            )

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool) -> "Structure":
        """From a schema as Python values. Raises InputError where it is not JSON."""
        return cls("json_schema", _dump("json_schema", schema))

    @classmethod
    def choice(cls, choices: Sequence[str]) -> "Structure":
        """One of these strings, exactly."""
        return cls("choice", _dump("choice", list(choices)))


@dataclass(frozen=True)
class SamplingParams:
    """Settings of one request. Raises InputError for a value of the wrong type or outside its range.

    Comparable and hashable; a list or a mapping that is handed in is copied.

    Attributes:
        temperature: 0 is greedy, and so is what is below 0.00001.
        top_p, top_k, min_p: keep the most likely tokens: with this much mass together; this many (0 = off);
            at least this share of the best one's probability (0 = off). Applied after the temperature.
        max_tokens, min_tokens: before ``min_tokens`` no stop id is sampled and no stop string ends the text.
        seed: the same seed gives the same text whatever else is in the batch.
        n: completions a prompt; number i is sampled with seed + i.
        stop_token_ids, ignore_eos: further ids that end the text; whether the model's own end ids do not.
        stop, include_stop: strings (one, or several) that end the text; whether they stay in it.
        repetition_penalty: above 1 makes tokens of the prompt and the completion less likely (CTRL's rule: positive
            logits are divided by it, negative ones multiplied).
        presence_penalty, frequency_penalty: taken from the logits of tokens of the completion: once, and once for
            each time that they stand there.
        logit_bias: id → added to its logit, −100 … 100.
        logprobs: how many of the model's likeliest tokens to return at each place, in ``Completion.top_logprobs``;
            0 = the chosen token alone; None = none. See there which distribution that is.
        prompt_logprobs: also return the same for the tokens of the prompt.
        thinking_budget: most tokens between <think> and </think>; then </think> is written for the model.
        structured: what the text must look like (after the thinking).
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    seed: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    n: int = 1
    min_p: float = 0.0
    min_tokens: int = 0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    stop: str | Sequence[str] = ()
    include_stop: bool = False
    logprobs: int | None = None
    prompt_logprobs: bool = False
    thinking_budget: int | None = None
    structured: Structure | None = None

    def __post_init__(self) -> None:
        self._number("temperature", 0, 100, "between 0 (greedy) and 100")
        if self.temperature < LEAST_TEMPERATURE:
            self._set("temperature", 0.0)
        self._number("top_p", 0, 1, "above 0 and at most 1", above=True)
        self._number("min_p", 0, 1, "between 0 (off) and 1")
        self._number("repetition_penalty", 0.01, 100, "between 0.01 and 100 (1 = off)")
        self._number("presence_penalty", -100, 100, "between −100 and 100 (0 = off)")
        self._number("frequency_penalty", -100, 100, "between −100 and 100 (0 = off)")
        self._integer("top_k", 0, LARGEST_ID, "0 (off) or more")
        self._integer("max_tokens", 1, LARGEST_ID, "at least 1")
        self._integer("min_tokens", 0, LARGEST_ID, "0 (off) or more")
        self._integer("seed", -(2**63), 2**64 - 1, "an integer of at most 64 bits")
        self._integer("n", 1, MOST_COMPLETIONS, f"between 1 and {MOST_COMPLETIONS:,}")
        if self.logprobs is not None:
            self._integer("logprobs", 0, MOST_TOP_LOGPROBS, f"None (off), or between 0 and {MOST_TOP_LOGPROBS:,}")
        if self.thinking_budget is not None:
            self._integer("thinking_budget", 0, LARGEST_ID, "None (off), or 0 or more tokens")
        if self.min_tokens > self.max_tokens:
            raise InputError(f"min_tokens {self.min_tokens} must not be above max_tokens {self.max_tokens}.")
        for name in ("ignore_eos", "include_stop", "prompt_logprobs"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be true or false, not {_type(getattr(self, name))}.")
        if self.structured is not None and not isinstance(self.structured, Structure):
            raise InputError(f"structured must be a Structure or None, not {_type(self.structured)}.")
        self._set("stop_token_ids", _checked_ids(self.stop_token_ids))
        self._set("stop", _checked_stops(self.stop))
        self._set("logit_bias", _checked_biases(self.logit_bias))

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """``stop`` as it is kept: always a tuple."""
        return tuple(self.stop)

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken."""
        return self.temperature == 0

    @property
    def truncates(self) -> bool:
        """Whether unlikely tokens are left out. Greedy choice has none to leave out."""
        return not self.greedy and (self.top_k > 0 or self.top_p < 1 or self.min_p > 0)

    @property
    def penalizes(self) -> bool:
        """Whether tokens of the text so far change the logits."""
        return any(getattr(self, name) != off for name, off in OFF.items())

    @property
    def single(self) -> bool:
        """Whether each token must be known before the next one is guessed."""
        return not self.plain or self.logprobs is not None or bool(self.stop)

    @property
    def plain(self) -> bool:
        """Whether temperature alone decides, so that no Shaper is needed (engine/logits.py)."""
        edits = self.penalizes or self.truncates or self.logit_bias or self.min_tokens
        return not edits and self.thinking_budget is None and self.structured is None

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _number(self, name: str, low: float, high: float, right: str, *, above: bool = False) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Real):
            raise InputError(f"{name} must be a number {right}, not {_type(value)}.")
        if not low <= _float(value) <= high or (above and value == low):  # NaN is not either
            raise InputError(f"{name} {_short(value)} must be {right}.")
        self._set(name, float(value))

    def _integer(self, name: str, low: int, high: int, right: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise InputError(f"{name} must be an integer, {right}, not {_type(value)}.")
        if not low <= int(value) <= high:
            raise InputError(f"{name} {_short(value)} must be {right}.")
        self._set(name, int(value))


@dataclass
class Completion:
    """What the model wrote after one prompt.

    Attributes:
        logprobs: of each token under the distribution that it was **sampled from**: after bias, penalties, masks,
            temperature and truncation; greedy tokens at temperature 1. This is what reinforcement learning needs.
        top_logprobs: at each place {id: log-probability} of the likeliest tokens and the chosen one under the
            **model's own** distribution: the log-softmax of its raw logits, before anything above. This is what API
            clients expect. The values of the likeliest and of the chosen token come from one subtraction, so where
            they are the same token they are bit-equal. None where it was not asked for.
        prompt_logprobs: as top_logprobs, for the tokens of the prompt; its first entry is None.
        finish_reason: "stop" (an end id or a stop string) or "length".
    """

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: FinishReason = "length"
    text: str = ""
    top_logprobs: list[dict[int, float]] | None = None
    prompt_logprobs: list[dict[int, float] | None] | None = None


def _checked_ids(ids: Any) -> tuple[int, ...]:
    _check_size("stop_token_ids", ids, MOST_STOP_IDS)
    for id in ids:
        _check_id("stop_token_ids", id)
    return tuple(int(id) for id in ids)


def _checked_stops(stops: Any) -> tuple[str, ...]:
    if isinstance(stops, str):
        stops = (stops,)
    _check_size("stop", stops, MOST_STOPS)
    for stop in stops:
        if not isinstance(stop, str):
            raise InputError(f"stop must be a string or several, not {_type(stop)}.")
        if not stop:
            raise InputError("stop holds an empty string, which would end every text at once. Leave it out.")
        if len(stop) > LONGEST_STOP:
            raise InputError(f"stop holds a string of {len(stop):,} characters; {LONGEST_STOP:,} are the most.")
    return tuple(dict.fromkeys(stops))


def _checked_biases(biases: Any) -> dict[int, float]:
    if not isinstance(biases, Mapping):
        raise InputError(f"logit_bias must map token ids to numbers, not be {_type(biases)}.")
    _check_size("logit_bias", biases, MOST_BIASES)
    for id, bias in biases.items():
        _check_id("logit_bias", id)
        if isinstance(bias, bool) or not isinstance(bias, Real) or not abs(_float(bias)) <= LARGEST_BIAS:
            raise InputError(
                f"logit_bias of id {id} is {_short(bias)}; it must be a number between −{LARGEST_BIAS:g} (as good as "
                f"never) and {LARGEST_BIAS:g}."
            )
    return {int(id): float(bias) for id, bias in biases.items()}


def _check_size(name: str, values: Any, most: int) -> None:
    """Before anybody walks it. A set or a dict is a collection too; an iterator has no size and is refused."""
    if isinstance(values, str | bytes) or not isinstance(values, Collection):
        raise InputError(f"{name} must be a list, not {_type(values)}.")
    if len(values) > most:
        raise InputError(f"{name} holds {len(values):,} entries; {most:,} are the most.")


def _check_id(name: str, id: Any) -> None:
    if isinstance(id, bool) or not isinstance(id, Integral):
        raise InputError(f"{name} needs token ids, which are integers, not {_type(id)}.")
    if not 0 <= int(id) <= LARGEST_ID:
        raise InputError(f"{name} holds {_short(id)}, which is no token id: they start at 0.")


def _dump(kind: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"structured: this {kind} is not JSON ({error}).") from error


def _float(value: Real) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _type(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _short(value: object) -> str:
    """A value as a message shows it: a number of a million digits would be a message of a million characters."""
    if isinstance(value, Integral) and abs(int(value)) >= 10**20:
        return f"with about {int(int(value).bit_length() * math.log10(2)) + 1:,} digits"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
