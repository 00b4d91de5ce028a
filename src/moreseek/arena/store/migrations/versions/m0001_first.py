"""The first tables."""

from alembic import op

from moreseek.arena.store.tables import metadata

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make every table."""
    # A later change must copy the tables as they are now into this file, and then say what it changes in a file of its
    # own.
    metadata.create_all(op.get_bind())


def downgrade() -> None:
    """Remove every table."""
    metadata.drop_all(op.get_bind())
