"""Files of votes as batches of columns: CSV, TSV, JSON Lines, or one JSON array. Errors know file and line."""

import csv
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from moreseek.arena.csv_blocks import BLOCK, split
from moreseek.errors import InputError

BATCH = 1 << 16  # rows held as Python objects at a time
_LONGEST_FIELD = 1 << 26


@dataclass(frozen=True)
class Batch:
    """Rows that follow one another in a file. ``first`` counts records from 0."""

    first: int
    header: tuple[str, ...]
    columns: Sequence[Sequence[Any]]  # as many as the header

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0


class VoteFile:
    """A file of votes: its batches, and the line of any record. ``fast`` False has Python's reader read everything."""

    def __init__(self, path: Path, fast: bool = True) -> None:
        if path.is_dir():
            raise InputError(f"{path}: a folder, not a file of votes.")
        if not path.is_file():
            raise InputError(f"{path}: no such file. Name a file of votes: .csv, .tsv, .jsonl or .json.")
        self.path, self.fast = path, fast
        with path.open("rb") as file:
            start = file.read(1 << 12)
        if start[:4] in (b"PAR1", b"PK\x03\x04") or start[:2] == b"\x1f\x8b":
            raise InputError(f"{path}: packed or binary; convert it to CSV or JSON Lines first.")
        self._first = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
        line = start.split(b"\n", 1)[0]
        self._delimiter = b"\t" if b"\t" in line and b"," not in line else b","

    @property
    def is_json(self) -> bool:
        """Records are JSON objects, and not rows of a table."""
        return self._first in (b"{", b"[")

    def batches(self) -> Iterator[Batch]:
        """All records in order. Raises InputError that names file and line."""
        if not self._first:
            raise InputError(f"{self.path}:1: the file is empty; a header with the names of the columns is needed.")
        try:
            yield from self._json_batches() if self.is_json else self._table_batches()
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}:{self._undecodable()}: not UTF-8. Save the file as UTF-8.") from error

    def fault(self, record: int, message: str) -> InputError:
        """The error for one record (from 0), with the line on which it begins."""
        return InputError(f"{self.path}:{self._line(record)}: {message}")

    # ------------------------------------------------------------------------------------------------------ tables

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        """Every row with the line on which it begins, header included."""
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = self._reader(file)
            line = 1
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + 1

    def _reader(self, file: Any) -> Any:
        return csv.reader(file, delimiter=self._delimiter.decode(), strict=True)

    def _table_batches(self) -> Iterator[Batch]:
        longest = csv.field_size_limit(_LONGEST_FIELD)
        try:
            header = self._header()
            done = yield from self._plain_batches(header)
            if done is not None:
                yield from self._quoted_batches(header, done)
        except csv.Error as error:
            line = self._unreadable()
            raise InputError(f"{self.path}:{line}: {error}. Quote fields that hold commas or quotes.") from error
        finally:
            csv.field_size_limit(longest)

    def _header(self) -> tuple[str, ...]:
        _, row = next(self._rows(), (1, None))
        if row is None:  # Python reads the beginning of a byte order mark as nothing at all
            raise InputError(f"{self.path}:1: the file ends before its header.")
        header = tuple(name.strip() for name in row)
        doubled = sorted({name for name in header if header.count(name) > 1})
        if doubled:
            raise InputError(f"{self.path}:1: column '{doubled[0]}' stands twice in the header.")
        return header

    def _plain_batches(self, header: tuple[str, ...]) -> Generator[Batch, None, int | None]:
        """The rows below the header by the block; the number read before one that needs Python's reader, else None."""
        first = 0
        with self.path.open("rb") as file:
            line = file.readline()
            if not self.fast or not line.strip() or b'"' in line or b"\r" in line.removesuffix(b"\r\n"):
                return 0
            rest = b""
            while more := file.read(BLOCK):
                whole, newline, rest = (rest + more).rpartition(b"\n")
                columns = split(whole + newline, self._delimiter, len(header)) if newline else []
                if columns is None:
                    return first
                if columns:
                    yield Batch(first, header, columns)
                    first += len(columns[0])
            columns = split(rest + b"\n", self._delimiter, len(header)) if rest else []
            if columns:
                yield Batch(first, header, columns)
            return first if columns is None else None

    def _quoted_batches(self, header: tuple[str, ...], done: int) -> Iterator[Batch]:
        """The rows after the first ``done``, by Python's reader."""
        with self.path.open(encoding="utf-8-sig", newline="", buffering=1 << 20) as file:
            reader = filter(None, self._reader(file))  # without blank lines
            for _ in islice(reader, done + 1):
                pass
            fault: Exception | None = None
            while fault is None:
                rows, fault = _readable(reader)
                even = next((place for place, row in enumerate(rows) if len(row) != len(header)), len(rows))
                if even < len(rows):
                    found = f"{len(rows[even])} fields, but the header has {len(header)}."
                    fault = self.fault(done + even, found)
                if even:  # first the rows above the fault: one of them may be wrong too
                    yield Batch(done, header, list(zip(*rows[:even], strict=True)))
                elif fault is None:
                    return
                done += even
            raise fault

    # -------------------------------------------------------------------------------------------------------- JSON

    def _json_batches(self) -> Iterator[Batch]:
        records: list[dict[str, Any]] = []
        first = 0
        for _, record in self._records():
            records.append(record)
            if len(records) == BATCH:
                yield _columns(first, records)
                first, records = first + len(records), []
        if records:
            yield _columns(first, records)

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every JSON record with the line on which it begins."""
        found = self._array() if self._first == b"[" else self._lines()
        for line, record in found:
            if not isinstance(record, dict):
                raise InputError(f"{self.path}:{line}: a JSON object is needed, found {type(record).__name__}.")
            yield line, record

    def _lines(self) -> Iterator[tuple[int, Any]]:
        with self.path.open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                if text:
                    try:
                        yield number, json.loads(text)
                    except (json.JSONDecodeError, RecursionError) as error:
                        raise InputError(f"{self.path}:{number}: not a JSON object on one line ({error}).") from error

    def _array(self) -> Iterator[tuple[int, Any]]:
        text = self.path.read_text(encoding="utf-8-sig")
        decoder = json.JSONDecoder()
        place, line = text.index("[") + 1, 1
        counted = 0
        while True:
            while place < len(text) and text[place] in " \t\r\n,":
                place += 1
            line, counted = line + text.count("\n", counted, place), place
            if place >= len(text):
                raise InputError(f"{self.path}:{line}: the JSON array has no end; the file is cut short.")
            if text[place] == "]":
                return
            try:
                record, place = decoder.raw_decode(text, place)
            except (json.JSONDecodeError, RecursionError) as error:
                raise InputError(f"{self.path}:{line}: not valid JSON ({error}).") from error
            yield line, record

    # ------------------------------------------------------------------------------------------------------- lines

    def _line(self, record: int) -> int:
        """Read again up to a record: only an error pays for it."""
        found = self._records() if self.is_json else islice(self._rows(), 1, None)
        longest = csv.field_size_limit(_LONGEST_FIELD)
        try:
            return next(islice(found, record, None))[0]
        finally:
            csv.field_size_limit(longest)

    def _unreadable(self) -> int:
        """The line on which the first row begins that the CSV reader refuses."""
        line = 1
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            reader = self._reader(file)
            try:
                for _ in reader:
                    line = reader.line_num + 1
            except csv.Error:
                pass
        return line

    def _undecodable(self) -> int:
        with self.path.open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                try:
                    raw.decode("utf-8")
                except UnicodeDecodeError:
                    return number
        return 1


def _readable(reader: Iterator[list[str]]) -> tuple[list[list[str]], csv.Error | None]:
    """At most BATCH rows, and the error of the one below them if it cannot be read."""
    rows: list[list[str]] = []
    try:
        for row in islice(reader, BATCH):
            rows.append(row)
    except csv.Error as error:
        return rows, error
    return rows, None


def _columns(first: int, records: list[dict[str, Any]]) -> Batch:
    """Records as columns; a record without a key has None there. Nested objects become a.b.c."""
    flat = [_flat(record) for record in records]
    header = tuple(dict.fromkeys(key for record in flat for key in record))
    return Batch(first, header, [[record.get(key) for record in flat] for key in header])


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    if not any(isinstance(value, dict) for value in record.values()) and not prefix:
        return record
    out: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            out.update(_flat(value, f"{prefix}{key}."))
        else:
            out[f"{prefix}{key}"] = value
    return out
