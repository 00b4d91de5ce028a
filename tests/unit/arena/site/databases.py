"""SQLite, and a PostgreSQL of the tests' own where its programs are installed."""

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest


def _program(name):
    found = shutil.which(name)
    return found or next(map(str, sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))), None)


@contextmanager
def postgresql():
    """A URL of a fresh server that listens on a socket of its own; skips where there is none."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # a socket's path must be short
    try:
        with _started(folder) as url:
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _started(folder):
    initdb, control = _program("initdb"), _program("pg_ctl")
    if initdb is None or control is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    user = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        import pwd

        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("PostgreSQL needs an account that is not root")
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
        os.chown(folder, account.pw_uid, account.pw_gid)
    run = lambda *command: subprocess.run(command, check=True, capture_output=True, cwd="/", timeout=60, **user)  # noqa: E731
    data = str(folder / "data")
    run(initdb, "-D", data, "-U", "arena", "-A", "trust", "--no-sync", "--no-instructions", "-E", "UTF8")
    options = f"-c listen_addresses='' -k {folder} -c fsync=off"
    run(control, "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    try:
        yield f"postgresql://arena@/postgres?host={folder}"
    finally:
        run(control, "-D", data, "-m", "immediate", "stop")
