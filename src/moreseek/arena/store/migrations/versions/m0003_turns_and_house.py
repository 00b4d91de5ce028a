"""Turns, chats, tags, style, tallies, history; what the house does on the admin page."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_NEW = ("turns", "chats", "tallies", "history", "barred", "actions", "added")


def upgrade() -> None:
    """Answers belong to a turn; the new tables, and the tallies of answers that were voted on."""
    with op.batch_alter_table("answers", recreate="always") as answers:
        answers.add_column(sa.Column("turn", sa.SmallInteger, nullable=False, server_default="1"))
        answers.drop_constraint("pk_answers", type_="primary")
        answers.create_primary_key("pk_answers", ["battle_id", "turn", "side"])
    with op.batch_alter_table("answers") as answers:
        answers.alter_column("turn", server_default=None)
    op.add_column("votes", sa.Column("tags", sa.Text))
    op.add_column("votes", sa.Column("style", sa.Text))
    op.create_index("ix_battles_left_id_right_id", "battles", ["left_id", "right_id"])
    _make_talk()
    _make_boards()
    _make_house()
    op.execute(_TALLY.format(side="left_id", n=0))
    op.execute(
        _TALLY.format(side="right_id", n=1) + " ON CONFLICT (contestant_id) DO UPDATE SET "
        + ", ".join(f"{key} = tallies.{key} + excluded.{key}" for key in _SUMS)
    )  # fmt: skip


_SUMS = ("answers", "seconds", "first_seconds", "counted", "tokens", "priced", "cost_usd")
_TALLY = (
    "INSERT INTO tallies SELECT b.{side}, COUNT(*), SUM(a.total_s), SUM(a.first_s), COUNT(a.tokens), "
    "COALESCE(SUM(a.tokens), 0), COUNT(a.cost_usd), COALESCE(SUM(a.cost_usd), 0) FROM answers a "
    "JOIN battles b ON b.id = a.battle_id JOIN votes v ON v.battle_id = b.id WHERE a.side = {n} GROUP BY b.{side}"
)


def downgrade() -> None:
    """Back to one turn a battle; what was said in later turns is lost."""
    op.execute("DELETE FROM answers WHERE turn > 1")
    with op.batch_alter_table("answers", recreate="always") as answers:
        answers.drop_constraint("pk_answers", type_="primary")
        answers.drop_column("turn")
        answers.create_primary_key("pk_answers", ["battle_id", "side"])
    op.drop_column("votes", "tags")
    op.drop_column("votes", "style")
    op.drop_index("ix_battles_left_id_right_id", "battles")
    for name in _NEW:
        op.drop_table(name)


def _contestant(**options: bool) -> sa.Column[int]:
    return sa.Column("contestant_id", sa.Integer, sa.ForeignKey("contestants.id"), **options)  # pyright: ignore


def _make_talk() -> None:
    op.create_table(
        "turns",
        sa.Column("battle_id", sa.String(32), sa.ForeignKey("battles.id"), primary_key=True),
        sa.Column("turn", sa.SmallInteger, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("prompt", sa.Text),
        sa.Column("ended_at", sa.Float),
        sa.Column("how", sa.String(16)),
        _contestant(),
        sa.Column("reason", sa.Text),
    )
    op.create_table(
        "chats",
        sa.Column("id", _Id, primary_key=True),
        sa.Column("voter_id", _Id, sa.ForeignKey("voters.id"), nullable=False),
        sa.Column("address_key", sa.String(64)),
        sa.Column("at", sa.Float, nullable=False),
    )
    op.create_index("ix_chats_voter_id_at", "chats", ["voter_id", "at"])
    op.create_index("ix_chats_address_key_at", "chats", ["address_key", "at"])


def _make_boards() -> None:
    op.create_table(
        "tallies",
        _contestant(primary_key=True),
        sa.Column("answers", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("first_seconds", sa.Float, nullable=False),
        sa.Column("counted", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("priced", sa.BigInteger, nullable=False),
        sa.Column("cost_usd", sa.Float, nullable=False),
    )
    op.create_table(
        "history",
        sa.Column("day", sa.Integer, primary_key=True),
        sa.Column("board", sa.String(64), primary_key=True),
        sa.Column("category", sa.String(64), primary_key=True),
        _contestant(primary_key=True),
        sa.Column("rating", sa.Float, nullable=False),
        sa.Column("ci_low", sa.Float, nullable=False),
        sa.Column("ci_high", sa.Float, nullable=False),
        sa.Column("battles", sa.BigInteger, nullable=False),
    )


def _make_house() -> None:
    op.create_table(
        "actions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        _contestant(index=True),
        sa.Column("voter_id", _Id, sa.ForeignKey("voters.id"), index=True),
        sa.Column("value", sa.Text),
        sa.Column("before", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("undoes", sa.Integer, sa.ForeignKey("actions.id"), unique=True),
    )
    op.create_table(
        "barred",
        sa.Column("address_key", sa.String(64), primary_key=True),
        sa.Column("action_id", sa.Integer, sa.ForeignKey("actions.id"), primary_key=True),
    )
    op.create_table("added", _contestant(primary_key=True), sa.Column("config", sa.Text, nullable=False))
