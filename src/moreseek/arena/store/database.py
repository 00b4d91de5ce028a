"""Opening the arena's database: SQLite in WAL mode, or PostgreSQL by URL; migrations; one writer at a time."""

import hashlib
import hmac
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, OperationalError

from moreseek.errors import FaultError, InputError

SECRET_VARIABLE = "MORESEEK_ARENA_SECRET"
_BUSY_MS = 10_000
_WRITERS = 7_003_321  # the number of PostgreSQL's advisory lock that writers take in turn
_ALONE = text(f"SELECT pg_advisory_xact_lock({_WRITERS})")
_MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(frozen=True)
class Database:
    """An open database, and the secret under which cookies, addresses and questions are hashed."""

    engine: Engine
    writer: Engine  # of one connection: this process's writers wait for it in turn, and hold no other meanwhile
    secret: bytes | None = None  # only what begins battles needs it

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one moment."""
        engine = self.engine
        if engine.dialect.name == "postgresql":  # by itself it would show each statement another moment
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction alone among writers, of this process and of others: all of it happens, or nothing."""
        with self.writer.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(_ALONE)
            yield connection

    @contextmanager
    def add(self) -> Iterator[Connection]:
        """A transaction that only adds rows which no other writer looks for: on PostgreSQL it waits for nobody."""
        with self.engine.begin() if self.engine.dialect.name == "postgresql" else self.write() as connection:
            yield connection

    def keyed(self, purpose: str, value: str) -> str:
        """A hash that nobody without the secret can try values against."""
        if self.secret is None:
            raise ValueError("this database was opened without its secret")
        message = f"{purpose}\0{value}".encode("utf-8", "surrogatepass")
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()

    def question_key(self, prompt: str) -> str:
        """What is the same for the same question, whatever its blanks and capitals."""
        return self.keyed("prompt", " ".join(prompt.split()).casefold())

    def scrub(self) -> None:
        """Overwrite what was deleted: SQLite leaves old texts in free pages. PostgreSQL's own vacuum does its part."""
        if self.engine.dialect.name == "sqlite":
            with self.engine.connect() as connection:
                connection.commit()
                raw: Any = connection.connection.driver_connection
                try:
                    raw.execute("VACUUM")
                    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                except sqlite3.OperationalError as error:
                    raise FaultError(
                        f"the texts are erased, but the file could not be rewritten without them ({error}). Run the "
                        "same command again when the server is idle."
                    ) from error

    def close(self) -> None:
        """Give back every connection."""
        self.engine.dispose()
        self.writer.dispose()


def open_database(where: str, *, create: bool = False, with_secret: bool = False) -> Database:
    """Open a file of SQLite or a ``postgresql://`` URL and bring its tables up to date.

    ``with_secret``: also find, or make, the secret under which cookies and addresses are hashed.

    Raises InputError where there is no arena (unless ``create``), or the file is something else.
    """
    from alembic.util import CommandError

    url = address(where)
    path = Path(where) if url.startswith("sqlite") else None
    if path is not None and not create and not path.is_file():
        raise InputError(f"{where}: no such database. `moreseek arena serve` makes one.")
    if path is not None and not path.parent.is_dir():
        raise InputError(f"{where}: the folder {path.parent} is not there.")
    engine, writer = _engine(url), _engine(url, writer=True)
    try:
        with writer.begin() as connection:
            if not create and not connection.dialect.has_table(connection, "ledger"):
                raise InputError(f"{shown(where)}: a database, but not an arena's.")
            migrate(connection)
    except CommandError as error:
        writer.dispose()
        raise InputError(f"{shown(where)}: made by a newer moreseek ({error}). Update this one.") from error
    except OperationalError as error:
        writer.dispose()
        raise FaultError(f"{shown(where)}: cannot be opened ({error.orig}).") from error
    except DatabaseError as error:
        writer.dispose()
        raise InputError(f"{shown(where)}: not a database of an arena ({error.orig}).") from error
    return Database(engine, writer, _secret(path) if with_secret else None)


def address(where: str) -> str:
    """The database's URL: what is not a URL is a file of SQLite."""
    if "://" not in where:
        return f"sqlite:///{where}"
    url = where.replace("postgresql://", "postgresql+psycopg://", 1).replace("postgres://", "postgresql+psycopg://", 1)
    try:
        backend = make_url(url).get_backend_name()
    except ArgumentError as error:
        raise InputError(f"{shown(where)}: not the URL of a database.") from error
    if backend != "postgresql":
        raise InputError(f"{shown(where)}: name a file (SQLite) or a postgresql:// URL.")
    return url


def shown(where: str) -> str:
    """The database's name without a password."""
    scheme, there, rest = where.partition("://")
    return f"{scheme}://…@{rest.rpartition('@')[2]}" if there and "@" in rest else where


def _engine(url: str, writer: bool = False) -> Engine:
    options: dict[str, Any] = {"hide_parameters": True}
    if writer:
        options |= {"pool_size": 1, "max_overflow": 0, "pool_timeout": _BUSY_MS / 1000}
    if not url.startswith("sqlite"):
        try:
            return create_engine(url, pool_pre_ping=True, **options)
        except ImportError as error:
            raise InputError("PostgreSQL needs psycopg: pip install 'moreseek[arena,postgres]'.") from error
    # Connections are kept: the last one that closes would write all of the WAL back. More than are kept may be open.
    options = {"max_overflow": -1, **options}
    engine = create_engine(url, connect_args={"timeout": _BUSY_MS / 1000}, **options)

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # this module begins transactions, not the driver
        for pragma in (f"busy_timeout = {_BUSY_MS}", "journal_mode = WAL", "foreign_keys = ON", "synchronous = FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        # A transaction that reads first and writes later may find that it can do neither; IMMEDIATE asks at once.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writer else "BEGIN")

    return engine


def migrate(connection: Connection, target: str = "head") -> None:
    """Run the migrations up, or down, to ``target`` inside the connection's transaction."""
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(_MIGRATIONS))

    def steps(revision: Any, _: Any) -> Any:
        below = target != "head" and (target == "base" or _is_older(script, target, revision))
        return script._downgrade_revs(target, revision) if below else script._upgrade_revs(target, revision)

    with EnvironmentContext(Config(), script, fn=steps, destination_rev=target) as environment:
        environment.configure(connection=connection, transaction_per_migration=False)
        environment.run_migrations()


def _is_older(script: Any, target: str, revision: Any) -> bool:
    now = revision[0] if isinstance(revision, tuple) and revision else revision
    return bool(now) and target != now and target in {one.revision for one in script.walk_revisions("base", now)}


def _secret(path: Path | None) -> bytes:
    """From the environment, or from a file beside SQLite's, made when it is first needed."""
    given = os.environ.get(SECRET_VARIABLE, "")
    if given:
        if len(given) < 16:
            raise InputError(
                f"{SECRET_VARIABLE}: at least 16 characters are needed; `openssl rand -hex 32` makes some."
            )
        return given.encode()
    if path is None:
        raise InputError(
            f"{SECRET_VARIABLE} is not set: an arena on PostgreSQL hashes cookies and addresses under it, and all its "
            "servers need the same. `openssl rand -hex 32` makes one."
        )
    file = path.with_name(path.name + ".secret")
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_hex(32) + "\n")
    except FileExistsError:
        pass
    found = file.read_text(encoding="ascii").strip()
    if len(found) < 16:
        raise InputError(f"{file}: holds no secret. Restore it, or delete it (running sessions then end).")
    return found.encode()
