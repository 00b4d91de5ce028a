"""Battles on a fixed set of problems: every contestant answers each once, and every pair meets on each.

The pairs are compared on the same questions (a paired design), and however many pairs there are, a question costs one
answer a contestant. Sides are drawn by a hash of question and pair.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from moreseek.arena.live.contestants import Contestant
from moreseek.arena.live.endpoint import Clients, ContestantError, Reply, ask
from moreseek.arena.live.fight import as_written, names_of
from moreseek.arena.live.language import language_of
from moreseek.arena.live.roster import askable
from moreseek.arena.live.settings import ArenaSettings
from moreseek.arena.store import judges, registry
from moreseek.arena.store.battles import Answer, NewBattle
from moreseek.arena.store.database import Database
from moreseek.arena.store.registry import Registered
from moreseek.errors import FaultError, InputError
from moreseek.records import Problem

AT_ONCE = 16  # questions to one contestant
_PATIENCE = 5  # failures of a contestant, one after the other, that end the work
Progress = Callable[[int, int], None]


@dataclass
class Outcome:
    """What became of it."""

    battles: int = 0
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)  # by contestant: how many, and the last one


async def pose(
    database: Database, clients: Clients, settings: ArenaSettings, problems: Sequence[Problem], progress: Progress
) -> Outcome:
    """Fight the battles on these problems that were not fought yet, and write them down.

    Raises InputError where no two contestants are there, FaultError where one fails time after time; battles that
    were fought until then stay.
    """
    work = _Work(database, settings, problems)
    chunks = [work.missing[start : start + AT_ONCE] for start in range(0, len(work.missing), AT_ONCE)]
    for number, chunk in enumerate(chunks):
        progress(number * AT_ONCE, len(work.missing))
        await asyncio.gather(*(work.answer(clients, one, row) for one in chunk for row in work.needed(one)))
        work.write_down(chunk)
        work.check()
    return work.outcome


@dataclass(frozen=True)
class _Missing:
    """A problem, and the pairs that have not met on it."""

    problem: Problem
    key: str
    pairs: tuple[tuple[Registered, Registered], ...]


class _Work:
    """What is to be done, and what is done."""

    def __init__(self, database: Database, settings: ArenaSettings, problems: Sequence[Problem]) -> None:
        self.database, self.settings, self.outcome = database, settings, Outcome()
        self._in_a_row: dict[str, int] = {}
        with database.read() as connection:
            known = registry.registered(connection)
            self.names, self.contestants = names_of(known), askable(connection, known, settings)
            rows = [row for row in known if row.id in self.contestants]
            fought = judges.fought(connection)
            self.answers = judges.known_answers(connection)
        if len(rows) < 2:
            raise InputError("a battle needs two contestants that are neither withdrawn nor paused.")
        self.missing: list[_Missing] = []
        for problem in problems:
            key = database.question_key(problem.prompt)
            pairs = tuple(two for two in combinations(rows, 2) if (key, frozenset(r.id for r in two)) not in fought)
            if pairs:
                self.missing.append(_Missing(problem, key, pairs))

    def needed(self, one: _Missing) -> list[Registered]:
        """Who has yet to answer."""
        rows = {row.id: row for pair in one.pairs for row in pair}
        return [row for row in rows.values() if (one.key, row.id) not in self.answers]

    async def answer(self, clients: Clients, one: _Missing, row: Registered) -> None:
        """Ask, and keep the answer. One that is cut short before it says anything is an answer too: a wrong one."""
        contestant: Contestant = self.contestants[row.id]
        reply = Reply(contestant.opens_thinking)
        messages = [{"role": "user", "content": one.problem.prompt}]
        try:
            await ask(clients, contestant, messages, self.settings.arena, reply, may_be_empty=True)
        except ContestantError as error:
            count, _ = self.outcome.failures.get(row.name, (0, ""))
            self.outcome.failures[row.name] = count + 1, str(error)
            self._in_a_row[row.name] = self._in_a_row.get(row.name, 0) + 1
        else:
            self._in_a_row[row.name] = 0
            self.answers[one.key, row.id] = as_written(contestant, reply, self.names, one.problem.prompt)

    def write_down(self, chunk: Sequence[_Missing]) -> None:
        """The battles of which both answers are there."""
        now = time.time()
        with self.database.write() as connection:
            panel = judges.panel(connection, now)
            for one in chunk:
                for pair in one.pairs:
                    both = [self.answers.get((one.key, row.id)) for row in pair]
                    if both[0] is not None and both[1] is not None:
                        sides = ((pair[0], both[0]), (pair[1], both[1]))
                        self._write(connection, panel, one, sides if _kept(one.key, pair) else sides[::-1], now)

    def _write(
        self, connection: judges.Connection, panel: int, one: _Missing,
        sides: Sequence[tuple[Registered, Answer]], now: float,
    ) -> None:  # fmt: skip
        (left, first), (right, second) = sides
        category = str(one.problem.tags.get("category", "problems"))[:64]
        battle = NewBattle(
            panel, "", left.id, right.id, left.kind != right.kind, 1.0, category,
            language_of(one.problem.prompt), one.key, one.problem.prompt,
        )  # fmt: skip
        judges.write_down(connection, battle, (first, second), now)
        self.outcome.battles += 1

    def check(self) -> None:
        """Stop where a contestant fails time after time."""
        for name, failures in self._in_a_row.items():
            if failures >= _PATIENCE:
                raise FaultError(
                    f"contestant '{name}' failed {failures} times in a row: {self.outcome.failures[name][1]}. "
                    "Mend it and start the same command again: battles that were fought stay."
                )


def _kept(key: str, pair: tuple[Registered, Registered]) -> bool:
    """Whether the first of the pair stands on the left."""
    return hashlib.sha256(f"{key} {pair[0].name}\0{pair[1].name}".encode()).digest()[0] % 2 == 0
