"""Columns of a file become votes: names, outcomes and labels to codes, and for a wrong value its line."""

import hashlib
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from moreseek.arena.csv_blocks import LONGEST, Fields, HashTable
from moreseek.arena.style_columns import style_features
from moreseek.arena.vote_files import Batch, VoteFile
from moreseek.arena.votes import KEEP_ALONE, OUTCOMES, SYNONYMS, Labels, Votes
from moreseek.config import did_you_mean
from moreseek.errors import InputError

_LONGEST_LABEL = 64  # a longer prompt is kept as its hash


@dataclass(frozen=True)
class Format:
    """Where a format keeps a vote. Of the optional columns the first name that a file has is taken."""

    name: str
    a: str
    b: str
    outcome: str
    optional: dict[str, tuple[str, ...]]


class Table(dict[Any, int]):
    """Values as they are written to codes; a subclass says what code a new one gets, or that it is wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.hashed = HashTable()


class NameTable(Table):
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


class OutcomeTable(Table):
    """Outcomes as they are written to codes."""

    def __missing__(self, raw: Any) -> int:
        code = SYNONYMS.get(raw.strip().lower()) if isinstance(raw, str) else None
        if code is None:
            raise ValueError(f"outcome {raw!r} is none of {', '.join(OUTCOMES)} (left, right and tie will do too)")
        self[raw] = code
        return code


class LabelTable(Table):
    """Voters, prompts and categories to codes; an empty one is no label."""

    def __init__(self) -> None:
        super().__init__()
        self.labels = 0

    def __missing__(self, raw: Any) -> int:
        absent = raw is None or raw != raw or (isinstance(raw, str) and not raw.strip())
        self[raw] = KEEP_ALONE if absent else self.labels
        self.labels += not absent
        return self[raw]


class Collected:
    """Columns that grow by batches."""

    def __init__(self, file: VoteFile, format: Format, style: bool) -> None:
        self._file, self._format, self._style = file, format, style
        self._features: dict[str, list[np.ndarray]] = {}
        self._contestants, self._outcomes = NameTable(), OutcomeTable()
        self._label_codes: dict[str, LabelTable] = {}
        self._parts: dict[str, list[np.ndarray]] = {}
        self._rows = 0

    def add(self, batch: Batch) -> None:
        """Raises InputError that names the line of the first wrong value."""
        try:
            self._add(batch)
        except InputError:
            for row in range(len(batch)):  # the first wrong row, whichever column it is wrong in
                self._add(Batch(batch.first + row, batch.header, [[column[row]] for column in batch.columns]))
            raise

    def _add(self, batch: Batch) -> None:
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
                labels = self._label_codes.setdefault(part, LabelTable())
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
