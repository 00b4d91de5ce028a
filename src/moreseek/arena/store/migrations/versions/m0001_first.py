"""The first tables, as they were then."""

from alembic import op
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

_metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_Id = BigInteger().with_variant(Integer, "sqlite")

Table(
    "contestants", _metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("family", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("quota", Integer),
    Column("settings", Text, nullable=False),
    Column("entered_at", Float, nullable=False),
    Column("withdrawn_at", Float),
    Column("withdrawn_reason", Text),
)  # fmt: skip

Table(
    "pauses", _metadata,
    Column("id", _Id, primary_key=True),
    Column("contestant_id", ForeignKey("contestants.id"), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("until", Float, nullable=False),
    Column("reason", Text, nullable=False),
)  # fmt: skip

Table(
    "voters", _metadata,
    Column("id", _Id, primary_key=True),
    Column("pseudonym", String(32), nullable=False, unique=True),
    Column("session_key", String(64), unique=True),
    Column("created_at", Float, nullable=False),
    Column("excluded_at", Float),
    Column("excluded_by", Text),
    Column("forgotten_at", Float),
)  # fmt: skip

Table(
    "battles", _metadata,
    Column("id", String(32), primary_key=True),
    Column("voter_id", ForeignKey("voters.id"), nullable=False),
    Column("address_key", String(64)),
    Column("at", Float, nullable=False),
    Column("left_id", ForeignKey("contestants.id"), nullable=False),
    Column("right_id", ForeignKey("contestants.id"), nullable=False),
    Column("across", Boolean, nullable=False),
    Column("probability", Float, nullable=False),
    Column("category", String(64), nullable=False),
    Column("language", String(8), nullable=False),
    Column("prompt_key", String(64), nullable=False),
    Column("prompt", Text),
    Index(None, "voter_id", "at"),
    Index(None, "address_key", "at"),
)  # fmt: skip

Table(
    "answers", _metadata,
    Column("battle_id", ForeignKey("battles.id"), primary_key=True),
    Column("side", SmallInteger, primary_key=True),
    Column("text", Text),
    Column("thinking", Text),
    Column("tokens", Integer),
    Column("prompt_tokens", Integer),
    Column("first_s", Float),
    Column("total_s", Float),
    Column("cost_usd", Float),
    Column("cut_short", Boolean, nullable=False),
    Column("leak", Text),
)  # fmt: skip

Table(
    "ends", _metadata,
    Column("battle_id", ForeignKey("battles.id"), primary_key=True),
    Column("at", Float, nullable=False),
    Column("how", String(16), nullable=False),
    Column("contestant_id", ForeignKey("contestants.id")),
    Column("reason", Text),
)  # fmt: skip

Table(
    "votes", _metadata,
    Column("id", _Id, primary_key=True),
    Column("battle_id", ForeignKey("battles.id"), nullable=False, unique=True),
    Column("voter_id", ForeignKey("voters.id"), nullable=False),
    Column("at", Float, nullable=False),
    Column("outcome", SmallInteger, nullable=False),
    Column("reason", Text),
    Column("set_apart", String(16)),
    Index(None, "voter_id", "at"),
)  # fmt: skip

Table(
    "undos", _metadata,
    Column("vote_id", ForeignKey("votes.id"), primary_key=True),
    Column("at", Float, nullable=False),
)  # fmt: skip

Table(
    "counts", _metadata,
    Column("board", String(64), nullable=False),
    Column("category", String(64), nullable=False),
    Column("a", ForeignKey("contestants.id"), nullable=False),
    Column("b", ForeignKey("contestants.id"), nullable=False),
    Column("outcome", SmallInteger, nullable=False),
    Column("n", BigInteger, nullable=False),
    UniqueConstraint("board", "category", "a", "b", "outcome"),
)  # fmt: skip

Table(
    "ledger", _metadata,
    Column("seq", _Id, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
    Column("hash", String(64), nullable=False),
)  # fmt: skip

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table."""
    _metadata.create_all(op.get_bind())


def downgrade() -> None:
    """Remove every table."""
    _metadata.drop_all(op.get_bind())
