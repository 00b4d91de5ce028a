"""Two hundred voters at once, servers that die, five million votes: nothing lost, nothing doubled, nobody waits."""

import asyncio
import json
import os
import random
import re
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest
from sqlalchemy import text
from tests.unit.arena.site import test_commands
from tests.unit.arena.site.databases import postgresql
from tests.unit.arena.site.endpoints import endpoint as run_endpoint
from tests.unit.arena.site.running import Browser
from tests.unit.arena.site.test_commands import Serving

from moreseek.arena.live.boards import LiveBoards
from moreseek.arena.store import battles, counts, ledger, registry, voters
from moreseek.arena.store import votes as cast_votes
from moreseek.arena.store.database import open_database
from moreseek.arena.store.export import write_ledger
from moreseek.arena.store.registry import Entry
from moreseek.arena.store.tables import battles as battles_table
from moreseek.arena.store.tables import votes
from moreseek.arena.store.votes import Given, Rules
from moreseek.arena.votes import OUTCOMES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
VOTERS = int(os.environ.get("MORESEEK_LOAD_VOTERS", "200"))
SECONDS = float(os.environ.get("MORESEEK_LOAD_SECONDS", "300"))
READING_S = 20.0  # how long a voter reads, on average
MANY = int(os.environ.get("MORESEEK_LOAD_VOTES", "5000000"))
SECRET = "a secret of the tests"


@pytest.fixture(params=["postgresql", "sqlite"])
def where(request, tmp_path, monkeypatch):
    """A database's name, as arena.toml has it."""
    monkeypatch.setenv("MORESEEK_ARENA_SECRET", SECRET)
    monkeypatch.setitem(test_commands.ENVIRONMENT, "MORESEEK_ARENA_SECRET", SECRET)
    if request.param == "sqlite":
        yield str(tmp_path / "arena.sqlite")
        return
    with postgresql() as url:
        yield url


@pytest.fixture
def config(tmp_path, where):
    with run_endpoint() as server:
        house = {
            "database": where, "battles_a_minute": 10_000, "battles_a_minute_per_address": 10_000,
            "rated_votes_a_day": 10_000, "rated_votes_a_day_per_address": 10_000, "battles_at_once": VOTERS,
            "trusted_proxies": ["127.0.0.1"],
        }  # fmt: skip
        lines = ["[arena]", *(f"{key} = {json.dumps(value)}" for key, value in house.items())]
        for name in ("ok", "second", "third", "fourth"):
            one = {"name": name, "model": name, "class": "base", "url": server.url}
            lines += ["[[contestant]]", *(f"{key} = {json.dumps(value)}" for key, value in one.items()),
                      "internal = true"]  # fmt: skip
        path = tmp_path / "arena.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield path


# ------------------------------------------------------------------------------------------------------------- load


@dataclass
class Tally:
    """What the voters saw."""

    acknowledged: dict[str, str] = field(default_factory=dict)
    took: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    again: int = 0  # calls that met a connection which the server had just closed, and were made again


async def _voter(number, url, until, tally):
    """Comes at some time, asks, reads for a while, votes (some press twice), asks again."""
    rng = random.Random(number)
    await asyncio.sleep(rng.uniform(0, min(20.0, SECONDS / 3)))
    headers = {"x-forwarded-for": f"10.0.{number // 250}.{number % 250 + 1}"}
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, headers=headers) as http:
        page = await http.get("/")
        token = {"x-arena-token": re.search(r'data-token="([0-9a-f]+)"', page.text).group(1)}
        asked = 0
        while time.monotonic() < until:
            asked += 1
            question = {"prompt": f"What does voter {number} ask in round {asked}?"}
            answer = await _patiently(http, "/api/battles", question, token, tally)
            seen = answer.text
            if answer.status_code != 200 or '"end"' not in seen:
                tally.refused.append(f"{answer.status_code} {seen[-200:]}")
                continue
            battle = json.loads(seen.split("\n\n")[0][6:])["battle"]
            await asyncio.sleep(rng.expovariate(1 / READING_S))
            outcome = rng.choice(OUTCOMES)
            await asyncio.gather(*(
                _vote(http, battle, outcome, token, tally) for _ in range(2 if rng.random() < 0.2 else 1)
            ))  # fmt: skip


async def _patiently(http, path, body, token, tally):
    """A call as a browser makes it: one that met a closed connection is made again."""
    for _ in range(3):
        try:
            return await http.post(path, json=body, headers=token)
        except (httpx.ReadError, httpx.RemoteProtocolError):
            tally.again += 1
    raise AssertionError(f"{path}: the server closed three connections in a row")


async def _vote(http, battle, outcome, token, tally):
    begun = time.perf_counter()
    answer = await _patiently(http, f"/api/battles/{battle}/vote", {"outcome": outcome}, token, tally)
    tally.took.append(time.perf_counter() - begun)
    if answer.status_code == 200:
        tally.acknowledged[battle] = outcome
    else:
        tally.refused.append(answer.text)


@pytest.mark.parametrize("where", ["postgresql"], indirect=True)
def test_two_hundred_voters_in_five_minutes_lose_and_double_nothing_and_do_not_wait(config, where, tmp_path):
    servers = [Serving(config), Serving(config)]  # two processes share the database
    tally = Tally()

    async def crowd():
        until = time.monotonic() + SECONDS
        await asyncio.gather(*(
            _voter(number, servers[number % 2].url, until, tally) for number in range(VOTERS)
        ))  # fmt: skip

    try:
        asyncio.run(crowd())
    finally:
        for one in servers:
            one.stop()
    took = np.array(tally.took) * 1e3
    p50, p95, p99 = np.percentile(took, [50, 95, 99])
    print(f"\n{VOTERS} voters, {SECONDS:.0f} s: {len(tally.acknowledged)} votes, {len(took)} calls; "
          f"p50 {p50:.1f} ms, p95 {p95:.1f} ms, p99 {p99:.1f} ms, worst {took.max():.0f} ms; "
          f"refused {len(tally.refused)}, made again {tally.again}")  # fmt: skip
    database = open_database(where)
    with database.read() as connection:
        there = {row.battle_id: OUTCOMES[row.outcome] for row in connection.execute(votes.select())}
        assert there == tally.acknowledged
        assert connection.execute(text("SELECT count(*) FROM votes")).scalar() == len(there)
        assert counts.kept(connection) == counts.recount(connection)
    write_ledger(database, tmp_path / "ledger.jsonl")  # the chain of two writers is whole
    database.close()
    assert tally.refused == []
    assert p95 <= 100


# ------------------------------------------------------------------------------------------------------------ kills


def _until_it_dies(config, wait_s):
    """Four voters vote as fast as they can until the server is killed; what was acknowledged, and what begun."""
    serving = Serving(config)
    crowd = [Browser(serving.url, headers={"x-forwarded-for": f"10.1.1.{i}"}) for i in range(1, 5)]
    begun = [[(browser, browser.battle(f"{time.time()} {i}").id) for i in range(5)] for browser in crowd]
    acknowledged = {}

    def vote(own):
        for browser, battle in own * 1000:
            try:
                answer = browser.vote(battle, "tie")
            except httpx.TransportError:
                return
            if answer.status_code == 200:
                acknowledged[battle] = "tie"

    threads = [threading.Thread(target=vote, args=(own,)) for own in begun]
    killer = threading.Timer(wait_s, serving.stop, [signal.SIGKILL])
    for thread in (*threads, killer):
        thread.start()
    for thread in (*threads, killer):
        thread.join()
    return acknowledged, sum(map(len, begun))


def test_twenty_kills_at_random_moments_lose_and_double_no_vote(config, where):
    config.write_text(config.read_text(encoding="utf-8").replace("[arena]", "[arena]\ncharacters_per_s = 1e6"), "utf-8")
    rng = random.Random(1)
    acknowledged, begun = {}, 0
    for _ in range(20):
        more, there = _until_it_dies(config, rng.uniform(0.0, 0.25))
        acknowledged |= more
        begun += there
        database = open_database(where)
        with database.read() as connection:
            found = list(connection.execute(votes.select()))
            assert counts.kept(connection) == counts.recount(connection)
            lines = [line for _, line, _ in ledger.lines(connection)]
        database.close()
        by_battle = {row.battle_id: OUTCOMES[row.outcome] for row in found}
        assert len(by_battle) == len(found)
        assert acknowledged.items() <= by_battle.items()
        assert {line["battle"] for line in lines if line["kind"] == "vote"} == by_battle.keys()
    print(f"\n20 kills: {len(acknowledged)} acknowledged, {len(found)} there, {begun} battles")
    assert len(acknowledged) > 20


# -------------------------------------------------------------------------------------------------------- many votes

_SERIES = {
    "sqlite": "WITH RECURSIVE g(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM g WHERE i < {n}) ",
    "postgresql": "WITH g(i) AS (SELECT generate_series(1, CAST({n} AS bigint))) ",
}
# A pair of 100 contestants, an outcome, one of 3 categories and 3 languages, of 50,000 voters: by arithmetic.
_LEFT, _RIGHT = "1 + (i * 7919) % 100", "1 + ((i * 7919) % 100 + 1 + (i * 104729) % 99) % 100"
_OUTCOME = "(i * 31 + i / 100) % 4"
_BATTLES = (
    f"INSERT INTO battles (id, voter_id, at, left_id, right_id, across, probability, category, language, prompt_key) "
    f"{{series}}SELECT 'b' || i, 1 + i % 50000, 1800000000.0 + i, {_LEFT}, {_RIGHT}, false, 0.1, "
    "'c' || (i % 3), CASE i % 3 WHEN 0 THEN 'zh' WHEN 1 THEN 'en' ELSE 'other' END, 'p' || (i % 9999) FROM g"
)
_ENDS = "INSERT INTO ends (battle_id, at, how) {series}SELECT 'b' || i, 1800000000.5 + i, 'answered' FROM g"
_VOTES = (
    "INSERT INTO votes (battle_id, voter_id, at, outcome) {series}"
    f"SELECT 'b' || i, 1 + i % 50000, 1800000001.0 + i, {_OUTCOME} FROM g"
)
_VOTERS = "INSERT INTO voters (pseudonym, created_at) {series}SELECT 'v-' || i, 1800000000.0 FROM g"
_COUNTED = (
    "INSERT INTO counts (board, category, a, b, outcome, n) SELECT {board}, {category}, b.left_id, b.right_id, "
    "v.outcome, count(*) FROM votes v JOIN battles b ON b.id = v.battle_id {where} GROUP BY 1, 2, 3, 4, 5"
)


@contextmanager
def _in_bulk(connection):
    """PostgreSQL fills its tables without their indexes, and without a look at another table for every row."""
    if connection.dialect.name != "postgresql":
        yield
        return
    for setting in ("session_replication_role = replica", "maintenance_work_mem = '512MB'", "work_mem = '256MB'"):
        connection.execute(text(f"SET LOCAL {setting}"))
    indexes = [index for table in (battles_table, votes) for index in table.indexes]
    for index in indexes:
        index.drop(connection)
    yield
    for index in indexes:
        index.create(connection)
    connection.execute(text("ANALYZE"))  # as PostgreSQL's own housekeeping does a minute later


def fill(database, n):
    """So many votes as cast ones stand, and their counts by the database's own counting."""
    with database.write() as connection, _in_bulk(connection):
        entries = [Entry(f"m{i}", "base", f"f{i % 40}", f"m{i}", None, {}) for i in range(100)]
        registry.enter(connection, entries, 1.8e9)
        series = _SERIES[connection.dialect.name]
        connection.execute(text(_VOTERS.format(series=series.format(n=50_000))))
        for statement in (_BATTLES, _ENDS, _VOTES):
            connection.execute(text(statement.format(series=series.format(n=n))))
        for board, where_ in (("'overall'", ""), ("'base'", ""), ("b.language", "WHERE b.language <> 'other'")):
            for category in ("''", "b.category"):
                connection.execute(text(_COUNTED.format(board=board, category=category, where=where_)))


def test_a_board_after_every_vote_and_the_page_cost_the_same_at_five_million_votes(where, tmp_path):
    database = open_database(where, create=True, with_secret=True)
    begun = time.perf_counter()
    fill(database, MANY)
    filled_s = time.perf_counter() - begun
    boards = LiveBoards(database, 30)
    rules = Rules(3600, 60, 10**6, 10**6)
    voting, board_ms, rng = [], [], random.Random(0)
    for i in range(40):
        now = 1.9e9 + i
        with database.write() as connection:
            voter = voters.find_or_add(connection, f"session {i % 5}", now)
            pair = rng.sample(range(1, 101), 2)
            new = battles.NewBattle(voter.id, "x", *pair, False, 0.1, "c1", "en", f"p {i}", "what?")
            name = battles.begin(connection, new, now)
            answer = battles.Answer("text", "", 5, 7, 0.1, 0.2, 0.001, False, None)
            battles.finish(connection, name, (answer, answer), now)
        begun = time.process_time()
        with database.write() as connection:
            cast_votes.cast(connection, f"session {i % 5}", name, Given("tie"), rules, now)
        voting.append(1e3 * (time.process_time() - begun))
        begun = time.process_time()
        board = boards.board()
        board_ms.append(1e3 * (time.process_time() - begun))
        assert board["votes"] == MANY + i + 1
    page_ms = _page_ms(where, tmp_path)
    with database.read() as connection:
        same = counts.kept(connection) == counts.recount(connection)
    database.close()
    print(f"\n{MANY:,} votes (made in {filled_s:.0f} s): a vote {np.median(voting):.1f} ms, a board after it "
          f"{np.median(board_ms):.1f} ms, the page {page_ms:.1f} ms")  # fmt: skip
    assert same
    assert np.median(board_ms) <= 10
    assert page_ms <= 50


def _page_ms(where, tmp_path):
    """The server's own time for /leaderboard, the median of a few after a vote each (a fresh head of the ledger)."""
    from starlette.testclient import TestClient

    from moreseek.arena.live.settings import ArenaSettings
    from moreseek.arena.web.app import build_app
    from moreseek.arena.web.arena import open_arena

    arena = open_arena(ArenaSettings.model_validate({"arena": {"database": where, "categories": ["c1", "c2"]}}))
    took = []
    with TestClient(build_app(arena), base_url="http://127.0.0.1") as http:
        for i in range(7):
            with arena.database.write() as connection:
                ledger.append(connection, {"kind": "forgotten", "at": 1.9e9 + i, "voter": "v-1"})
            begun = time.process_time()
            answer = http.get("/leaderboard")
            took.append(1e3 * (time.process_time() - begun))
            assert answer.status_code == 200
            assert "m99" in answer.text
    return float(np.median(took))
