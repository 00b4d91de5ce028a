"""Judges: who they are, the battles that are fought for them, and what they said. None of it is a vote."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from moreseek.arena.replay import PANEL
from moreseek.arena.store import battles as stored_battles
from moreseek.arena.store import ledger
from moreseek.arena.store.battles import ANSWERED, Answer, NewBattle
from moreseek.arena.store.tables import (
    answers,
    battles,
    contestants,
    ends,
    judgements,
    judges,
    turns,
    undos,
    voters,
    votes,
)
from moreseek.arena.votes import OUTCOMES
from moreseek.errors import InputError


@dataclass(frozen=True)
class Told:
    """What a side of a battle wrote."""

    text: str
    thinking: str
    leak: str | None


@dataclass(frozen=True)
class Battle:
    """A battle as a judge sees it; the names are for the ledger."""

    id: str
    prompt: str
    prompt_key: str
    category: str
    language: str
    probability: float
    across: bool
    left: str
    right: str
    told: tuple[Told, Told]


def enter(connection: Connection, name: str, settings: dict[str, Any], now: float) -> int:
    """The judge's number. Raises InputError where its name stands for a judge of other settings."""
    row = connection.execute(select(judges).where(judges.c.name == name)).first()
    if row is not None:
        before = json.loads(row.settings)
        changed = [key for key in {**before, **settings} if before.get(key) != settings.get(key)]
        if changed:
            raise InputError(
                f"judge '{name}' judged with another {', '.join(sorted(changed))} before: one board would mix both. "
                "Give the new one a name of its own."
            )
        return row.id
    values = {"name": name, "settings": json.dumps(settings, sort_keys=True), "entered_at": now}
    number = connection.execute(insert(judges).returning(judges.c.id), values).scalar_one()
    ledger.append(connection, {"kind": "judge", "at": now, "name": name, "settings": settings})
    return number


def names(connection: Connection) -> list[str]:
    """Every judge, in order of entry."""
    return list(connection.execute(select(judges.c.name).order_by(judges.c.id)).scalars())


def panel(connection: Connection, now: float) -> int:
    """Whose the battles are that are fought for judges: a voter that no session leads to."""
    found = connection.execute(select(voters.c.id).where(voters.c.pseudonym == PANEL)).scalar()
    if found is None:
        row = {"pseudonym": PANEL, "created_at": now}
        found = connection.execute(insert(voters).returning(voters.c.id), row).scalar_one()
    return found


def fought(connection: Connection) -> set[tuple[str, frozenset[int]]]:
    """The questions (their keys) and pairs (numbers of contestants) of the battles fought for judges so far."""
    chosen = (
        select(battles.c.prompt_key, battles.c.left_id, battles.c.right_id)
        .join(voters, voters.c.id == battles.c.voter_id)
        .where(voters.c.pseudonym == PANEL)
    )
    return {(row.prompt_key, frozenset((row.left_id, row.right_id))) for row in connection.execute(chosen)}


def known_answers(connection: Connection) -> dict[tuple[str, int], Answer]:
    """What contestants answered in those battles, by the question's key and the contestant's number."""
    chosen = (
        select(answers, battles.c.prompt_key, battles.c.left_id, battles.c.right_id)
        .join(battles, battles.c.id == answers.c.battle_id)
        .join(voters, voters.c.id == battles.c.voter_id)
        .where(voters.c.pseudonym == PANEL, answers.c.text.is_not(None))
    )
    found = {}
    for row in connection.execute(chosen):
        contestant = row.right_id if row.side else row.left_id
        found[row.prompt_key, contestant] = Answer(**{key: getattr(row, key) for key in Answer.__dataclass_fields__})
    return found


def write_down(connection: Connection, battle: NewBattle, both: tuple[Answer, Answer], now: float) -> None:
    """A battle that was fought for judges, begun and ended in one."""
    stored_battles.finish(connection, stored_battles.begin(connection, battle, now), both, now)


def unjudged(connection: Connection, judge_id: int, voted: bool) -> list[Battle]:
    """The answered battles that a judge has not judged: those fought for judges, with ``voted`` also people's.

    Of people's only those with a vote that stands and of one turn: a vote on several is not on the two answers that a
    judge sees. None whose texts were forgotten.
    """
    left, right = answers.alias(), answers.alias()
    a, b = contestants.alias(), contestants.alias()
    own = judgements.alias()
    whose = voters.c.pseudonym == PANEL
    if voted:
        whose |= votes.c.id.is_not(None) & undos.c.vote_id.is_(None)
    chosen = (
        select(battles, a.c.name.label("a"), b.c.name.label("b"),
               left.c.text.label("left_text"), left.c.thinking.label("left_thinking"), left.c.leak.label("left_leak"),
               right.c.text.label("right_text"), right.c.thinking.label("right_thinking"),
               right.c.leak.label("right_leak"))
        .join(ends, (ends.c.battle_id == battles.c.id) & (ends.c.how == ANSWERED))
        .join(voters, voters.c.id == battles.c.voter_id)
        .join(a, a.c.id == battles.c.left_id).join(b, b.c.id == battles.c.right_id)
        .join(left, (left.c.battle_id == battles.c.id) & (left.c.side == 0) & (left.c.turn == 1))
        .join(right, (right.c.battle_id == battles.c.id) & (right.c.side == 1) & (right.c.turn == 1))
        .outerjoin(votes, votes.c.battle_id == battles.c.id).outerjoin(undos, undos.c.vote_id == votes.c.id)
        .outerjoin(turns, (turns.c.battle_id == battles.c.id) & (turns.c.turn == 2))
        .outerjoin(own, (own.c.battle_id == battles.c.id) & (own.c.judge_id == judge_id))
        .where(own.c.battle_id.is_(None), turns.c.turn.is_(None), whose, battles.c.prompt.is_not(None))
        .order_by(battles.c.at, battles.c.id)
    )  # fmt: skip
    return [_battle(row) for row in connection.execute(chosen)]


def _battle(row: Any) -> Battle:
    told = (
        Told(row.left_text or "", row.left_thinking or "", row.left_leak),
        Told(row.right_text or "", row.right_thinking or "", row.right_leak),
    )
    return Battle(
        row.id, row.prompt, row.prompt_key, row.category, row.language, row.probability, row.across, row.a, row.b, told
    )


def record(connection: Connection, judge_id: int, name: str, judged: Sequence[tuple[Battle, int]], now: float) -> int:
    """What a judge said, each with its line in the ledger. What it said of a battle before stays. Returns how many."""
    # Another process may have judged meanwhile.
    these = judgements.c.battle_id.in_([battle.id for battle, _ in judged]), judgements.c.judge_id == judge_id
    known = set(connection.execute(select(judgements.c.battle_id).where(*these)).scalars())
    fresh = [(battle, outcome) for battle, outcome in judged if battle.id not in known]
    for battle, outcome in fresh:
        row = {"battle_id": battle.id, "judge_id": judge_id, "at": now, "outcome": outcome}
        connection.execute(insert(judgements), row)
        ledger.append(connection, {
            "kind": "judgement", "at": now, "judge": name, "battle": battle.id, "prompt": battle.prompt_key[:32],
            "left": battle.left, "right": battle.right, "outcome": OUTCOMES[outcome], "category": battle.category,
            "language": battle.language, "probability": battle.probability, "across": battle.across,
        })  # fmt: skip
    return len(fresh)
