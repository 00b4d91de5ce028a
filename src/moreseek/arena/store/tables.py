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
)  # fmt: skip

answers = Table(
    "answers", metadata,
    Column("battle_id", ForeignKey("battles.id"), primary_key=True),
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

ledger = Table(
    "ledger", metadata,
    Column("seq", _Id, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    Column("hash", String(64), nullable=False),
)  # fmt: skip
