"""Answers that were made for another battle are marked: what they took is counted once."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Mark none of those that are there: which of them were shown again was not written down."""
    op.add_column("answers", sa.Column("replayed", sa.Boolean, nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Without the mark."""
    op.drop_column("answers", "replayed")
