"""Which columns of a file are the vote: our own format, and those of llmfao, LMArena and FastChat."""

import hashlib
import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from moreseek.arena.csv_blocks import LONGEST, Fields, HashTable
from moreseek.arena.style_columns import style_features
from moreseek.arena.vote_files import Batch, VoteFile
from moreseek.arena.votes import A_WINS, B_WINS, KEEP_ALONE, OUTCOMES, SYNONYMS, TIE, Labels, Votes
from moreseek.config import did_you_mean
from moreseek.errors import InputError

FORMATS = ("auto", "llmfao", "lmarena", "fastchat")
_LONGEST_LABEL = 64  # a longer prompt is kept as its hash


@dataclass(frozen=True)
class Format:
    """Where a format keeps a vote. Of the optional columns the first name that a file has is taken."""

    name: str
    a: str
    b: str
    outcome: str
    optional: dict[str, tuple[str, ...]]


_COMMON = {
    "voter": ("voter", "worker", "judge", "judge_hash", "user", "user_id", "evaluation_session_id", "ip"),
    "prompt": ("prompt", "prompt_id", "question", "conversation_a", "conversation"),
    "category": ("category",),
    "language": ("language",),
    "time": ("time", "timestamp", "tstamp"),
}
_OWN = Format("moreseek", "a", "b", "outcome", _COMMON)
_LLMFAO = Format("llmfao", "left", "right", "winner", _COMMON)
_LMARENA = Format("lmarena", "model_a", "model_b", "winner", _COMMON)
_FASTCHAT = Format("fastchat", "model_a", "model_b", "winner", _COMMON)
_ONE_HOT = ("winner_model_a", "winner_model_b", "winner_tie")
_RAW_VOTES = {"leftvote", "rightvote", "tievote", "bothbad_vote"}


def read_votes(path: Path, format: str = "auto", style: bool = False, fast: bool = True) -> Votes:
    """All votes of a file; nothing of it when a line is wrong. Raises InputError that names file and line.

    ``style`` also reads, or counts in the answers, what style control needs. ``fast`` False has Python's own csv
    reader read every row: the slow twin.
    """
    if format not in FORMATS:
        raise InputError(f"--format {format}: no such format{did_you_mean(format, FORMATS)}")
    file = VoteFile(path, fast)
    collected: _Collected | None = None
    for batch in file.batches():
        raw = "type" in batch.header and "models" in batch.header
        if raw and format in ("auto", "fastchat"):
            batch = _from_log(batch, file)
        elif set(_ONE_HOT) <= set(batch.header) and "winner" not in batch.header:
            batch = _from_one_hot(batch, file)
        if collected is None:
            collected = _Collected(file, _choose(file, batch.header, format), style)
        collected.add(batch)
    if collected is None:
        raise InputError(f"{path}: a header but no votes.")
    return collected.votes()


def _choose(file: VoteFile, header: Sequence[str], wanted: str) -> Format:
    known = {"auto": (_OWN, _LLMFAO, _LMARENA), "llmfao": (_LLMFAO,), "lmarena": (_LMARENA,), "fastchat": (_FASTCHAT,)}
    for candidate in known[wanted]:
        if {candidate.a, candidate.b, candidate.outcome} <= set(header):
            return candidate
    needed = " or ".join(f"{each.a}, {each.b}, {each.outcome}" for each in known[wanted])
    shown = ", ".join(header[:12])
    raise (
        file.fault(0, f"no columns {needed}; found {shown}.")
        if file.is_json
        else InputError(f"{file.path}:1: the header needs the columns {needed}; found {shown}.")
    )


class Table(dict[Any, int]):
    """Values as they are written to codes; a subclass says what code a new one gets, or that it is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.hashed = HashTable()


class _Names(Table):
    """Contestants as they are written to codes; spaces around a name and its Unicode form make no difference."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, int] = {}

    def __missing__(self, raw: Any) -> int:
        if not isinstance(raw, str) or not (name := unicodedata.normalize("NFC", raw).strip()):
            raise ValueError(f"a contestant's name is needed, found {raw!r}")
        try:
            name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"the name {raw!r} holds half of a character (a lone surrogate)") from error
        self[raw] = self.known.setdefault(name, len(self.known))
        return self[raw]


class _Outcomes(Table):
    """Outcomes as they are written to codes."""

    def __missing__(self, raw: Any) -> int:
        code = SYNONYMS.get(raw.strip().lower()) if isinstance(raw, str) else None
        if code is None:
            raise ValueError(f"outcome {raw!r} is none of {', '.join(OUTCOMES)} (left, right and tie will do too)")
        self[raw] = code
        return code


class _LabelCodes(Table):
    """Voters, prompts and categories to codes; an empty one is no label."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = 0

    def __missing__(self, raw: Any) -> int:
        absent = raw is None or raw != raw or (isinstance(raw, str) and not raw.strip())
        self[raw] = KEEP_ALONE if absent else self.labels
        self.labels += not absent
        return self[raw]


class _Collected:
    """Columns that grow by batches."""

    def __init__(self, file: VoteFile, format: Format, style: bool) -> None:
        self._file, self._format, self._style = file, format, style
        self._features: dict[str, list[np.ndarray]] = {}
        self._contestants, self._outcomes = _Names(), _Outcomes()
        self._label_codes: dict[str, _LabelCodes] = {}
        self._parts: dict[str, list[np.ndarray]] = {}
        self._rows = 0

    def add(self, batch: Batch) -> None:
        """Raises InputError that names the line of the first wrong value."""
        columns = dict(zip(batch.header, batch.columns, strict=True))
        chosen = self._format
        for needed in (chosen.a, chosen.b, chosen.outcome):
            if needed not in columns:
                raise self._file.fault(batch.first, f"'{needed}' is missing{did_you_mean(needed, batch.header)}")
        for part, name, codes in (
            ("a", chosen.a, self._contestants), ("b", chosen.b, self._contestants),
            ("outcome", chosen.outcome, self._outcomes),
        ):  # fmt: skip
            self._append(
                part, self._coded(batch, columns[name], codes, name), np.int32 if part != "outcome" else np.int8
            )
        for part, names in chosen.optional.items():
            name = next((name for name in names if name in columns), None)
            if name is None:
                continue
            if part == "time":
                self._append(part, self._times(batch, columns[name], name), np.float64)
            else:
                labels = self._label_codes.setdefault(part, _LabelCodes())
                self._append(part, labels_of(columns[name], labels), np.int32)
        if self._style:
            for feature, pair in style_features(batch, self._file).items():
                self._features.setdefault(feature, []).append(pair)
        self._rows += len(batch)

    def _append(self, part: str, values: np.ndarray, dtype: Any) -> None:
        if part not in self._parts:
            missing = np.full(self._rows, np.nan if dtype is np.float64 else KEEP_ALONE, dtype)
            self._parts[part] = [missing] if self._rows else []
        self._parts[part].append(values.astype(dtype, copy=False))

    def _coded(self, batch: Batch, values: Sequence[Any], codes: Table, name: str) -> np.ndarray:
        try:
            return coded(values, codes)
        except (ValueError, TypeError):
            return np.fromiter(
                (self._one(batch, row, codes, value, name) for row, value in enumerate(values)), np.int32, len(values)
            )

    def _one(self, batch: Batch, row: int, codes: Table, value: Any, name: str) -> int:
        try:
            return codes[value]
        except (ValueError, TypeError) as error:
            raise self._file.fault(batch.first + row, f"column '{name}': {error}.") from error

    def _times(self, batch: Batch, values: Sequence[Any], name: str) -> np.ndarray:
        out = np.empty(len(values))
        for row, value in enumerate(values):
            try:
                out[row] = _seconds(value)
            except (TypeError, ValueError) as error:
                raise self._file.fault(
                    batch.first + row, f"column '{name}': {value!r} is neither seconds since 1970 nor a date and time."
                ) from error
        return out

    def votes(self) -> Votes:
        """Everything that was added. Parts that a later batch lacks count as not given there."""
        columns = {}
        for part, arrays in self._parts.items():
            column = np.concatenate(arrays)
            if len(column) < self._rows:
                fill = np.nan if part == "time" else KEEP_ALONE
                column = np.concatenate([column, np.full(self._rows - len(column), fill, column.dtype)])
            columns[part] = column
        labels = {
            part: Labels(columns[part], tuple(str(raw) for raw, code in codes.items() if code != KEEP_ALONE))
            for part, codes in self._label_codes.items()
        }
        joined = {feature: np.concatenate(parts) for feature, parts in self._features.items()}
        features = {feature: pair for feature, pair in joined.items() if len(pair) == self._rows}
        return Votes(
            tuple(self._contestants.known), columns["a"], columns["b"], columns["outcome"], labels, columns.get("time"),
            features,
        )  # fmt: skip


def coded(values: Sequence[Any], codes: Table) -> np.ndarray:
    """The code of each value, (n,)."""
    if isinstance(values, Fields) and values.longest <= LONGEST:
        return codes.hashed.codes(values, codes)
    return np.fromiter(map(codes.__getitem__, values), np.int32, len(values))


def labels_of(values: Sequence[Any], codes: Table) -> np.ndarray:
    """The codes of labels; a long text, or one that is not text, goes by its hash."""
    if isinstance(values, Fields) and values.longest <= _LONGEST_LABEL:
        return coded(values, codes)
    short = [
        value if not isinstance(value, (list, dict)) and (not isinstance(value, str) or len(value) <= _LONGEST_LABEL)
        else _hash(value) for value in values
    ]  # fmt: skip
    return np.fromiter(map(codes.__getitem__, short), np.int32, len(short))


def _hash(value: Any) -> str:
    text = value if isinstance(value, str) else repr(first_user_turn(value))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def first_user_turn(conversation: Any) -> Any:
    """What was asked, out of a conversation: two answers to one prompt have different conversations."""
    if isinstance(conversation, list):
        for turn in conversation:
            if isinstance(turn, dict) and turn.get("role") == "user":
                return turn.get("content")
    return conversation


def _seconds(value: Any) -> float:
    if value is None or value == "":
        return math.nan
    if isinstance(value, (int, float)):
        return float(value)
    try:
        return float(value)
    except ValueError:
        when = datetime.fromisoformat(value.strip())
        return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _from_one_hot(batch: Batch, file: VoteFile) -> Batch:
    """LMArena's competition files: three columns of 0 and 1 in place of the winner."""
    columns = dict(zip(batch.header, batch.columns, strict=True))
    names = {(1, 0, 0): OUTCOMES[A_WINS], (0, 1, 0): OUTCOMES[B_WINS], (0, 0, 1): OUTCOMES[TIE]}
    winners = []
    for row, marks in enumerate(zip(*(columns[name] for name in _ONE_HOT), strict=True)):
        try:
            winners.append(names[tuple(int(mark) for mark in marks)])  # pyright: ignore[reportArgumentType]
        except (KeyError, TypeError, ValueError):
            shown = ", ".join(map(str, marks))
            raise file.fault(
                batch.first + row, f"{', '.join(_ONE_HOT)} are {shown}; one 1 and two 0 are needed."
            ) from None
    return Batch(batch.first, (*batch.header, "winner"), [*batch.columns, winners])


def _from_log(batch: Batch, file: VoteFile) -> Batch:
    """FastChat's raw log: one event a line, of which the votes count; names that were hidden stand in the states."""
    columns = dict(zip(batch.header, batch.columns, strict=True))
    empty: Callable[[str], Sequence[Any]] = lambda name: columns.get(name) or [None] * len(batch)  # noqa: E731
    out: dict[str, list[Any]] = {"model_a": [], "model_b": [], "winner": [], "voter": [], "time": []}
    for row, (kind, models, states, ip, when) in enumerate(
        zip(*(empty(name) for name in ("type", "models", "states", "ip", "tstamp")), strict=True)
    ):
        if kind not in _RAW_VOTES:
            continue
        try:
            a, b = (name or states[place]["model_name"] for place, name in enumerate(models))
        except (TypeError, ValueError, KeyError, IndexError):
            raise file.fault(batch.first + row, "a vote without two models.") from None
        for key, value in zip(out, (a, b, kind, ip, when), strict=True):
            out[key].append(value)
    return Batch(batch.first, tuple(out), list(out.values()))
