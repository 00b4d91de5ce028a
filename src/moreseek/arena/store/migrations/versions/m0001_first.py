"""The first tables."""

from alembic import op

from moreseek.arena.store.tables import metadata

revision = "0001"
down_revision = None

_FIRST = (
    "contestants", "pauses", "voters", "battles", "answers", "ends", "votes", "undos", "counts", "ledger",
)  # fmt: skip


def upgrade() -> None:
    """Make them."""
    # Their columns are today's: a later change of one of them must copy it into this file as it is now, and then say
    # what it changes in a file of its own.
    metadata.create_all(op.get_bind(), [metadata.tables[name] for name in _FIRST])


def downgrade() -> None:
    """Remove them."""
    metadata.drop_all(op.get_bind(), [metadata.tables[name] for name in _FIRST])
