"""Looking at a voter now and then, and taking out the one who fails a test."""

import hashlib

import numpy as np
from sqlalchemy import func, select

from moreseek.arena.live.boards import LiveBoards
from moreseek.arena.store import vote_list
from moreseek.arena.store.actions import standing
from moreseek.arena.store.counts import ALL
from moreseek.arena.store.database import Database
from moreseek.arena.store.tables import ends, votes
from moreseek.arena.store.vote_list import Which
from moreseek.arena.store.voters import Voter, exclude
from moreseek.arena.trust import FEWEST, Finding, suspicious, too_fast
from moreseek.arena.vote_lines import votes_from


def is_a_look(pseudonym: str, cast: int) -> bool:
    """Whether to look after so many votes: about at each doubling, at times that a voter cannot foresee."""
    mark = FEWEST
    while mark <= cast:
        chosen = hashlib.sha256(f"{pseudonym} {mark}".encode()).digest()[0] / 256
        if cast == mark + int(chosen * mark):
            return True
        mark *= 2
    return False


def examine_voter(database: Database, boards: LiveBoards, voter: Voter, now: float) -> Finding | None:
    """After a vote: the tests, if it is time for them. A voter who fails one is taken out of every board."""
    own = votes.c.voter_id == voter.id
    with database.read() as connection:
        cast = connection.execute(select(func.count()).select_from(votes).where(own)).scalar_one()
        if voter.excluded or not is_a_look(voter.pseudonym, cast) or voter.id in standing(connection, "restore"):
            return None
        took = connection.execute(
            select(votes.c.at - ends.c.at)
            .join(ends, ends.c.battle_id == votes.c.battle_id)
            .where(own).order_by(votes.c.id.desc()).limit(100)
        ).scalars().all()  # fmt: skip
        known, (table,) = boards.kept.counted(connection, ("overall", ALL))
        rated = vote_list.lines(connection, Which(), vote_list.rated(Which()).where(own).order_by(votes.c.id))
    finding = too_fast(np.array(took, np.float64))
    if finding is None:
        mine = votes_from(rated, [row.name for row in known], ())
        others = table.copy()
        np.subtract.at(others, (mine.a, mine.b, mine.outcome), 1)
        finding = suspicious(others, mine)
    if finding is not None:
        with database.write() as connection:
            exclude(connection, voter.id, finding.test, finding.p, now)
    return finding
