"""Looking at a voter now and then, and taking out the one who fails a test."""

import hashlib

import numpy as np
from sqlalchemy import select

from moreseek.arena.live.boards import LiveBoards
from moreseek.arena.store.actions import standing
from moreseek.arena.store.database import Database
from moreseek.arena.store.tables import ends, votes
from moreseek.arena.store.voters import Voter, exclude
from moreseek.arena.trust import FEWEST, Finding, suspicious, too_fast


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
    with database.read() as connection:
        took = connection.execute(
            select(votes.c.at - ends.c.at)
            .join(ends, ends.c.battle_id == votes.c.battle_id)
            .where(votes.c.voter_id == voter.id)
            .order_by(votes.c.id)
        ).scalars().all()  # fmt: skip
        vouched = voter.id in standing(connection, "restore")
    if voter.excluded or vouched or not is_a_look(voter.pseudonym, len(took)):
        return None
    finding = too_fast(np.array(took[-100:], np.float64))
    if finding is None:
        found = boards.replay().votes()
        known = found.labels["voter"].names
        finding = suspicious(found, voter.pseudonym) if voter.pseudonym in known else None
    if finding is not None:
        with database.write() as connection:
            exclude(connection, voter.id, finding.test, finding.p, now)
    return finding
