"""Out of a database and into one: the ledger, seal by seal, and preference pairs for training."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from moreseek.arena.replay import PANEL, Replay, checked_lines, read_export, seal, written
from moreseek.arena.store import actions
from moreseek.arena.store import ledger as chain
from moreseek.arena.store.battle_log import battle_lines
from moreseek.arena.store.battles import ANSWERED
from moreseek.arena.store.counts import add_many, board_keys
from moreseek.arena.store.database import Database
from moreseek.arena.store.judges import names as judges_of
from moreseek.arena.store.tables import (
    answers,
    battles,
    contestants,
    ends,
    judgements,
    judges,
    ledger,
    turns,
    undos,
    voters,
    votes,
)
from moreseek.arena.votes import A_WINS, B_WINS, OUTCOMES
from moreseek.config import did_you_mean
from moreseek.errors import InputError


def write_ledger(database: Database, out: Path) -> int:
    """Every line of the ledger with its seal. A database whose chain is broken is not exported."""

    def sealed() -> Iterator[str]:
        previous = chain.START
        with database.read() as connection:
            for seq, entry, found in chain.lines(connection):
                previous = seal(previous, written(entry))
                if previous != found:
                    raise InputError(
                        f"the ledger's line {seq} does not fit its hash: the database was changed by hand."
                    )
                yield json.dumps({"seq": seq, "entry": entry, "hash": found}, sort_keys=True)

    return _write(out, sealed())


def write_preferences(database: Database, out: Path, judge: str | None = None) -> int:
    """One JSON line for each two answers of which one was preferred and whose texts were not forgotten."""
    return _write(out, (json.dumps(pair, ensure_ascii=False) for pair in preferences(database, judge)))


def write_battles(database: Database, out: Path) -> int:
    """One JSON line for each battle whose vote is rated, with its texts."""
    return _write(out, (json.dumps(line, ensure_ascii=False) for line in battle_lines(database)))


def preferences(database: Database, judge: str | None = None) -> Iterator[dict[str, Any]]:
    """Preference pairs, as records.Preference reads them: of people's votes, or of what one judge said.

    Votes kept apart and those of excluded voters give none. Where several people judged the same two answers, the pair
    is what more of them preferred, once, and ``votes`` says how many were for it, against it, and for neither; where as
    many were for either, there is none. Nor does a battle of several turns give one: each side had a conversation of
    its own. A judge's pairs are never mixed with people's, and each of its lines names it.

    Raises InputError where there is no such judge.
    """
    with database.read() as connection:
        if judge is not None and judge not in (known := judges_of(connection)):
            raise InputError(f"no judge '{judge}' has judged here{did_you_mean(judge, known)}")
        said: dict[bytes, Counter[int]] = {}  # of two answers: votes for the one that sorts first, the other, neither
        for row in _with_texts(connection, judge):
            said.setdefault(_two_answers(row), Counter())[_preferred(row)] += 1
        for row in _with_texts(connection, judge):
            votes_ = said.pop(_two_answers(row), None)
            if votes_ is None or votes_[0] == votes_[1]:
                continue
            counted = {"for": max(votes_[0], votes_[1]), "against": min(votes_[0], votes_[1]), "neither": votes_[2]}
            left_is_better = (votes_[0] > votes_[1]) == (row.left < row.right)
            sides = ("left", "right") if left_is_better else ("right", "left")
            yield {
                "prompt": row.prompt, **_told(row, "chosen", sides[0]), **_told(row, "rejected", sides[1]),
                "category": row.category, "language": row.language, "battle": row.id, "votes": counted,
                **({} if judge is None else {"judge": judge}),
            }  # fmt: skip


def _told(row: Any, name: str, side: str) -> dict[str, Any]:
    """An answer with its thinking, which a model that is trained on it would otherwise learn to leave out."""
    told = {name: getattr(row, side)}
    if thinking := getattr(row, f"{side}_thinking"):
        told[f"{name}_reasoning"] = thinking
    if getattr(row, f"{side}_cut_short"):
        told[f"{name}_truncated"] = True
    return told


def _with_texts(connection: Connection, judge: str | None) -> Iterator[Any]:
    """The rated votes (or a judge's judgements) on battles of one turn whose answers are there and differ, in order."""
    left, right = answers.alias(), answers.alias()
    found = votes if judge is None else judgements
    chosen = (
        select(battles.c.id, battles.c.prompt, battles.c.category, battles.c.language, found.c.outcome,
               left.c.text.label("left"), right.c.text.label("right"),
               left.c.thinking.label("left_thinking"), right.c.thinking.label("right_thinking"),
               left.c.cut_short.label("left_cut_short"), right.c.cut_short.label("right_cut_short"))
        .join(battles, battles.c.id == found.c.battle_id)
        .join(left, (left.c.battle_id == battles.c.id) & (left.c.side == 0) & (left.c.turn == 1))
        .join(right, (right.c.battle_id == battles.c.id) & (right.c.side == 1) & (right.c.turn == 1))
        .outerjoin(turns, (turns.c.battle_id == battles.c.id) & (turns.c.turn == 2))
        .where(turns.c.turn.is_(None), battles.c.prompt.is_not(None), left.c.text != right.c.text)
    )  # fmt: skip
    for side in (left, right):  # one that was cut before it said anything is nothing to learn from
        chosen = chosen.where((side.c.text != "") | (side.c.thinking != "") | side.c.cut_short.is_(False))
    if judge is None:
        chosen = (
            chosen.join(voters, voters.c.id == votes.c.voter_id)
            .outerjoin(undos, undos.c.vote_id == votes.c.id)
            .where(votes.c.set_apart.is_(None), undos.c.vote_id.is_(None), voters.c.excluded_at.is_(None))
            .order_by(votes.c.id)
        )
    else:
        chosen = (
            chosen.join(judges, judges.c.id == judgements.c.judge_id)
            .where(judges.c.name == judge)
            .order_by(battles.c.at, battles.c.id)
        )
    yield from connection.execute(chosen).yield_per(500)


def _two_answers(row: Any) -> bytes:
    """What is the same for the same two answers to a question, whichever stood on the left."""
    both = json.dumps([row.prompt, *sorted((row.left, row.right))])
    return hashlib.blake2b(both.encode(), digest_size=16).digest()


def _preferred(row: Any) -> int:
    """0: the answer that sorts first, 1: the other, 2: neither."""
    if row.outcome not in (A_WINS, B_WINS):
        return 2
    return int((row.outcome == A_WINS) != (row.left < row.right))


def _write(out: Path, lines: Iterable[str]) -> int:
    """All lines, or no file: what is half-written never gets the name."""
    half = out.with_name(out.name + ".part")
    count = 0
    try:
        with half.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
                count += 1
        half.replace(out)
    finally:
        with suppress(FileNotFoundError):
            half.unlink()
    return count


def is_ledger(source: Path) -> bool:
    """Whether a file is an exported ledger, also a damaged one, and not a file of votes."""
    if not source.is_file():
        return False
    with source.open("rb") as file:
        first = file.readline(1 << 20)
    try:
        line = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(line, dict) and {"seq", "entry", "hash"} <= line.keys()


def read_ledger(database: Database, source: Path) -> int:
    """Fill an empty database from an export: all of it, or, where a line is wrong, nothing.

    Texts are not in an export, so the battles come without them.
    """
    read_export(source)  # every seal and every line is checked before anything is written
    with database.write() as connection:
        if connection.execute(select(func.count()).select_from(ledger)).scalar_one():
            raise InputError("the database has a ledger of its own; import an export into a new one.")
        load = _Load(connection)
        number, previous = 0, chain.START
        for number, entry in checked_lines(source):
            load.take(entry)
            body = written(entry)
            previous = seal(previous, body)
            connection.execute(insert(ledger), {"seq": number, "body": body, "hash": previous})
        load.count(Replay(entry for _, entry in checked_lines(source)))
        return number


class _Load:
    """Rows from the ledger's entries."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._contestants: dict[str, int] = {}
        self._voters: dict[str, int] = {}
        self._judges: dict[str, int] = {}
        self._battles: set[str] = set()

    def take(self, entry: dict[str, Any]) -> None:
        getattr(self, f"_{entry['kind']}")(entry)

    def _insert(self, table: Any, row: dict[str, Any]) -> int:
        return self._connection.execute(insert(table).returning(table.c.id), row).scalar_one()

    def _entered(self, entry: dict[str, Any]) -> None:
        self._contestants[entry["name"]] = self._insert(contestants, {
            "name": entry["name"], "kind": entry["class"], "family": entry["family"], "model": entry["model"],
            "quota": entry["quota"], "entered_at": entry["at"],
            "settings": json.dumps(entry["settings"], sort_keys=True),
        })  # fmt: skip

    def _imported(self, entry: dict[str, Any]) -> None:
        """A file of another arena's votes: its line in the ledger is all there is of it."""

    def _changed(self, entry: dict[str, Any]) -> None:
        after = entry["after"]
        values = {"quota": after["quota"], "settings": json.dumps(after["settings"], sort_keys=True)}
        self._connection.execute(update(contestants).where(contestants.c.name == entry["name"]).values(values))

    def _withdrawn(self, entry: dict[str, Any]) -> None:
        values = {"withdrawn_at": entry["at"], "withdrawn_reason": entry["reason"]}
        self._connection.execute(update(contestants).where(contestants.c.name == entry["name"]).values(values))

    def _voter(self, pseudonym: str, now: float) -> int:
        if pseudonym not in self._voters:
            self._voters[pseudonym] = self._insert(voters, {"pseudonym": pseudonym, "created_at": now})
        return self._voters[pseudonym]

    def _battle(self, entry: dict[str, Any], voter: int) -> None:
        self._battles.add(entry["battle"])
        self._connection.execute(insert(battles), {
            "id": entry["battle"], "voter_id": voter, "at": entry["at"], "across": entry["across"],
            "left_id": self._contestants[entry["left"]], "right_id": self._contestants[entry["right"]],
            "probability": entry["probability"], "category": entry["category"], "language": entry["language"],
            "prompt_key": entry["prompt"],
        })  # fmt: skip
        self._connection.execute(insert(ends), {"battle_id": entry["battle"], "at": entry["at"], "how": ANSWERED})

    def _vote(self, entry: dict[str, Any]) -> None:
        voter = self._voter(entry["voter"], entry["at"])
        self._battle(entry, voter)
        self._insert(votes, {
            "battle_id": entry["battle"], "voter_id": voter, "at": entry["at"],
            "outcome": OUTCOMES.index(entry["outcome"]), "set_apart": entry["set_apart"],
            "style": json.dumps(entry["style"]) if entry.get("style") else None,
        })  # fmt: skip

    def _judge(self, entry: dict[str, Any]) -> None:
        settings = json.dumps(entry["settings"], sort_keys=True)
        row = {"name": entry["name"], "settings": settings, "entered_at": entry["at"]}
        self._judges[entry["name"]] = self._insert(judges, row)

    def _judgement(self, entry: dict[str, Any]) -> None:
        if entry["battle"] not in self._battles:  # a battle of people has its vote before it is judged
            self._battle(entry, self._voter(PANEL, entry["at"]))
        row = {
            "battle_id": entry["battle"], "judge_id": self._judges[entry["judge"]], "at": entry["at"],
            "outcome": OUTCOMES.index(entry["outcome"]),
        }  # fmt: skip
        self._connection.execute(insert(judgements), row)

    def _undo(self, entry: dict[str, Any]) -> None:
        vote = self._connection.execute(select(votes.c.id).where(votes.c.battle_id == entry["battle"])).scalar_one()
        self._connection.execute(insert(undos), {"vote_id": vote, "at": entry["at"]})

    def _voter_excluded(self, entry: dict[str, Any]) -> None:
        values = {"excluded_at": entry["at"], "excluded_by": entry["test"]}
        self._connection.execute(update(voters).where(voters.c.pseudonym == entry["voter"]).values(values))

    def _voter_restored(self, entry: dict[str, Any]) -> None:
        values = {"excluded_at": None, "excluded_by": None}
        self._connection.execute(update(voters).where(voters.c.pseudonym == entry["voter"]).values(values))

    def _action(self, entry: dict[str, Any]) -> None:
        if entry["voter"]:
            self._voter(entry["voter"], entry["at"])
        actions.read_line(self._connection, entry)

    def _forgotten(self, entry: dict[str, Any]) -> None:
        if "voter" in entry:
            values = {"forgotten_at": entry["at"]}
            self._connection.execute(update(voters).where(voters.c.pseudonym == entry["voter"]).values(values))

    def count(self, replay: Replay) -> None:
        """The counts, from the votes as they stand in the end."""
        cells: Counter[tuple[str, str, int, int, int]] = Counter()
        for vote in replay.standing():
            left, right = vote["left"], vote["right"]
            kinds = replay.classes[left], replay.classes[right]
            ids = self._contestants[left], self._contestants[right]
            for key in board_keys(*kinds, vote["category"], vote["language"], replay.is_rated(vote)):
                cells[*key, *ids, OUTCOMES.index(vote["outcome"])] += 1
        add_many(self._connection, cells)
