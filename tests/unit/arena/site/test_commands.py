"""`moreseek arena serve, export, import, forget, leaderboard` as a person runs them, and kill -9 at a bad moment."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from tests.unit.arena.site import test_store
from tests.unit.arena.site.endpoints import endpoint as run_endpoint
from tests.unit.arena.site.running import Browser

from moreseek.arena.store import actions, counts, registry
from moreseek.arena.store.database import open_database
from moreseek.arena.store.registry import Entry
from moreseek.arena.store.tables import votes
from moreseek.cli import main
from moreseek.errors import InputError

SOURCE = Path(__file__).resolve().parents[4] / "src"
COMMAND = [sys.executable, "-c", "from moreseek.cli import main; main()", "arena"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "160", "NO_COLOR": "1"}


@pytest.fixture
def run(monkeypatch, capsys):
    """A command in this process: what it printed, after its exit code was checked."""

    def command(*arguments, code=0):
        monkeypatch.setattr(sys, "argv", ["moreseek", "arena", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        assert (end.value.code or 0) == code, printed.err
        return printed

    return command


class Serving:
    """`moreseek arena serve` in a process of its own."""

    def __init__(self, config):
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--config", str(config), "--port", "0"],
            env=ENVIRONMENT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        line = self.process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + self.process.stderr.read()
        self.url = found.group().rstrip("/")

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(20)
        self.process.stderr.close()


@pytest.fixture
def config(tmp_path):
    with run_endpoint() as server:
        path = tmp_path / "arena.toml"
        path.write_text(
            "[arena]\ncharacters_per_s = 1e6\nbattles_a_minute = 10000\nbattles_a_minute_per_address = 10000\n"
            'rated_votes_a_day = 10000\ncategories = ["other", "maths"]\n'
            + "".join(
                f'[[contestant]]\nname = "{name}"\nmodel = "{name}"\nclass = "base"\n'
                f'url = "{server.url}"\ninternal = true\n'
                for name in ("ok", "second", "xss")
            ),
            encoding="utf-8",
        )
        yield path


def test_a_whole_arena_from_the_command_line(config, tmp_path, run):
    serving = Serving(config)
    try:
        browser = Browser(serving.url)
        cast = [browser.battle_and_vote(f"question {i}", category="maths") for i in range(6)]
        assert all(answer.json()["vote"]["set_apart"] is None for answer in cast)
        page = browser.http.get("/leaderboard.json").json()
        assert page["votes"] == 6
        database, out = tmp_path / "arena.sqlite", tmp_path / "ledger.jsonl"
        assert json.loads(run("leaderboard", database, "--json").out) == page  # while it runs
    finally:
        serving.stop()
    run("export", database, out)
    assert json.loads(run("leaderboard", "--from-export", out, "--json").out) == page
    style = ("--style", "--features", "tokens,latency")
    styled = json.loads(run("leaderboard", "--from-export", out, *style, "--json").out)
    assert styled["style"].keys() == {"tokens", "latency"}
    assert "add --style" in run("leaderboard", database, "--features", "tokens", code=2).err
    assert json.loads(run("leaderboard", "--from-export", out, "--json", "--category", "other").out)["votes"] == 0
    copy = tmp_path / "copy.sqlite"
    run("import", out, copy)
    assert json.loads(run("leaderboard", copy, "--json").out) == page
    assert "overall: 6 votes" in run("leaderboard", copy).out
    capped = json.loads(run("leaderboard", database, "--cap", "3", "--cluster", "none", "--json").out)
    assert (capped["board"], capped["votes"]) == ("overall, cap 3", 3)
    assert json.loads(run("leaderboard", database, "--since", "2020-01-01", "--json").out)["votes"] == 6
    assert "no vote is left" in run("leaderboard", database, "--until", "2020-01-01", code=2).err
    assert json.loads(run("leaderboard", database, "--ties", "davidson", "--json").out)["tie_model"] is not None
    assert "--since: not with --style" in run("leaderboard", database, "--style", "--since", "2020-01-01", code=2).err
    run("export", database, tmp_path / "battles.jsonl", "--battles")
    ours = json.loads(run("leaderboard", tmp_path / "battles.jsonl", "--json", "--category", "maths").out)
    # Models are in another order there, so sums round otherwise.
    theirs = [pytest.approx(row["rating"], abs=1e-9) for row in page["rows"]]
    assert [row["rating"] for row in ours["rows"]] == theirs
    run("export", database, tmp_path / "pairs.jsonl", "--preferences")
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {"prompt", "chosen", "rejected"} <= set(pairs[0])
    voter = json.loads(out.read_text(encoding="utf-8").splitlines()[-1])["entry"]["voter"]
    assert "6 battles" in run("forget", database, "--voter", voter).out
    assert json.loads(run("leaderboard", database, "--json").out) == page
    run("export", database, tmp_path / "pairs.jsonl", "--preferences")
    assert (tmp_path / "pairs.jsonl").read_text(encoding="utf-8") == ""
    assert "--votes goes with --voter" in run("forget", database, "--battle", "b", "--votes", code=2).err
    assert "equal a recount" in run("forget", database, "--voter", voter, "--votes").out
    assert json.loads(run("leaderboard", database, "--json").out)["votes"] == 0
    run("export", database, out)
    assert json.loads(run("leaderboard", "--from-export", out, "--json").out)["votes"] == 0
    opened = open_database(str(database))
    with opened.write() as connection, pytest.raises(InputError, match="stay off the boards"):
        actions.restore(connection, voter, "please", time.time())
    opened.close()


def test_mistakes_on_the_command_line_are_named(tmp_path, run):
    assert "no such file" in run("serve", "--config", tmp_path / "none.toml", code=2).err
    assert "name a file of votes" in run("leaderboard", code=2).err
    assert "no such database" in run("export", tmp_path / "none.sqlite", tmp_path / "x", code=2).err
    assert "either --voter or --battle" in run("forget", tmp_path / "none.sqlite", code=2).err
    open_database(str(tmp_path / "empty.sqlite"), create=True).close()
    assert "no board 'overal'" in run("leaderboard", tmp_path / "empty.sqlite", "--board", "overal", code=2).err
    assert "no vote on this board tells tokens" in run("leaderboard", tmp_path / "empty.sqlite", "--style", code=2).err
    assert "nobody has voted there" in run("leaderboard", tmp_path / "empty.sqlite", "--cap", "3", code=2).err
    nobody = run("leaderboard", tmp_path / "empty.sqlite").out
    assert "There are no votes" in nobody
    assert "clusters" not in nobody
    assert "--format" in run("leaderboard", tmp_path / "empty.sqlite", "--format", "lmarena", code=2).err
    both = ("--battles", "--preferences")
    assert "either --preferences" in run("export", tmp_path / "empty.sqlite", "x", *both, code=2).err
    assert json.loads(run("leaderboard", tmp_path / "empty.sqlite", "--json").out)["rows"] == []


def test_two_are_compared_in_a_database_and_a_worse_one_is_an_exit_code(tmp_path, run):
    where = str(tmp_path / "arena.sqlite")
    database = open_database(where, create=True, with_secret=True)
    with database.write() as connection:
        registry.enter(connection, [Entry(name, "base", "f", name, None, {}) for name in "xyz"], test_store.NOW)
    for i in range(60):
        name = test_store.battle(database, f"voter {i}", (1, 2), f"question {i}")
        test_store.cast(database, name, "model_a" if i % 12 else "model_b", f"voter {i}")
    database.close()
    result = json.loads(run("compare", "x", "y", "--votes", where, "--json", code=1).out)
    assert (result["verdict"], result["direct"]["losses"]) == ("worse", 55)
    assert "x is better than y" in run("compare", "y", "x", "--votes", where).out
    assert "no vote is left" in run("compare", "y", "x", "--votes", where, "--since", "2030-01-01", code=2).err
    assert "files of votes" in run("compare", "y", "x", "--votes", where, "--format", "llmfao", code=2).err


def test_a_taken_port_is_named(config, run):
    serving = Serving(config)
    try:
        port = serving.url.rpartition(":")[2]
        assert "Choose another --port" in run("serve", "--config", config, "--port", port, code=3).err
    finally:
        serving.stop()


def kill_while_voting(config, wait_s):
    """Votes as fast as one can until the server is killed; the battles of votes that were acknowledged, and all."""
    serving = Serving(config)
    browser = Browser(serving.url)
    battles = [browser.battle(f"{time.time()} {i}").id for i in range(12)]
    threading.Timer(wait_s, serving.stop, [signal.SIGKILL]).start()
    acknowledged = []
    for battle in battles * 1000:
        try:
            if browser.vote(battle).status_code == 200:
                acknowledged.append(battle)
        except httpx.TransportError:
            break
    serving.process.wait(20)
    return set(acknowledged), battles


def check_after_kill(config, acknowledged, battles):
    database = open_database(str(config.parent / "arena.sqlite"))
    with database.read() as connection:
        there = [row.battle_id for row in connection.execute(votes.select())]
        assert counts.kept(connection) == counts.recount(connection)
    database.close()
    assert len(there) == len(set(there))
    assert acknowledged <= set(there)
    return [battle for battle in battles if battle not in there]


def test_kill_during_votes_leaves_each_once_or_not_at_all(config):
    acknowledged, battles = kill_while_voting(config, 0.05)
    check_after_kill(config, acknowledged, battles)
    serving = Serving(config)  # it starts again as if nothing had been
    try:
        assert Browser(serving.url).battle_and_vote("afterwards").status_code == 200
    finally:
        serving.stop()


@pytest.mark.slow
def test_twenty_kills_lose_and_double_nothing(config):
    rng = random.Random(0)
    acknowledged, battles = set(), []
    for _ in range(20):
        more, begun = kill_while_voting(config, rng.uniform(0.0, 0.3))
        acknowledged |= more
        battles += begun
        check_after_kill(config, acknowledged, battles)
    assert len(acknowledged) > 20
