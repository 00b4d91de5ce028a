"""Judges and their judgements."""

from alembic import op

from moreseek.arena.store.tables import judgements, judges, metadata

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make both tables."""
    metadata.create_all(op.get_bind(), [judges, judgements])


def downgrade() -> None:
    """Remove them."""
    metadata.drop_all(op.get_bind(), [judges, judgements])
