"""Votes from columns in memory, whatever holds them: a mapping, a DataFrame, a structured array, or records."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moreseek.arena.votes import A_WINS, B_WINS, KEEP_ALONE, LABELS, OUTCOMES, SYNONYMS, TIE, Codes, Labels, Votes
from moreseek.config import did_you_mean
from moreseek.errors import InputError

_FEW = 1 << 11  # so many contestants have a table of all pairs that fits in memory


def as_votes(battles: Any, names: Sequence[str] | None = None) -> Votes:
    """Votes from columns: a mapping of arrays or lists, a DataFrame, a structured array, or a sequence of records.

    ``a`` and ``b`` are names, or integer codes (places in ``names`` when that is given). ``outcome`` is one of
    model_a, model_b, tie, both_bad, or its place in that list (0..3); instead of it ``score`` may hold what the battle
    counts for a: 1, 0 or 0.5. Optional: voter, prompt, category, language, time, weight. Raises InputError that names
    column and row (counted from 0).
    """
    if isinstance(battles, Votes):
        return battles
    columns = _Columns(battles)
    a, b, found = _contestants(columns, names)
    outcome = _outcomes(columns)
    labels = {name: _labels(columns.get(name)) for name in LABELS if name in columns}
    numbers = {name: _numbers(name, columns.get(name)) for name in ("time", "weight") if name in columns}
    weight = numbers.get("weight")
    if weight is not None and not np.all(np.isfinite(weight) & (weight >= 0)):
        row = int(np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))[0])
        raise InputError(f"battles, row {row}: weight {weight[row]} is not a number from 0 up.")
    gaps = names is None and isinstance(columns.get("a"), np.ndarray)
    return Votes(found, a, b, outcome, labels, numbers.get("time"), weight=weight, gaps=gaps)


class _Columns:
    """Named columns of equal length, whatever holds them."""

    def __init__(self, battles: Any) -> None:
        if isinstance(battles, (list, tuple)):
            battles = _from_records(battles)
        names = getattr(getattr(battles, "dtype", None), "names", None)
        for listing in ("keys", "column_names", "columns"):  # a mapping or pandas, Arrow, Polars
            if names is None and hasattr(battles, listing):
                found: Any = getattr(battles, listing)
                names = list(found()) if callable(found) else list(found)  # pyright: ignore[reportArgumentType]
        if names is None:
            raise InputError("battles: columns a, b and outcome are needed: a mapping, a DataFrame or records.")
        self._battles: Any = battles
        self._names = [str(name) for name in names]
        for name in ("a", "b"):
            self.need(name)
        self.rows = len(battles["a"])
        for name in self._names:
            if (name in {"a", "b", "outcome", "score", "time", "weight"} or name in LABELS) and (
                len(battles[name]) != self.rows
            ):
                raise InputError(f"battles: column '{name}' has {len(battles[name])} rows, 'a' has {self.rows}.")

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def need(self, name: str) -> None:
        """Raises InputError when a column is not there."""
        if name not in self:
            raise InputError(f"battles: column '{name}' is missing{did_you_mean(name, self._names)}")

    def get(self, name: str) -> Any:
        """A column as a numpy array where it holds numbers, else as a list."""
        column = self._battles[name]
        if hasattr(column, "to_numpy"):
            column = column.to_numpy()
        if isinstance(column, np.ndarray):
            if column.ndim != 1:
                raise InputError(f"battles: column '{name}' has shape {column.shape}, a plain column is needed.")
            return column if column.dtype.kind in "iufb" else column.tolist()
        values = list(column)
        if values and all(isinstance(value, (int, float, np.integer, np.floating)) for value in values):
            return np.asarray(values)
        return values


def _from_records(records: Sequence[Any]) -> dict[str, list[Any]]:
    if not records:
        return {"a": [], "b": [], "outcome": []}
    columns: dict[str, list[Any]] = {}
    for row, record in enumerate(records):
        if isinstance(record, (tuple, list)) and len(record) == 3:
            record = dict(zip(("a", "b", "outcome"), record, strict=True))
        if not isinstance(record, Mapping):
            raise InputError(f"battles, row {row}: a record with a, b and outcome is needed, found {record!r}.")
        if row == 0:
            columns = {str(key): [] for key in record}
        if set(record) != set(columns):
            raise InputError(f"battles, row {row}: its keys {sorted(record)} are not row 0's, {sorted(columns)}.")
        for key, value in record.items():
            columns[key].append(value)
    return columns


def _contestants(columns: _Columns, names: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    a, b = columns.get("a"), columns.get("b")
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        for name, column in (("a", a), ("b", b)):
            if column.dtype.kind not in "iu" and len(column):
                raise InputError(f"battles: column '{name}' holds {column.dtype}; names or integer codes are needed.")
        return _coded(a.astype(np.int32, copy=False), b.astype(np.int32, copy=False), names)
    known = Codes((name, place) for place, name in enumerate(names or ()))
    found = []
    for name, column in (("a", a), ("b", b)):
        values = column.tolist() if isinstance(column, np.ndarray) else column
        before = len(known)
        try:
            found.append(known.of(values, len(values)))
        except TypeError:  # a list or the like, which no name can be
            known[()] = -1
        if not all(map(_is_name, known)):
            row, value = next((row, value) for row, value in enumerate(values) if not _is_name(value))
            raise InputError(f"battles, row {row}: column '{name}' needs a contestant's name, found {value!r}.")
        if names is not None and len(known) > before:
            stranger = list(known)[before]
            raise InputError(f"battles: '{stranger}' is not a contestant{did_you_mean(str(stranger), list(names))}")
    return found[0], found[1], tuple(str(name) for name in known)


def _is_name(value: Any) -> bool:
    return isinstance(value, (str, int, np.integer)) and value != ""


def _coded(a: np.ndarray, b: np.ndarray, names: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Contestants given as integers: places in ``names``, or the names themselves."""
    if len(a) == 0:
        return a, b, tuple(names or ())
    low, high = min(int(a.min()), int(b.min())), max(int(a.max()), int(b.max()))
    if names is not None:
        if low < 0 or high >= len(names):
            raise InputError(f"battles: code {low if low < 0 else high} is no place in the {len(names)} names.")
        return a, b, tuple(names)
    if low >= 0 and high < _FEW:
        return a, b, tuple(map(str, range(high + 1)))
    codes, places = np.unique(np.concatenate([a, b]), return_inverse=True)
    places = places.astype(np.int32).reshape(-1)
    return places[: len(a)], places[len(a) :], tuple(map(str, codes.tolist()))


def _outcomes(columns: _Columns) -> np.ndarray:
    if "outcome" not in columns and "score" in columns:
        return _from_scores(_numbers("score", columns.get("score")))
    columns.need("outcome")
    column = columns.get("outcome")
    if isinstance(column, np.ndarray):
        if len(column) == 0:
            return column.astype(np.int8)
        if column.dtype.kind not in "iu":
            raise InputError(
                "battles: column 'outcome' holds fractions; model_a, model_b, tie, both_bad (or 0 to 3) are needed. "
                "What a battle counts for a (1, 0 or 0.5) belongs in a column 'score'."
            )
        if column.min() < 0 or column.max() >= len(OUTCOMES):
            row = int(np.flatnonzero((column < 0) | (column >= len(OUTCOMES)))[0])
            raise InputError(
                f"battles, row {row}: outcome {column[row]} is not a code from 0 to 3 ({', '.join(OUTCOMES)})."
            )
        return column
    try:
        return np.fromiter(map(SYNONYMS.__getitem__, column), np.int8, len(column))
    except (KeyError, TypeError):
        return np.fromiter((_outcome(row, value) for row, value in enumerate(column)), np.int8, len(column))


def _outcome(row: int, value: Any) -> int:
    code = SYNONYMS.get(value.strip().lower()) if isinstance(value, str) else None
    if code is None:
        raise InputError(f"battles, row {row}: outcome {value!r} is none of {', '.join(OUTCOMES)}.")
    return code


def _from_scores(scores: np.ndarray) -> np.ndarray:
    known = np.isin(scores, (0.0, 0.5, 1.0))
    if not known.all():
        row = int(np.flatnonzero(~known)[0])
        raise InputError(f"battles, row {row}: score {scores[row]} is not 1 (a won), 0 (b won) or 0.5 (a tie).")
    return np.select([scores == 1.0, scores == 0.0], [A_WINS, B_WINS], TIE).astype(np.int8)


def _numbers(name: str, column: Any) -> np.ndarray:
    try:
        return np.asarray(column, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"battles: column '{name}' needs numbers ({error}).") from error


def _labels(column: Any) -> Labels:
    values = column.tolist() if isinstance(column, np.ndarray) else column
    codes = Codes()
    found = np.fromiter(
        (KEEP_ALONE if _absent(value) else codes[value] for value in values), np.int32, len(values)
    )  # (n,)
    return Labels(found, tuple(str(value) for value in codes))


def _absent(value: Any) -> bool:
    return value is None or value == "" or value != value
