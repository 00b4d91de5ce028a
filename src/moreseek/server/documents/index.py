"""The index of a folder's passages: SQLite's full-text search with BM25, in a file that can always be made anew."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path

from moreseek.machine import cache_folder
from moreseek.server.documents.passages import Passage, find_files, fingerprint, read_passages
from moreseek.server.documents.terms import asked, dense, indexed

LOG = logging.getLogger("moreseek.server")
VERSION = "1"  # of the file and of how passages and terms are made
TITLE_WEIGHT = 2.0  # a term in a heading counts so much more than one in the text
MOST_TERMS = 24  # of a question: its rarest
COVERED = 0.3  # a passage has to hold so much of what a question asks for, terms weighted by how rare they are
OTHERS = 50  # passages about other things that are imagined: in a folder of three no word would be rare
SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE passages (id INTEGER PRIMARY KEY, file TEXT NOT NULL, line INTEGER NOT NULL, title TEXT NOT NULL,
                       text TEXT NOT NULL);
CREATE VIRTUAL TABLE terms USING fts5(title, body, content='', tokenize='porter unicode61 remove_diacritics 2');
"""


class Index:
    """Passages that can be searched, from any thread. ``count``: how many there are, of so many ``files``."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection, self._lock = connection, threading.Lock()
        [(self.count, self.files)] = self._rows("SELECT count(*), count(DISTINCT file) FROM passages")

    @classmethod
    def of(cls, folder: Path) -> Index:
        """The folder's index: the one kept in the user's cache where its documents are the same, else a new one.

        Raises InputError where a document cannot be read.
        """
        files = find_files(folder)
        wanted = f"{VERSION}-{fingerprint(folder, files)}"
        kept = cache_folder() / f"documents-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.sqlite"
        found = _opened(kept, wanted)
        if found is not None:
            return cls(found)
        passages = read_passages(folder, files)
        try:
            return cls(_kept(kept, wanted, passages))
        except OSError as error:  # it costs seconds at every start, nothing else
            LOG.warning("%s: the index cannot be kept (%s), so it is made at every start", kept, error.strerror)
            connection = sqlite3.connect(":memory:", check_same_thread=False)
            _fill(connection, wanted, read_passages(folder, files))
            return cls(connection)

    def search(self, text: str, k: int, files: Sequence[str] = ()) -> list[Passage]:
        """The passages that answer a text best, the best first; none where none holds enough of what it asks for.

        ``files``: only these, or those in these folders.
        """
        weights = self._weights(asked(text))
        seen = [term for term, (_, count) in weights.items() if count][:MOST_TERMS]
        if not seen:
            return []
        match = " OR ".join(map(_quoted, seen))
        within = " OR ".join(["p.file = ? OR substr(p.file, 1, length(?) + 1) = ? || '/'"] * len(files)) or "1"
        places = [name.strip("/") for name in files for _ in range(3)]
        rows = self._rows(
            "SELECT p.id, p.file, p.line, p.title, p.text FROM terms JOIN passages p ON p.id = terms.rowid "
            f"WHERE terms MATCH ? AND ({within}) ORDER BY bm25(terms, ?, 1.0) LIMIT ?",
            match, *places, TITLE_WEIGHT, 3 * k + 8,
        )  # fmt: skip
        covered = dict.fromkeys((row[0] for row in rows), 0.0)
        marks = ", ".join("?" * len(covered))
        for term in seen:
            held = f"SELECT rowid FROM terms WHERE terms MATCH ? AND rowid IN ({marks})"
            for (id,) in self._rows(held, _quoted(term), *covered):
                covered[id] += weights[term][0]
        least = COVERED * sum(weight for weight, _ in weights.values())
        return [Passage(*row[1:]) for row in rows if covered[row[0]] >= least][:k]

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _weights(self, terms: Iterable[str]) -> dict[str, tuple[float, int]]:
        """Of each term how much it tells, and in how many passages it is; those that tell most first.

        A pair of characters that is nowhere mostly reaches from one word into the next, so it counts little.
        """
        found: dict[str, tuple[float, int]] = {}
        for term in terms:
            [(count,)] = self._rows("SELECT count(*) FROM terms WHERE terms MATCH ?", _quoted(term))
            weight = math.log(1 + (self.count + OTHERS - count + 0.5) / (count + 0.5))
            found[term] = (weight if count or not dense(term) else weight / 4, count)
        return dict(sorted(found.items(), key=lambda item: -item[1][0]))

    def _rows(self, query: str, *values: object) -> list[tuple]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()


def _quoted(term: str) -> str:
    """A term as FTS5 takes it: between quotes nothing is an operator. (Terms have letters and digits alone.)"""
    return f'"{term}"'


def _opened(path: Path, wanted: str) -> sqlite3.Connection | None:
    """The index at a path; None where there is none, it is damaged, or of other documents."""
    if not path.is_file():
        return None
    connection = None
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)
        [(found,)] = connection.execute("SELECT value FROM facts WHERE name = 'fingerprint'").fetchall()
        if found == wanted and connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",):
            return connection
    except (sqlite3.Error, ValueError):
        LOG.warning("%s is damaged and is made anew", path)
    if connection is not None:
        connection.close()
    return None


def _kept(path: Path, wanted: str, passages: Iterable[Passage]) -> sqlite3.Connection:
    """Written beside and renamed: a reader never sees half an index, and one that has it open keeps it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(".writing", f".{path.stem}-", path.parent)
    os.close(handle)
    try:
        with closing(sqlite3.connect(name)) as connection:
            connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536")
            _fill(connection, wanted, passages)
        with Path(name).open("rb+") as file:
            os.fsync(file.fileno())
        Path(name).replace(path)
    except sqlite3.OperationalError as error:  # a full disk, for one
        raise OSError(0, str(error)) from error
    finally:
        with suppress(OSError):
            Path(name).unlink()
    found = _opened(path, wanted)
    if found is None:
        raise OSError(0, "it was changed by somebody else")
    return found


def _fill(connection: sqlite3.Connection, wanted: str, passages: Iterable[Passage]) -> None:
    connection.executescript(SCHEMA)
    with connection:
        for id, passage in enumerate(passages, 1):
            row = (id, passage.file, passage.line, passage.title, passage.text)
            connection.execute("INSERT INTO passages VALUES (?, ?, ?, ?, ?)", row)
            connection.execute(
                "INSERT INTO terms (rowid, title, body) VALUES (?, ?, ?)",
                (id, indexed(passage.title), indexed(passage.text)),
            )
        connection.execute("INSERT INTO terms (terms) VALUES ('optimize')")
        connection.execute("INSERT INTO facts VALUES ('fingerprint', ?)", (wanted,))
