"""The history of the database, one file a step; `database.migrate` runs them with Alembic."""
