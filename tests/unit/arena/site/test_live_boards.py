"""Boards on the site: pictures, downloads, frames, the votes behind, style, days gone by, and what all of it costs."""

import csv
import html
import io
import itertools
import math
import re
import struct
import time
import xml.etree.ElementTree as ET
from random import Random
from urllib.parse import parse_qs

import pytest
from tests.unit.arena.site.running import running
from tests.unit.arena.site.test_store import NOW, RULES, battle, cast, database, filled, where  # noqa: F401

from moreseek.arena import cautions
from moreseek.arena.live.boards import LiveBoards
from moreseek.arena.replay import read_export
from moreseek.arena.standings import style_board_from, style_board_of
from moreseek.arena.store import battles as stored
from moreseek.arena.store import counts, history, registry, tallies, vote_list, voters
from moreseek.arena.store import votes as cast_votes
from moreseek.arena.store.database import open_database
from moreseek.arena.store.export import read_ledger, write_ledger
from moreseek.arena.store.registry import Entry
from moreseek.arena.store.tables import answers, battles
from moreseek.arena.store.tables import history as history_table
from moreseek.arena.store.vote_list import Which
from moreseek.arena.store.votes import Given
from moreseek.arena.vote_lines import tells
from moreseek.arena.web.chosen import PLOTS, STYLES
from moreseek.arena.web.figures.drawing import apart, ticks
from moreseek.arena.web.plain_words import in_plain_words
from moreseek.arena.web.words import WORDS

DAY = 86_400.0


@pytest.fixture
def voted(arena):
    site = arena(("ok", "second", '"third&'), min_votes=3)
    for i in range(12):
        browser = site.browser()
        browser.battle_and_vote(
            f"what is {i}?", ("model_a", "model_b", "tie")[i % 3], category="maths" if i % 2 else "other"
        )
    return site


# -------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("name", PLOTS)
def test_every_picture_is_whole_svg_alone_and_its_numbers_are_csv_and_json(voted, name):
    http = voted.browser().http
    for query in ("", "?board=en&category=maths&lang=zh", "?style=equal", "?board=reasoning"):
        answer = http.get(f"/plots/{name}.svg{query}")
        assert answer.headers["content-type"].startswith("image/svg+xml")
        root = ET.fromstring(answer.text)
        assert root.tag.endswith("svg")
        assert root.get("aria-label")
        assert not re.search(r"<script|<image|href=|url\(|javascript:| on\w+=", answer.text)
        picture = http.get(f"/plots/{name}.png{query}")
        assert picture.headers["content-type"] == "image/png"
        width, height = struct.unpack(">II", picture.content[16:24])
        assert abs(width - 2 * float(root.get("width"))) <= 2
        assert abs(height - 2 * float(root.get("height"))) <= 2
        assert "hird&-9000" not in answer.text.replace("&amp;", "")
    rows = http.get(f"/plots/{name}.json").json()["rows"]
    read = list(csv.DictReader(io.StringIO(http.get(f"/plots/{name}.csv").text)))
    assert len(rows) == len(read) > 0 or name == "frontier"


def test_a_picture_that_stands_alone_may_use_its_own_colours_and_nothing_else(voted):
    headers = voted.browser().http.get("/plots/intervals.svg").headers
    assert re.fullmatch(
        r"default-src 'none'; style-src 'sha256-[\w+/=]+'; frame-ancestors 'none'", headers["content-security-policy"]
    )


def test_what_there_is_not_is_named(voted):
    http = voted.browser().http
    for path in (
        "/plots/pie.svg",
        "/plots/matrix.bmp",
        "/embed/pie",
        "/plots/matrix.svg?board=x",
        "/embed/board?style=x",
    ):
        answer = http.get(path)
        assert answer.status_code == 404
        assert "matrix" in answer.text or "Boards:" in answer.text


def test_frames_are_for_every_site_and_set_no_cookie_and_other_pages_are_for_none(voted):
    http = voted.browser().http
    http.cookies.clear()
    for name in (*PLOTS, "board"):
        answer = http.get(f"/embed/{name}?theme=dark&lang=zh")
        assert answer.status_code == 200
        assert "frame-ancestors *" in answer.headers["content-security-policy"]
        assert "set-cookie" not in answer.headers
        assert "<form" not in answer.text
        assert "<script" not in answer.text
        assert 'data-theme="dark"' in answer.text
    assert "data-theme" not in http.get('/embed/board?theme="><script>').text
    for path in ("/", "/leaderboard", "/votes", "/audit"):
        assert "frame-ancestors 'none'" in http.get(path).headers["content-security-policy"]


def test_every_figure_leads_to_the_votes_behind_it(voted):
    http = voted.browser().http
    page = http.get("/leaderboard?lang=en").text
    links = {html.unescape(link) for link in re.findall(r'href="(votes\?[^"]*)"', page)}
    rows = http.get("/leaderboard.json").json()["rows"]
    for row in rows:
        assert any(parse_qs(link.split("?")[1]).get("a") == [row["name"]] for link in links), row["name"]
    pairs = http.get("/plots/matrix.json").json()["rows"]
    for pair in pairs:
        behind = http.get("/votes.json", params={"a": pair["a"], "b": pair["b"]}).json()["votes"]
        assert len(behind) == pair["battles"]
        assert all({one["left"], one["right"]} == {pair["a"], pair["b"]} for one in behind)
    assert len(http.get("/votes.json?category=maths").json()["votes"]) == 6
    assert "what is" not in http.get("/votes").text


def test_the_pictures_of_a_page_are_requests_of_their_own_and_lead_to_votes(voted):
    http = voted.browser().http
    page = http.get("/leaderboard?lang=zh&category=maths").text
    assert 'class="figure"' not in page
    frames = [html.unescape(one) for one in re.findall(r'data-figure="([^"]*)"', page)]
    assert [one.split("?")[0] for one in frames] == [f"embed/{name}" for name in PLOTS]
    for frame in frames:
        picture = http.get(f"/{frame}").text
        assert picture.count('<svg xmlns="http://www.w3.org/2000/svg" class="figure"') == 1
        for link in set(re.findall(r'data-votes="([^"]*)"', picture)):
            assert http.get("/" + html.unescape(link)).status_code == 200
    assert "data-votes" in http.get(f"/{frames[0]}").text


def test_a_vote_on_one_server_is_on_the_next_page_of_another(voted):
    with running(voted.arena.settings) as other:  # the same database
        for i in range(3):
            before = other.browser().http.get("/leaderboard.json").json()["votes"]
            voted.browser().battle_and_vote(f"and {i}?", "tie", category="maths")
            assert other.browser().http.get("/leaderboard.json").json()["votes"] == before + 1
            page = other.browser().http.get("/leaderboard?category=maths&lang=en").text
            assert f"<p>{7 + i} <a" in page


def test_numbers_of_the_matrix_are_a_count_of_the_votes(voted):
    http = voted.browser().http
    every = http.get("/votes.json").json()["votes"]
    for pair in http.get("/plots/matrix.json").json()["rows"]:
        won = sum(
            one["outcome"] == ("model_a" if one["left"] == pair["a"] else "model_b")
            for one in every
            if {one["left"], one["right"]} == {pair["a"], pair["b"]}
        )
        assert pair["wins"] == won
        assert pair["score"] == pytest.approx((pair["wins"] + pair["ties"] / 2) / pair["battles"])
        assert 0 < pair["expected"] < 1


def test_hostile_addresses_are_no_trouble(voted):
    http = voted.browser().http
    for query in ("before=-1", "before=x", "before=%F0%9F", "before=" + "9" * 40, "a=no-such", "a=%27%3B--", "b=x"):
        assert http.get(f"/votes?{query}").status_code == 200


def test_the_boards_stay_readable_with_nobody_and_with_nothing(arena):
    http = arena(()).browser().http
    for path in ("/", "/leaderboard", "/leaderboard?style=equal", "/votes", *(f"/plots/{name}.svg" for name in PLOTS),
                 *(f"/embed/{name}" for name in PLOTS)):  # fmt: skip
        assert http.get(path).status_code == 200, path


# ---------------------------------------------------------------------------------------------------- plain words


def row(name, rank, low, high, battles=100):
    return {"name": name, "rank": rank, "rank_low": low, "rank_high": high, "battles": battles}


def test_ranks_in_plain_words_in_both_languages():
    rows = [row("A", 1, 1, 2), row("B", 1, 1, 3), row("C", 3, 2, 3), row("D", None, None, None, 7)]
    english = in_plain_words(rows, 30, "en")
    assert english[0] == "A and B share the first place: the votes do not tell them apart."
    assert english[1] == "A shares rank 1 with 1 other; the votes leave open any rank from 1 to 2."
    assert english[3] == "C has rank 3; the votes leave open any rank from 2 to 3."
    assert english[4] == "D is provisional: 7 of the 30 votes that a rank needs."
    chinese = in_plain_words(rows, 30, "zh")
    assert len(chinese) == len(english)
    assert "并列第一" in chinese[0]
    assert in_plain_words([row("A", 1, 1, 1), row("B", 2, 2, 2)], 30, "en")[0].startswith("A is first")
    assert in_plain_words([row("D", None, None, None, 7)], 30, "en")[0].startswith("D is provisional")
    many = [row(name, 1, 1, 11) for name in "ABCDEFGHIJK"]
    assert "A, B, C and 8 others" in in_plain_words(many, 30, "en")[0]


def test_a_chinese_board_warns_in_chinese(arena):
    site = arena(("ok", "second"), min_votes=2)
    for i in range(3):
        site.browser().battle_and_vote(f"what is {i}?", "model_a", category="maths")
    page = {lang: site.browser().http.get(f"/leaderboard?lang={lang}").text for lang in ("en", "zh")}
    warned = site.arena.boards.board()["warnings"]
    assert {one.code for one in warned} >= {"few_clusters"}
    for one in warned:
        assert html.escape(one, quote=False) in html.unescape(page["en"])
        assert one not in html.unescape(page["zh"])
    assert "学生 t 分布" in page["zh"]
    assert "按投票者只有 3 个聚类" in page["zh"]


@pytest.mark.parametrize("code", cautions.TEXTS)
def test_every_caution_is_said_in_both_languages_with_the_same_parts(code):
    english, chinese = (set(re.findall(r"{(\w+)", WORDS[lang][f"caution_{code}"])) for lang in ("en", "zh"))
    assert english == chinese


def test_labels_stand_apart_and_ticks_are_round():
    places = apart([10, 11, 12, 90], 15, 0, 95)
    assert all(b - a >= 14.99 for a, b in itertools.pairwise(places))
    assert max(places) <= 95
    assert ticks(883, 1112) == [900, 950, 1000, 1050, 1100]
    assert ticks(5, 5) == [5]


# ----------------------------------------------------------------------------------------------------------- style


def test_the_style_board_is_the_same_from_the_database_and_from_an_export(database, tmp_path):  # noqa: F811
    filled(database, 40)
    write_ledger(database, tmp_path / "out.jsonl")
    for which in (Which(), Which("base"), Which("zh"), Which("overall", "maths")):
        live = LiveBoards(database, 10).style_board(which.board, which.category)
        with database.read() as connection:
            votes = vote_list.styled(connection, which, 20_000)
        assert live["votes"] == LiveBoards(database, 10).board(which.board, which.category)["votes"] == len(votes)
        assert live["style"].keys() == {"tokens", "headers", "bold", "lists"}
    replay = read_export(tmp_path / "out.jsonl")
    exported = style_board_of(replay.styled().present(), replay.families, "overall", 10)
    assert exported == LiveBoards(database, 10).style_board()


def test_style_control_takes_away_what_length_won(tmp_path):
    database = open_database(str(tmp_path / "arena.sqlite"), create=True, with_secret=True)  # noqa: F811
    rng = Random(5)
    with database.write() as connection:
        registry.enter(connection, [Entry(n, "base", n, n, None, {}) for n in ("long", "short", "mid")], NOW)
        for i in range(200):
            a, b = rng.sample((1, 2, 3), 2)
            words = [{1: 300, 2: 40, 3: 120}[one] + rng.randrange(200) for one in (a, b)]
            voter = voters.find_or_add(connection, f"s{i % 40}", NOW)
            new = stored.NewBattle(voter.id, "x", a, b, False, 0.1, "other", "en", f"p{i}", "?")
            name = stored.begin(connection, new, NOW)
            both = [stored.Answer("word " * n, "", n, 1, 0.1, 0.2, None, False, None) for n in words]
            stored.finish(connection, name, tuple(both), NOW)
            longer = (words[0] - words[1]) / (words[0] + words[1] + 1)
            left = rng.random() < 1 / (1 + math.exp(-4 * longer))  # all that counts is length
            cast_votes.cast(connection, f"s{i % 40}", name, Given("model_a" if left else "model_b"), RULES, NOW)
    boards = LiveBoards(database, 10)
    gap = lambda board: (lambda r: r["long"] - r["short"])({row["name"]: row["rating"] for row in board["rows"]})  # noqa: E731
    assert gap(boards.board()) > 150
    assert abs(gap(boards.style_board())) < gap(boards.board()) / 2
    assert boards.style_board()["style"]["tokens"]["ci_low"] > 0
    database.close()


def test_latency_and_cost_are_held_equal_where_votes_tell_them(tmp_path):
    """Voters here only want a quick answer; half the votes are on one without a price."""
    database = open_database(str(tmp_path / "arena.sqlite"), create=True, with_secret=True)  # noqa: F811
    rng = Random(6)
    with database.write() as connection:
        registry.enter(connection, [Entry(n, "base", n, n, None, {}) for n in ("slow", "quick", "mid", "free")], NOW)
        for i in range(300):
            a, b = rng.sample((1, 2, 3, 4), 2)
            took = [{1: 9.0, 2: 1.0, 3: 4.0, 4: 4.0}[one] * rng.uniform(0.5, 2) for one in (a, b)]
            cost = [None if one == 4 else rng.uniform(0.001, 0.01) for one in (a, b)]
            voter = voters.find_or_add(connection, f"s{i % 40}", NOW)
            new = stored.NewBattle(voter.id, "x", a, b, False, 0.1, "other", "en", f"p{i}", "?")
            name = stored.begin(connection, new, NOW)
            both = [
                stored.Answer("word " * rng.randrange(50, 99), "", 9, 1, 0.1, *one, False, None)
                for one in zip(took, cost, strict=True)
            ]
            stored.finish(connection, name, tuple(both), NOW)
            left = rng.random() < 1 / (1 + math.exp(4 * (took[0] - took[1]) / (took[0] + took[1])))
            cast_votes.cast(connection, f"s{i % 40}", name, Given("model_a" if left else "model_b"), RULES, NOW)
    boards = LiveBoards(database, 10)
    rating = lambda board: {row["name"]: row["rating"] for row in board["rows"]}  # noqa: E731
    gap = lambda board: rating(board)["quick"] - rating(board)["slow"]  # noqa: E731
    latency = boards.style_board(features=STYLES["latency"])
    assert gap(boards.style_board()) > 200
    assert abs(gap(latency)) < gap(boards.style_board()) / 2
    assert latency["style"]["latency"]["ci_high"] < 0
    assert latency["votes"] == 300
    cost = boards.style_board(features=STYLES["cost"])
    assert cost["style"].keys() == {"tokens", "headers", "bold", "lists", "latency", "cost"}
    assert cost["style"]["cost"]["ci_low"] < 0 < cost["style"]["cost"]["ci_high"]
    assert rating(cost).keys() == {"slow", "quick", "mid"}
    write_ledger(database, tmp_path / "out.jsonl")
    for features, live in ((STYLES["latency"], latency), (STYLES["cost"], cost)):
        assert style_board_from(read_export(tmp_path / "out.jsonl"), "overall", "", 10, features) == live
    database.close()


def test_votes_of_before_there_were_seconds_in_the_ledger_have_their_style_still():
    old = {"style": [[10, 0, 1, 0], [20, 1, 0, 0]]}
    assert tells(old, ("tokens", "lists"))
    assert not tells(old, ("tokens", "latency"))
    assert not tells({"style": None}, ("tokens",))
    assert not tells({"style": [[1, 0, 0, 0, 2.0, None], [1, 0, 0, 0, 2.0, 0.1]]}, ("cost",))


# ------------------------------------------------------------------------------------------------- tallies and days


def test_tallies_equal_a_scan_of_the_answers(database):  # noqa: F811
    filled(database, 30)
    with database.read() as connection:
        found = tallies.means(connection)
        pairs = {row.id: (row.left_id, row.right_id) for row in connection.execute(battles.select())}
        seen = {}
        for one in connection.execute(answers.select()):
            seen.setdefault(pairs[one.battle_id][one.side], []).append(one)
    assert found.keys() == seen.keys()
    for identity, mine in seen.items():
        assert found[identity].answers == len(mine)
        assert found[identity].tokens == pytest.approx(sum(one.tokens for one in mine) / len(mine))
        assert found[identity].cost_usd == pytest.approx(sum(one.cost_usd for one in mine) / len(mine))


def test_each_day_is_kept_as_it_ended_and_equals_the_board_of_its_votes(database, tmp_path):  # noqa: F811
    boards = LiveBoards(database, 10)
    for day in range(3):
        for i in range(12):
            at = NOW + day * DAY + 60 * i
            boards.close_days(at)
            name = battle(database, f"v{i % 4}", [(1, 2), (2, 3), (3, 1)][i % 3], f"{day} {i}", at=at)
            cast(database, name, ("model_a", "tie", "model_b", "model_a")[(i + day) % 4], f"v{i % 4}", at + 1)
    now = NOW + 5 * DAY
    boards.close_days(now)
    points = boards.trend("overall", "", now)
    days = sorted({point.day for point in points})
    assert days == [*(history.day_of(NOW) + day for day in range(3)), history.day_of(now)]
    last = {point.name: point for point in points if point.day == days[2]}
    assert {point.name: point.rating for point in points if point.day == days[3]} == {
        name: pytest.approx(point.rating) for name, point in last.items()
    }
    # The slow twin: an import knows the votes alone, and finds the same days in them.
    write_ledger(database, tmp_path / "out.jsonl")
    copy = open_database(str(tmp_path / "copy.sqlite"), create=True)
    read_ledger(copy, tmp_path / "out.jsonl")
    again = LiveBoards(copy, 10)
    again.close_days(now)
    for board, category in (("overall", ""), ("base", ""), ("en", "other")):
        one = boards.trend(board, category, now)
        two = again.trend(board, category, now)
        assert [(p.day, p.name, p.battles) for p in one] == [(p.day, p.name, p.battles) for p in two]
        assert [p.rating for p in one] == pytest.approx([p.rating for p in two], abs=1e-6)
    copy.close()


def test_a_day_is_kept_once_whoever_sees_it_end(database, where):  # noqa: F811
    filled(database, 10)
    other = open_database(where)
    for boards in (LiveBoards(database, 10), LiveBoards(other, 10), LiveBoards(database, 10)):
        boards.close_days(NOW + 2 * DAY)
    with database.read() as connection:
        rows = connection.execute(history_table.select()).all()
    assert len({(row.day, row.board, row.category, row.contestant_id) for row in rows}) == len(rows) > 0
    other.close()


def test_the_page_reads_no_votes_where_there_are_many(arena, monkeypatch):
    """Above the limit of clustered votes a board, its pictures and its days come from counts."""
    site = arena(("ok", "second"))
    site.browser().battle_and_vote()
    site.arena.boards._most = 0
    monkeypatch.setattr(LiveBoards, "_read_on", None)
    begun = time.process_time()
    assert site.browser().http.get("/leaderboard").status_code == 200
    assert time.process_time() - begun < 5
    with site.arena.database.read() as connection:
        assert counts.kept(connection)
