"""Judges at work: the battles that one has not judged, one after the other, written down as it goes."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from moreseek.arena.live.posing import Progress
from moreseek.arena.store import judges
from moreseek.arena.store.database import Database
from moreseek.arena.store.judges import Battle, Told
from moreseek.arena.votes import A_WINS, B_WINS, BOTH_BAD, TIE
from moreseek.errors import FaultError
from moreseek.records import Problem
from moreseek.rewards.rubric import Rubric, VerifierSettings

_AT_ONCE = 8


class BudgetSpentError(Exception):
    """A judge may not go on."""


class UndecidedError(Exception):
    """A judge could not judge a battle: the text says why."""


class Judge(Protocol):
    """Who judges battles."""

    name: str

    @property
    def settings(self) -> dict[str, Any]:
        """What shapes its judgements, for the ledger."""
        ...

    def knows(self, battle: Battle) -> bool:
        """Whether it can judge this one."""
        ...

    async def outcome(self, battle: Battle) -> int:
        """A place in OUTCOMES. Raises UndecidedError or BudgetSpentError."""
        ...


@dataclass
class Tally:
    """What became of the battles."""

    judged: int = 0
    undecided: int = 0
    last_reason: str = ""
    spent: bool = False  # the budget ended before the battles did


async def judge_battles(database: Database, judge: Judge, voted: bool, progress: Progress) -> Tally:
    """Have a judge judge every battle that it knows and has not judged."""
    tally = Tally()
    with database.write() as connection:
        number = judges.enter(connection, judge.name, judge.settings, time.time())
    with database.read() as connection:
        waiting = [battle for battle in judges.unjudged(connection, number, voted) if judge.knows(battle)]
    for start in range(0, len(waiting), _AT_ONCE):
        progress(start, len(waiting))
        chunk = waiting[start : start + _AT_ONCE]
        said = await asyncio.gather(*(judge.outcome(battle) for battle in chunk), return_exceptions=True)
        judged: list[tuple[Battle, int]] = []
        for battle, outcome in zip(chunk, said, strict=True):
            if isinstance(outcome, int):
                judged.append((battle, outcome))
            elif isinstance(outcome, UndecidedError):
                tally.undecided, tally.last_reason = tally.undecided + 1, str(outcome)
            elif isinstance(outcome, BudgetSpentError):
                tally.spent = True
            else:
                raise outcome
        with database.write() as connection:
            tally.judged += judges.record(connection, number, judge.name, judged, time.time())
        if tally.spent:
            break
        if len(chunk) == _AT_ONCE and all(isinstance(outcome, UndecidedError) for outcome in said):
            raise FaultError(
                f"judge '{judge.name}' could judge none of {len(chunk)} battles in a row: {tally.last_reason}. Mend "
                "it and start the same command again: what was judged stays."
            )
    return tally


class VerifierJudge:
    """Says right or wrong of both answers, by each problem's own verifier."""

    def __init__(self, name: str, database: Database, problems: Sequence[Problem]) -> None:
        self.name = name
        self._problems = {database.question_key(problem.prompt): problem for problem in problems}
        self._rubric = Rubric([VerifierSettings(name="answer")])

    @property
    def settings(self) -> dict[str, Any]:
        """Nothing but the problems' own verifiers shapes it."""
        return {"kind": "verifier"}

    def knows(self, battle: Battle) -> bool:
        """Whether the question is one of the problems, whose answer is known."""
        return battle.prompt_key in self._problems

    async def outcome(self, battle: Battle) -> int:
        """Two right answers are a tie, two wrong ones both bad. A verifier that fails judges nothing."""
        problem = self._problems[battle.prompt_key]
        scores = self._rubric.score_many([(problem, _message(told)) for told in battle.told])
        for score in scores:
            if score.reward is None:
                raise UndecidedError(f"the verifier failed: {'; '.join(score.errors.values())}")
        left, right = (score.reward == 1.0 for score in scores)  # partial credit is not right
        if left == right:
            return TIE if left else BOTH_BAD
        return A_WINS if left else B_WINS


def _message(told: Told) -> str:
    """The whole assistant message, as verifiers see it."""
    return f"<think>{told.thinking}</think>{told.text}" if told.thinking else told.text
