"""The tables. Battles, votes and the ledger only grow; `counts` is what boards are made of.

What judges say is no vote: it stands in `judgements`, and is never counted.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only where the key's type is INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")

contestants = Table(
    "contestants", metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", String(16), nullable=False),  # base or reasoning
    Column("family", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("quota", Integer),  # most votes that it may be given; declared when it enters
    Column("settings", Text, nullable=False),  # JSON of what shapes its answers: temperature, system prompt, …
    Column("entered_at", Float, nullable=False),
    Column("withdrawn_at", Float),
    Column("withdrawn_reason", Text),
)  # fmt: skip

pauses = Table(
    "pauses", metadata,
    Column("id", _Id, primary_key=True),
    Column("contestant_id", ForeignKey("contestants.id"), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("until", Float, nullable=False),
    Column("reason", Text, nullable=False),
)  # fmt: skip

voters = Table(
    "voters", metadata,
    Column("id", _Id, primary_key=True),
    Column("pseudonym", String(32), nullable=False, unique=True),
    Column("session_key", String(64), unique=True),  # keyed hash of the cookie; NULL once forgotten
    Column("created_at", Float, nullable=False),
    Column("excluded_at", Float),
    Column("excluded_by", Text),  # the test that the voter failed
    Column("forgotten_at", Float),
)  # fmt: skip

battles = Table(
    "battles", metadata,
    Column("id", String(32), primary_key=True),  # random, so that nobody can name another's battle
    Column("voter_id", ForeignKey("voters.id"), nullable=False),
    Column("address_key", String(64)),  # keyed hash; NULL once forgotten
    Column("at", Float, nullable=False),
    Column("left_id", ForeignKey("contestants.id"), nullable=False),
    Column("right_id", ForeignKey("contestants.id"), nullable=False),
    Column("across", Boolean, nullable=False),  # of two classes
    Column("probability", Float, nullable=False),  # with which this pair was drawn, either side first
    Column("category", String(64), nullable=False),
    Column("language", String(8), nullable=False),
    Column("prompt_key", String(64), nullable=False),  # keyed hash of the question
    Column("prompt", Text),
    Index(None, "voter_id", "at"),
    Index(None, "address_key", "at"),
    Index(None, "left_id", "right_id"),
)  # fmt: skip

# What was asked after the first answers of a battle.
turns = Table(
    "turns", metadata,
    Column("battle_id", ForeignKey("battles.id"), primary_key=True),
    Column("turn", SmallInteger, primary_key=True),  # from 2
    Column("at", Float, nullable=False),
    Column("prompt", Text),
    Column("ended_at", Float),
    Column("how", String(16)),  # as of a battle's end; none while it runs
    Column("contestant_id", ForeignKey("contestants.id")),
    Column("reason", Text),
)  # fmt: skip

# Named and direct chats: that there was one, for the limits of speed. What was said is not kept.
chats = Table(
    "chats", metadata,
    Column("id", _Id, primary_key=True),
    Column("voter_id", ForeignKey("voters.id"), nullable=False),
    Column("address_key", String(64)),
    Column("at", Float, nullable=False),
    Index(None, "voter_id", "at"),
    Index(None, "address_key", "at"),
)  # fmt: skip

answers = Table(
    "answers", metadata,
    Column("battle_id", ForeignKey("battles.id"), primary_key=True),
    Column("turn", SmallInteger, primary_key=True),  # from 1
    Column("side", SmallInteger, primary_key=True),  # 0 left, 1 right
    Column("text", Text),
    Column("thinking", Text),
    Column("tokens", Integer),
    Column("prompt_tokens", Integer),
    Column("first_s", Float),  # until the first character of the answer
    Column("total_s", Float),
    Column("cost_usd", Float),
    Column("cut_short", Boolean, nullable=False),  # it reached its token limit
    Column("leak", Text),  # the words in which the answer names itself
    Column("replayed", Boolean, nullable=False, default=False),  # made for another battle, and shown here again
)  # fmt: skip

ends = Table(
    "ends", metadata,
    Column("battle_id", ForeignKey("battles.id"), primary_key=True),
    Column("at", Float, nullable=False),
    Column("how", String(16), nullable=False),  # answered, failed or abandoned
    Column("contestant_id", ForeignKey("contestants.id")),  # who failed
    Column("reason", Text),
)  # fmt: skip

votes = Table(
    "votes", metadata,
    Column("id", _Id, primary_key=True),
    Column("battle_id", ForeignKey("battles.id"), nullable=False, unique=True),
    Column("voter_id", ForeignKey("voters.id"), nullable=False),
    Column("at", Float, nullable=False),
    Column("outcome", SmallInteger, nullable=False),  # a place in votes.OUTCOMES
    Column("reason", Text),
    Column("tags", Text),  # JSON: a list of names
    Column("style", Text),  # JSON: tokens, headers, bold, lists of the left answer, and of the right one
    Column("set_apart", String(16)),  # why the vote is not rated: identity, repeat, cap, voter
    Index(None, "voter_id", "at"),
)  # fmt: skip

undos = Table(
    "undos", metadata,
    Column("vote_id", ForeignKey("votes.id"), primary_key=True),
    Column("at", Float, nullable=False),
)  # fmt: skip

judges = Table(
    "judges", metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("settings", Text, nullable=False),  # JSON of what shapes its judgements: model, prompt, …
    Column("entered_at", Float, nullable=False),
)  # fmt: skip

judgements = Table(
    "judgements", metadata,
    Column("battle_id", ForeignKey("battles.id"), primary_key=True),
    Column("judge_id", ForeignKey("judges.id"), primary_key=True),
    Column("at", Float, nullable=False),
    Column("outcome", SmallInteger, nullable=False),  # a place in votes.OUTCOMES
)  # fmt: skip

counts = Table(
    "counts", metadata,
    Column("board", String(64), nullable=False),
    Column("category", String(64), nullable=False),  # '' for all
    Column("a", ForeignKey("contestants.id"), nullable=False),
    Column("b", ForeignKey("contestants.id"), nullable=False),
    Column("outcome", SmallInteger, nullable=False),
    Column("n", BigInteger, nullable=False),
    UniqueConstraint("board", "category", "a", "b", "outcome"),
)  # fmt: skip

# What each contestant's answers took, those that were voted on, so that means need no scan.
tallies = Table(
    "tallies", metadata,
    Column("contestant_id", ForeignKey("contestants.id"), primary_key=True),
    Column("answers", BigInteger, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("first_seconds", Float, nullable=False),
    Column("counted", BigInteger, nullable=False),  # answers whose tokens are known
    Column("tokens", BigInteger, nullable=False),
    Column("priced", BigInteger, nullable=False),  # answers whose cost is known
    Column("cost_usd", Float, nullable=False),
)  # fmt: skip

# Boards as they stood at the end of each day (UTC) with votes.
history = Table(
    "history", metadata,
    Column("day", Integer, primary_key=True),  # days since 1970
    Column("board", String(64), primary_key=True),
    Column("category", String(64), primary_key=True),
    Column("contestant_id", ForeignKey("contestants.id"), primary_key=True),
    Column("rating", Float, nullable=False),
    Column("ci_low", Float, nullable=False),
    Column("ci_high", Float, nullable=False),
    Column("battles", BigInteger, nullable=False),
)  # fmt: skip

# What the house did on the admin page; each has its line in the ledger too.
actions = Table(
    "actions", metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("contestant_id", ForeignKey("contestants.id"), index=True),
    Column("voter_id", ForeignKey("voters.id"), index=True),
    Column("value", Text),
    Column("before", Text),
    Column("reason", Text, nullable=False),
    Column("undoes", ForeignKey("actions.id"), unique=True),  # the action that this one took back
)  # fmt: skip

# Addresses from which no battle begins: those of banned voters.
barred = Table(
    "barred", metadata,
    Column("address_key", String(64), primary_key=True),
    Column("action_id", ForeignKey("actions.id"), primary_key=True),
)  # fmt: skip

# How contestants that entered on the admin page are reached. (The others' endpoints are in arena.toml.)
added = Table(
    "added", metadata,
    Column("contestant_id", ForeignKey("contestants.id"), primary_key=True),
    Column("config", Text, nullable=False),  # JSON of a contestant's table in arena.toml
)  # fmt: skip

ledger = Table(
    "ledger", metadata,
    Column("seq", _Id, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    Column("hash", String(64), nullable=False),
)  # fmt: skip
