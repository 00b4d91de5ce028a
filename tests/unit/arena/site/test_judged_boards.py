"""Judges' boards on the site: apart from people's, labelled, with the agreement on the same battles."""

import math
import random
import re

import pytest
from starlette.testclient import TestClient
from tests.unit.arena.site.test_judges import PROBLEMS, fight, human, replay, three  # noqa: F401
from tests.unit.arena.site.test_store import NOW, RULES, database, filled, where  # noqa: F401

from moreseek.arena.judged import agreements
from moreseek.arena.live.judged_boards import JudgedBoards
from moreseek.arena.standings import board_of
from moreseek.arena.store import battles, judges, ledger, registry, vote_list, voters
from moreseek.arena.store.database import open_database
from moreseek.arena.store.registry import Entry
from moreseek.arena.store.vote_list import Which
from moreseek.arena.store.votes import Given, cast
from moreseek.arena.vote_lines import STYLE
from moreseek.arena.web.app import build_app


@pytest.fixture
def judged(three):  # noqa: F811
    """Three contestants, judged on every problem, and people's votes on three of the battles."""
    human(three, PROBLEMS[0].prompt, ("20", "7"), "model_a")
    human(three, PROBLEMS[1].prompt, ("7", "22"), "model_a", "another")
    human(three, PROBLEMS[2].prompt, ("24", "24"), "tie", "a third")
    fight(three, voted=True)
    return three


@pytest.fixture
def http(judged):
    return TestClient(build_app(judged), base_url="http://arena.test")


@pytest.mark.parametrize(
    "which", [Which(judge="verifier"), Which("en", "", judge="verifier"), Which("base", "x", judge="verifier")]
)
def test_a_board_from_the_tables_is_the_one_from_the_ledger(judged, which):
    live, whole = JudgedBoards(judged.database, 10).board(which), replay(judged.database)
    twin = board_of(whole, which.board, which.category, 10, judge="verifier")
    assert {key: live[key] for key in twin} == twin
    assert live["agreement"] == agreements(whole, "verifier")
    assert live["judge"] == "verifier"


def test_a_judgement_shows_at_once(judged):
    boards = JudgedBoards(judged.database, 10)
    before = boards.board(Which(judge="verifier"))
    assert boards.board(Which(judge="verifier")) is before
    human(judged, PROBLEMS[3].prompt, ("1", "2"), "model_a", "a fifth")
    fight(judged, voted=True)
    assert boards.board(Which(judge="verifier"))["votes"] == before["votes"] + 1


def test_counts_and_costs_are_those_of_the_judged_battles(judged):
    boards = JudgedBoards(judged.database, 10)
    names, table = boards.table(Which(judge="verifier"))
    assert table.sum() == boards.board(Which(judge="verifier"))["votes"] == 39
    row = next(one for one in boards.board(Which(judge="verifier"))["rows"] if one["name"] == names[0])
    assert table[0].sum() + table[:, 0].sum() == row["battles"]
    took = boards.tallies("verifier")
    judged_answers = {name: int(table[i].sum() + table[:, i].sum()) for i, name in enumerate(names)}
    assert {name: one.answers for name, one in took.items()} == judged_answers
    assert took["Wrong-9000"].tokens == 60


def test_the_page_says_who_judged_and_how_far_people_agree(http):
    page = http.get("/leaderboard?judge=verifier&lang=en").text
    assert "This board is what the judge verifier said, apart from people&#39;s votes" in page
    assert re.search(r'<option value="verifier" selected>', page)
    agreement = page[page.index("Agreement on the same battles") :]
    assert '<td class="number">3</td>' in agreement
    assert "67 %" in agreement
    people = http.get("/leaderboard?lang=en").text
    assert "This board is what the judge" not in people
    assert http.get("/leaderboard.json").json()["votes"] == 3
    assert "judge" not in http.get("/leaderboard.json").json()
    assert "评判者 verifier" in http.get("/leaderboard?judge=verifier&lang=zh").text


def test_it_comes_in_every_form(http):
    found = http.get("/leaderboard.json?judge=verifier").json()
    assert (found["judge"], found["votes"], found["agreement"][0]["with"]) == ("verifier", 39, "people")
    assert len(http.get("/leaderboard.csv?judge=verifier").text.splitlines()) == 4
    assert r"\begin{tabular}" in http.get("/leaderboard.tex?judge=verifier").text
    for path in ("/leaderboard.png", *(f"/plots/{name}.png" for name in ("intervals", "matrix", "frontier"))):
        assert http.get(f"{path}?judge=verifier").content[:8] == b"\x89PNG\r\n\x1a\n"
    frame = http.get("/embed/board?judge=verifier&lang=en").text
    assert "judged by verifier" in frame
    assert http.get("/plots/trend.svg?judge=verifier").status_code == 404


def test_the_votes_behind_are_the_judgements(http):
    found = http.get("/votes.json?judge=verifier&a=Right-9000&b=Wrong-9000").json()["votes"]
    assert len(found) == 12
    assert all(one["judge"] == "verifier" and "voter" not in one for one in found)
    assert "What verifier said" in http.get("/votes?judge=verifier&lang=en").text
    assert len(http.get("/votes.json").json()["votes"]) == 3


@pytest.mark.parametrize("judge", ["verifier", ""])
def test_pages_of_votes_follow_one_another_without_gap_or_repeat(http, monkeypatch, judge):
    monkeypatch.setattr("moreseek.arena.web.vote_pages._PAGE", 7 if judge else 2)
    seen, before = [], ""
    while page := http.get(f"/votes.json?judge={judge}&before={before}").json()["votes"]:
        seen += [one["battle"] for one in page]
        before = page[-1]["battle"]
    assert len(seen) == len(set(seen)) == (39 if judge else 3)


def test_a_judge_that_there_is_not_is_refused(http):
    assert http.get("/leaderboard.json?judge=%3Cb%3E").status_code == 404
    assert "Judges: verifier." in http.get("/leaderboard.json?judge=x").json()["error"]["message"]
    assert http.get("/leaderboard?judge=nobody").url.query == b""


def test_style_control_takes_away_what_length_won_of_a_judge_too(tmp_path):
    database = open_database(str(tmp_path / "arena.sqlite"), create=True, with_secret=True)  # noqa: F811
    rng = random.Random(5)
    with database.write() as connection:
        registry.enter(connection, [Entry(n, "base", n, n, None, {}) for n in ("long", "short", "mid")], NOW)
        judge = judges.enter(connection, "llm", {"model": "m"}, NOW)
        voter, longer = voters.find_or_add(connection, "somebody", NOW), {}
        for i in range(200):
            pair = rng.sample((1, 2, 3), 2)
            words = [{1: 300, 2: 40, 3: 120}[one] + rng.randrange(200) for one in pair]
            new = battles.NewBattle(voter.id, "x", *pair, False, 0.1, "other", "en", f"p{i}", "?")
            name = battles.begin(connection, new, NOW)
            both = [battles.Answer("word " * n, "", n, 1, 0.1, 0.2, None, False, None) for n in words]
            battles.finish(connection, name, tuple(both), NOW)
            cast(connection, "somebody", name, Given("tie"), RULES, NOW)
            longer[name] = (words[0] - words[1]) / (words[0] + words[1] + 1)
        made = list(longer)  # names are drawn: in their order each run would be another
        said = [  # all that counts is length
            (one, 0 if rng.random() < 1 / (1 + math.exp(-4 * longer[one.id])) else 1)
            for one in sorted(judges.unjudged(connection, judge, voted=True), key=lambda one: made.index(one.id))
        ]
        judges.record(connection, judge, "llm", said, NOW)
    boards, which = JudgedBoards(database, 10), Which(judge="llm")
    gap = lambda board: (lambda r: r["long"] - r["short"])({row["name"]: row["rating"] for row in board["rows"]})  # noqa: E731
    equal = boards.style_board(which, STYLE)
    assert equal["votes"] == boards.board(which)["votes"] == 200
    assert gap(boards.board(which)) > 150
    assert abs(gap(equal)) < gap(boards.board(which)) / 2
    assert equal["style"]["tokens"]["ci_low"] > 0
    assert equal["side_effect"] is None
    with database.write() as connection:
        voters.forget_battle(connection, next(iter(longer)), NOW)
    assert JudgedBoards(database, 10).style_board(which, STYLE)["votes"] == 199  # its texts are gone
    database.close()


@pytest.mark.parametrize("style", ["equal", "latency"])
def test_a_page_of_a_judge_with_style_held_equal(http, style):
    query = f"judge=verifier&style={style}&lang=en"
    page, found = http.get(f"/leaderboard?{query}").text, http.get(f"/leaderboard.json?{query}").json()
    assert found["votes"] == 39
    assert found["style"].keys() >= {"tokens", "headers"}
    assert "style" in re.search(r"<h1>(.*?)</h1>", page).group(1)
    assert "As voted" in page
    assert "Agreement on the same" not in page
    assert http.get(f"/plots/intervals.svg?{query}").status_code == 200


def test_the_ledger_is_not_read_for_it(judged, monkeypatch):
    monkeypatch.setattr(ledger, "lines", None)
    assert JudgedBoards(judged.database, 10).board(Which(judge="verifier"))["votes"] == 39


def test_both_databases_hold_a_judges_board(database):  # noqa: F811
    filled(database, 30)
    with database.write() as connection:
        judge = judges.enter(connection, "llm", {"model": "m"}, NOW)
        known = judges.unjudged(connection, judge, voted=True)
        judges.record(connection, judge, "llm", [(battle, i % 4) for i, battle in enumerate(known)], NOW + 99)
    boards, which = JudgedBoards(database, 10), Which(judge="llm")
    assert boards.board(which) | {"judge": 0, "agreement": 0} == board_of(
        replay(database), min_votes=10, judge="llm"
    ) | {"judge": 0, "agreement": 0}
    assert boards.board(which)["agreement"][0]["battles"] == len(known) == 30
    assert sum(one.answers for one in boards.tallies("llm").values()) == 60
    assert {(one.tokens, round(one.cost_usd, 9)) for one in boards.tallies("llm").values()} == {(5.0, 0.001)}
    seen, before = [], ""
    with database.read() as connection:
        while page := vote_list.page(connection, which, 7, before):
            seen += [one["battle"] for one in page]
            before = page[-1]["battle"]
    assert sorted(seen) == sorted(battle.id for battle in known)
