"""What `moreseek arena serve`, `export`, `import` and `forget` do, and boards of a database or an export."""

import time
from datetime import UTC, datetime
from pathlib import Path

import typer

from moreseek.arena.replay import Replay, read_export
from moreseek.errors import FaultError, InputError

_SQLITE = b"SQLite format 3\x00"


def serve(config: Path, host: str, port: int) -> None:
    """Run the site until it is stopped."""
    from moreseek.arena.live.settings import load_arena
    from moreseek.arena.web.app import build_app
    from moreseek.arena.web.arena import open_arena
    from moreseek.cli.local_models import local_models
    from moreseek.cli.site import listen, run

    sock = listen(host, port)
    with local_models(load_arena(config)) as settings:
        arena = open_arena(settings)
        there = [one for one in settings.contestant if not one.withdrawn]
        address = f"http://{host}:{sock.getsockname()[1]}/"
        typer.echo(f"{settings.arena.title}: {address} ({len(there)} contestants)", err=True)
        # The arena reads forwarding headers itself, and only from proxies that arena.toml names.
        run(build_app(arena), sock)


def is_database(where: str) -> bool:
    """Whether an argument is an arena's database and not a file of votes."""
    if "://" in where:
        return True
    try:
        with Path(where).open("rb") as file:
            return file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False


def replay_of(where: str) -> Replay:
    """The ledger of a database."""
    from moreseek.arena.store import ledger
    from moreseek.arena.store.database import open_database

    database = open_database(where)
    try:
        with database.read() as connection:
            return ledger.replay(connection)
    finally:
        database.close()


def exported(path: Path) -> Replay:
    """The ledger of an export, every seal checked."""
    return read_export(path)


def forget(where: str, voter: str | None, battle: str | None, votes: bool) -> None:
    """Erase the texts of a voter or of a battle; with ``votes`` take the voter's off every board, and recount."""
    from moreseek.arena.store import counts, voters
    from moreseek.arena.store.database import open_database

    if (voter is None) == (battle is None):
        raise InputError("name either --voter or --battle.")
    if votes and voter is None:
        raise InputError("--votes goes with --voter.")
    database = open_database(where)
    try:
        with database.write() as connection:
            if voter is not None:
                count = voters.forget_voter(connection, voter, time.time(), votes)
                if votes and counts.kept(connection) != counts.recount(connection):
                    raise FaultError(f"{where}: its counts are not those of its votes. Nothing was changed.")
                typer.echo(f"{voter}: the texts of {count} battles, its cookie and its addresses are erased.")
            elif battle is not None:
                voters.forget_battle(connection, battle, time.time())
                typer.echo(f"{battle}: its texts are erased.")
        database.scrub()
        stay = (
            "No vote of it is on a board any more; the counts equal a recount." if votes else "Votes and counts stay."
        )
        typer.echo(f"{stay} Backups and the models' own logs are beyond this command.")
    finally:
        database.close()


def export(where: str, out: Path, preferences: bool, battles: bool, judge: str | None) -> None:
    """Write the ledger, or battles with their texts, or preference pairs."""
    from moreseek.arena.store.database import open_database
    from moreseek.arena.store.export import write_battles, write_ledger, write_preferences
    from moreseek.arena.store.judges import names

    if judge is not None and not preferences:
        raise InputError("--judge goes with --preferences: a ledger holds every judge's judgements as it is.")
    if preferences and battles:
        raise InputError("name either --preferences or --battles.")
    database = open_database(where)
    try:
        if preferences:
            count = write_preferences(database, out, judge)
        else:
            count = (write_battles if battles else write_ledger)(database, out)
        with database.read() as connection:
            others = names(connection) if judge is None else []
    finally:
        database.close()
    unit = "preference pairs" if preferences else "battles" if battles else "lines"
    typer.echo(f"{out}: {count:,} {unit}.", err=True)
    if preferences and not count:
        hint = f" What a judge preferred is exported by --judge {' or --judge '.join(others)}." if others else ""
        typer.echo(f"No {'rated vote' if judge is None else 'judgement'} preferred one of two answers whose texts are "
                   f"there.{hint}", err=True)  # fmt: skip


def import_(source: Path, where: str, format: str) -> None:
    """Fill a new database from an exported ledger, or add another arena's votes."""
    from moreseek.arena.store.database import open_database
    from moreseek.arena.store.export import is_ledger, read_ledger

    if not is_ledger(source):
        _import_votes(source, where, format)
        return
    if format != "auto":
        raise InputError(f"--format is for files of votes, and {source} is an exported ledger.")
    database = open_database(where, create=True)
    try:
        count = read_ledger(database, source)
    finally:
        database.close()
    typer.echo(f"{where}: {count:,} lines.", err=True)


def _import_votes(source: Path, where: str, format: str) -> None:
    from moreseek.arena.live.foreign import import_votes, read_foreign
    from moreseek.arena.store.database import open_database

    found = read_foreign(source, format)  # before there is a database: a wrong line leaves nothing behind
    database = open_database(where, create=True, with_secret=True)
    try:
        done = import_votes(database, source, format, found, time.time())
    finally:
        database.close()
    if done.before is not None:
        when = datetime.fromtimestamp(done.before, UTC)
        typer.echo(f"{source}: imported on {when:%Y-%m-%d %H:%M} UTC already; nothing was changed.", err=True)
        return
    said = f"{where}: {done.votes:,} votes on {done.contestants:,} contestants, {done.with_texts:,} with their answers"
    named = f"; {done.named:,} on battles whose names were shown are set apart" if done.named else ""
    typer.echo(f"{said}{named}.", err=True)
