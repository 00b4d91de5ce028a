"""From the lines of a ledger to the votes that are rated: the one way to boards, for a database and for an export."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from moreseek.arena.vote_lines import STYLE, VoteLines, tells, votes_from
from moreseek.arena.votes import OUTCOMES, Votes
from moreseek.config import did_you_mean
from moreseek.errors import InputError

START = "0" * 64
"""What the first line of a ledger follows."""
PANEL = "judges"
"""Under this name stand the battles that were fought for judges; no session leads to it."""
_KINDS = (
    "entered", "changed", "withdrawn", "vote", "undo", "voter_excluded", "voter_restored", "action", "forgotten",
    "judge", "judgement", "imported",
)  # fmt: skip


def seal(previous: str, body: str) -> str:
    """The hash of a line: of the hash before it and of its own JSON."""
    return hashlib.sha256(f"{previous}\n{body}".encode()).hexdigest()


def written(entry: dict[str, Any]) -> str:
    """A line's JSON, the same bytes on every machine."""
    return json.dumps(entry, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)


class Replay:
    """Takes entries one after another and knows at every moment who is there and which votes are rated."""

    def __init__(self, entries: Iterable[dict[str, Any]] = ()) -> None:
        self.classes: dict[str, str] = {}  # of every contestant, in order of entry
        self._places: dict[str, int] = {}
        self.families: dict[str, str] = {}
        self.withdrawn: dict[str, str] = {}
        self.apart: dict[str, int] = {}  # why votes were not rated, and how many
        self.excluded: dict[str, dict[str, Any]] = {}  # by pseudonym: the test, its p, when
        self.judges: dict[str, dict[str, Any]] = {}  # their settings
        self.settings: dict[str, dict[str, Any]] = {}  # of every contestant, as it entered
        self.imports: list[dict[str, Any]] = []  # files of another arena's votes
        self._votes: dict[str, dict[str, Any]] = {}  # by battle, in order
        self._judgements: dict[str, dict[str, dict[str, Any]]] = {}  # by judge, then by battle
        self._undone: set[str] = set()
        self._columns: VoteLines | None = None  # of the rated votes, from when they are first asked for
        for entry in entries:
            self.take(entry)

    def take(self, entry: dict[str, Any]) -> None:
        """The next line. Raises KeyError or ValueError for one that cannot be."""
        kind = entry["kind"]
        if kind == "entered":
            if entry["name"] in self.classes:
                raise ValueError(f"'{entry['name']}' enters twice")
            self._places[entry["name"]] = len(self.classes)
            self.classes[entry["name"]] = entry["class"]
            self.families[entry["name"]] = entry["family"]
            self.settings[entry["name"]] = entry["settings"]
        elif kind == "withdrawn":
            self.withdrawn[entry["name"]] = entry["reason"]
        elif kind == "vote":
            self._take_vote(entry)
        elif kind == "undo":
            if entry["battle"] not in self._votes:
                raise ValueError(f"battle {entry['battle']} has no vote to take back")
            self._undone.add(entry["battle"])
            self._columns = None
        elif kind == "voter_excluded":
            self.excluded[entry["voter"]] = entry
            self._columns = None
        elif kind == "voter_restored":
            self.excluded.pop(entry["voter"], None)
            self._columns = None
        elif kind == "judge":
            self.judges[entry["name"]] = entry["settings"]
            self._judgements[entry["name"]] = {}
        elif kind == "judgement":
            self._take_judgement(entry)
        elif kind == "imported":
            self.imports.append({key: entry[key] for key in ("at", "file", "sha256", "votes")})
        elif kind not in _KINDS:
            raise ValueError(f"a line of kind {kind!r} is none of {', '.join(_KINDS)}")

    def _take_vote(self, entry: dict[str, Any]) -> None:
        if entry["battle"] in self._votes:
            raise ValueError(f"battle {entry['battle']} has two votes")
        self._check(entry)
        if entry["set_apart"]:
            self.apart[entry["set_apart"]] = self.apart.get(entry["set_apart"], 0) + 1
        self._votes[entry["battle"]] = entry
        if self._columns is not None and self.is_rated(entry):
            self._columns.add([entry], self._places)

    def _take_judgement(self, entry: dict[str, Any]) -> None:
        judged = self._judgements[entry["judge"]]
        if entry["battle"] in judged:
            raise ValueError(f"judge '{entry['judge']}' judged battle {entry['battle']} twice")
        self._check(entry)
        judged[entry["battle"]] = entry

    def _check(self, entry: dict[str, Any]) -> None:
        for side in ("left", "right"):
            if entry[side] not in self.classes:
                raise ValueError(f"a vote on '{entry[side]}', who never entered")
        if entry["outcome"] not in OUTCOMES:
            raise ValueError(f"outcome {entry['outcome']!r} is none of {', '.join(OUTCOMES)}")

    @property
    def names(self) -> list[str]:
        """Every contestant ever entered, in order of entry."""
        return list(self.classes)

    @property
    def cast(self) -> int:
        """All votes, rated or not."""
        return len(self._votes)

    def standing(self) -> list[dict[str, Any]]:
        """The votes that were not taken back, in the order in which they were given."""
        return [vote for battle, vote in self._votes.items() if battle not in self._undone]

    def is_rated(self, vote: dict[str, Any]) -> bool:
        """Whether a standing vote counts on boards."""
        return not vote["set_apart"] and vote["voter"] not in self.excluded

    def rated(self) -> list[dict[str, Any]]:
        """The votes that count on boards, in the order in which they were given."""
        return [vote for vote in self.standing() if self.is_rated(vote)]

    def judged(self, judge: str) -> dict[str, dict[str, Any]]:
        """What a judge said, by battle. Raises InputError for a judge that there is not."""
        if judge not in self._judgements:
            raise InputError(f"no judge '{judge}'{did_you_mean(judge, list(self._judgements))}")
        return self._judgements[judge]

    def votes(self, judge: str = "") -> Votes:
        """People's votes that count, with voter, prompt, category and language; or what a judge said, without voter."""
        if judge:
            return votes_from(list(self.judged(judge).values()), self.names, ("prompt", "category", "language"))
        if self._columns is None:
            self._columns = VoteLines()
            self._columns.add(self.rated(), self._places)
        return self._columns.votes(self.names)

    def styled(self, features: Sequence[str] = STYLE) -> Votes:
        """People's votes that count and whose lines tell all of these features of the answers."""
        return votes_from([vote for vote in self.rated() if tells(vote, features)], self.names)


def read_export(path: Path) -> Replay:
    """An exported ledger, every seal checked. Raises InputError that names the first line that does not fit."""
    replay = Replay()
    for line, entry in checked_lines(path):
        try:
            replay.take(entry)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            said = f"key {error} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{path}:{line}: {said}.") from error
    return replay


def checked_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of an export, each numbered, after its seal was checked."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. `moreseek arena export` makes one.")
    previous, number = START, 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = json.loads(raw)
                entry, seal_found = line["entry"], line["hash"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f"{path}:{number}: not a line of an exported ledger.") from error
            expected = seal(previous, written(entry))
            if seal_found != expected or line.get("seq") != number or not isinstance(entry, dict):
                raise InputError(
                    f"{path}:{number}: the hash does not fit the line and those before it. A line was changed, removed "
                    "or added; nothing is computed from it."
                )
            previous = expected
            yield number, entry
    if number == 0:
        raise InputError(f"{path}: the file is empty.")
