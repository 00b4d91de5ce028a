"""Votes of another arena into a database: its contestants are marked as imported, and are never drawn.

The ledger gets one line that names the file by its hash, the contestants' and one a vote, so that boards, lists and
exports of what was imported are made as those of votes that were cast here.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, insert, select

from moreseek.arena.live.contestants import NAME
from moreseek.arena.live.language import language_of
from moreseek.arena.store import ledger, registry
from moreseek.arena.store.battles import ANSWERED
from moreseek.arena.store.counts import add_many, board_keys
from moreseek.arena.store.database import Database
from moreseek.arena.store.tables import answers, battles, ends, turns, voters, votes
from moreseek.arena.store.tables import ledger as ledger_lines
from moreseek.arena.vote_files import VoteFile
from moreseek.arena.vote_formats import batches_of, is_named, read_every_vote
from moreseek.arena.vote_lines import STYLE
from moreseek.arena.vote_texts import Said, texts_of
from moreseek.arena.votes import KEEP_ALONE, OUTCOMES, Votes
from moreseek.errors import InputError

IMPORTED = "imported"
"""The class of contestants that only imported votes are on."""
NAMED = "named"
"""Why a vote on a battle whose names were shown is set apart."""
_ENGLISH, _CHINESE = {"en", "english"}, {"zh", "chinese", "zh-cn", "zh-tw", "中文"}
_BATCH = 20_000  # rows in memory at a time, beside the columns of codes


@dataclass(frozen=True)
class Imported:
    """What became of a file."""

    votes: int
    named: int
    with_texts: int
    contestants: int
    before: float | None = None  # when the same file was imported already


def read_foreign(path: Path, format: str) -> Votes:
    """Every vote of a file, checked: nothing of it is written before. Raises InputError that names file and line."""
    found = read_every_vote(path, format, style=True)
    for place, name in enumerate(found.names):
        if not NAME.fullmatch(name):
            row = int(np.flatnonzero((found.a == place) | (found.b == place))[0])
            raise VoteFile(path).fault(
                row, f"the name {name!r}: 1 to 80 visible characters, without < and >, can stand on boards."
            )
    if "category" in found.labels:
        for code, name in enumerate(found.labels["category"].names):
            if "\x00" in name:  # a longer one than fits stands there as its hash
                row = int(np.flatnonzero(found.labels["category"].codes == code)[0])
                raise VoteFile(path).fault(row, f"the category {name!r} holds a NUL.")
    return found


def import_votes(database: Database, path: Path, format: str, found: Votes, now: float) -> Imported:
    """Write ``found``, what ``read_foreign`` read of ``path``: all of it, or nothing. The same file twice is once.

    Raises InputError where the database has contestants of its own: nobody met both them and the imported ones, so
    that one board could not compare them.
    """
    digest = _digest(path)
    with database.write() as connection:
        before = next((line for line in imports(connection) if line["sha256"] == digest), None)
        if before is not None:
            return Imported(before["votes"], 0, 0, 0, before["at"])
        own = [row.name for row in registry.registered(connection) if row.kind != IMPORTED]
        if own:
            raise InputError(
                f"the database has contestants of its own ({', '.join(own[:3])}{', …' if len(own) > 3 else ''}). "
                "Nobody met both them and the imported ones; import into a database of its own."
            )
        load = _Load(database, connection, found, digest, now)
        load.begin(path.name)
        said = 0
        for first, texts in _texts(path, format, len(found)):
            for start in range(0, len(texts), _BATCH):
                said += load.add(first + start, texts[start : start + _BATCH])
        load.count()
    return Imported(len(found), int(load.named.sum()), said, len(found.names))


def imports(connection: Connection) -> list[dict[str, Any]]:
    """The ledger's lines on imported files: file, sha256, votes, when."""
    bodies = select(ledger_lines.c.body).where(ledger_lines.c.body.like('%"kind":"imported"%'))
    lines = map(json.loads, connection.execute(bodies.order_by(ledger_lines.c.seq)).scalars())
    return [line for line in lines if line["kind"] == IMPORTED]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _texts(path: Path, format: str, count: int) -> Iterator[tuple[int, list[Said | None]]]:
    """The texts of all votes, batch by batch, each with the number of its first vote."""
    first = 0
    for _, batch in batches_of(VoteFile(path), format):
        yield first, texts_of(batch)
        first += len(batch)
    if first != count:
        raise InputError(f"{path}: the file was changed while it was read; nothing was imported.")


class _Load:
    """Rows of the tables from columns of codes."""

    def __init__(self, database: Database, connection: Connection, found: Votes, digest: str, now: float) -> None:
        self._database, self._connection, self._found, self._digest, self._now = (
            database, connection, found, digest, now
        )  # fmt: skip
        self.named = is_named(found)
        self._at = np.full(len(found), now) if found.time is None else np.where(np.isnan(found.time), now, found.time)
        self._categories = [name.strip() for name in _values(found, "category")]
        self._languages = [_language(name) for name in _values(found, "language")]
        self._pseudonyms = [f"v-{database.keyed('imported voter', name)[:16]}" for name in _values(found, "voter")]
        self._prompts = [database.question_key(name) for name in _values(found, "prompt")]
        self._voters: dict[str, int] = {}
        self._ids: list[int] = []
        self._counted: Counter[tuple[int, int, int, str, str, bool]] = Counter()

    def begin(self, file: str) -> None:
        """The line that names the file, and the contestants."""
        line = {"kind": IMPORTED, "at": self._now, "file": file, "sha256": self._digest, "votes": len(self._found)}
        ledger.append(self._connection, line)
        known = {row.name for row in registry.registered(self._connection)}
        fresh = [name for name in self._found.names if name not in known]
        registry.enter(
            self._connection, [registry.Entry(name, IMPORTED, name, "", None, {}) for name in fresh], self._now
        )
        ids = {row.name: row.id for row in registry.registered(self._connection)}
        self._ids = [ids[name] for name in self._found.names]

    def add(self, first: int, texts: Sequence[Said | None]) -> int:
        """The votes from ``first`` on, with their texts. Returns how many had answers."""
        rows = [self._row(first + i, said) for i, said in enumerate(texts)]
        self._add_voters(rows)
        put = lambda table, found: self._connection.execute(insert(table), found) if found else None  # noqa: E731
        put(battles, [{**row["battle"], "voter_id": self._voters[row["voter"]]} for row in rows])
        put(ends, [{"battle_id": row["id"], "at": row["at"], "how": ANSWERED} for row in rows])
        put(votes, [{**row["vote"], "voter_id": self._voters[row["voter"]]} for row in rows])
        put(turns, [turn for row in rows for turn in _turns(row)])
        put(answers, [answer for row in rows for answer in _answers(row)])
        ledger.append(self._connection, *(row["line"] for row in rows))
        return sum(row["said"] is not None and bool(row["said"].answers) for row in rows)

    def _row(self, place: int, said: Said | None) -> dict[str, Any]:
        found, at = self._found, float(self._at[place])
        a, b, outcome = int(found.a[place]), int(found.b[place]), int(found.outcome[place])
        name = f"{self._digest[:12]}-{place:x}"  # in the file's order, which an index takes in faster than any other
        battle = f"i-{name}"
        # A voter, or a question, of which the file says nothing stands for itself.
        voter = self._label("voter", self._pseudonyms, place) or f"v-{name}"
        prompt = self._label("prompt", self._prompts, place) or f"q-{name}"
        if said is not None:
            prompt = self._database.question_key(said.prompts[0])
        language, category = self._language(place, said), self._label("category", self._categories, place) or "other"
        apart = NAMED if self.named[place] else None
        style = _style(found, place)
        self._counted[self._ids[a], self._ids[b], outcome, category, language, apart is None] += 1
        return {
            "id": battle, "at": at, "voter": voter, "said": said,
            "battle": {
                "id": battle, "at": at, "left_id": self._ids[a], "right_id": self._ids[b], "across": False,
                "probability": 1.0, "category": category, "language": language, "prompt_key": prompt,
                "prompt": None if said is None else said.prompts[0],
            },
            "vote": {
                "battle_id": battle, "at": at, "outcome": outcome, "set_apart": apart,
                "style": json.dumps(style) if style else None,
            },
            "line": {
                "kind": "vote", "at": at, "battle": battle, "voter": voter, "prompt": prompt[:32],
                "left": found.names[a], "right": found.names[b], "outcome": OUTCOMES[outcome], "category": category,
                "language": language, "probability": 1.0, "across": False, "set_apart": apart, "style": style,
            },
        }  # fmt: skip

    def _label(self, label: str, values: list[str], place: int) -> str:
        """A vote's value of a label; nothing where the file gives none."""
        if not values:
            return ""
        code = int(self._found.labels[label].codes[place])
        return "" if code == KEEP_ALONE else values[code]

    def _language(self, place: int, said: Said | None) -> str:
        given = self._label("language", self._languages, place)
        return given or (language_of(said.prompts[0]) if said is not None else "other")

    def _add_voters(self, rows: Sequence[dict[str, Any]]) -> None:
        fresh = {row["voter"]: row["at"] for row in rows if row["voter"] not in self._voters}
        if not fresh:
            return
        names = list(fresh)
        for start in range(0, len(names), 500):  # those of a file before this one
            some = voters.c.pseudonym.in_(names[start : start + 500])
            for row in self._connection.execute(select(voters.c.id, voters.c.pseudonym).where(some)):
                self._voters[row.pseudonym] = row.id
        new = [{"pseudonym": name, "created_at": at} for name, at in fresh.items() if name not in self._voters]
        if new:
            made = self._connection.execute(insert(voters).returning(voters.c.id, voters.c.pseudonym), new)
            self._voters.update({row.pseudonym: row.id for row in made})

    def count(self) -> None:
        """The counts of all votes that were added."""
        cells: Counter[tuple[str, str, int, int, int]] = Counter()
        for (a, b, outcome, category, language, rated), n in self._counted.items():
            for key in board_keys(IMPORTED, IMPORTED, category, language, rated):
                cells[*key, a, b, outcome] += n
        add_many(self._connection, cells)


def _values(found: Votes, label: str) -> tuple[str, ...]:
    return found.labels[label].names if label in found.labels else ()


def _turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked after the first answers."""
    prompts = row["said"].prompts if row["said"] is not None and row["said"].answers else ()
    same = {"battle_id": row["id"], "at": row["at"], "ended_at": row["at"], "how": ANSWERED}
    return [{**same, "turn": turn, "prompt": prompt} for turn, prompt in enumerate(prompts[1:], start=2)]


def _answers(row: dict[str, Any]) -> list[dict[str, Any]]:
    said = row["said"]
    return [
        {"battle_id": row["id"], "turn": turn, "side": side, "text": text, "cut_short": False}
        for turn, pair in enumerate(said.answers if said is not None else (), start=1)
        for side, text in enumerate(pair)
    ]


def _style(found: Votes, place: int) -> list[list[int]] | None:
    """Tokens, headers, bold passages and list items of both sides, where the file tells them."""
    if not set(STYLE) <= set(found.features):
        return None
    sides = [[int(found.features[name][place, side]) for name in STYLE] for side in (0, 1)]
    return sides if any(sides[0]) or any(sides[1]) else None


def _language(name: str) -> str:
    """The language as boards tell them apart; nothing where none is given."""
    lower = name.strip().lower()
    return "en" if lower in _ENGLISH else "zh" if lower in _CHINESE else "other"
