"""One vote a battle: by its voter, after both answers, in time, whatever is tried."""

import threading
import time

from moreseek.arena.store import counts
from moreseek.arena.store.tables import votes
from moreseek.arena.store.voters import exclude


def stored(site):
    with site.arena.database.read() as connection:
        return list(connection.execute(votes.select()))


def counts_hold(site):
    with site.arena.database.read() as connection:
        return counts.kept(connection) == counts.recount(connection)


def code(response):
    return response.status_code, response.json()["error"]["code"]


def test_a_battle_ends_with_a_vote_and_names_and_the_board_knows_it(arena):
    site = arena()
    browser = site.browser()
    battle = browser.battle(category="maths")
    answer = browser.vote(battle.id, "model_b").json()
    assert {one["name"] for one in answer["reveal"]} == {"Ok-9000", "Second-9000"}
    assert {one["model"] for one in answer["reveal"]} == {"ok", "second"}
    board = browser.http.get("/leaderboard.json").json()
    assert board["votes"] == 1
    best = max(board["rows"], key=lambda row: row["rating"])
    assert best["name"] == answer["reveal"][1]["name"]
    for query, there in (("board=base", 1), ("board=reasoning", 0), ("category=maths", 1), ("category=other", 0),
                         ("board=en", 1), ("board=zh", 0)):  # fmt: skip
        assert browser.http.get(f"/leaderboard.json?{query}").json()["votes"] == there, query
    for query in ("category=no-such", "board=no-such"):
        assert browser.http.get(f"/leaderboard.json?{query}").status_code == 404
        assert browser.http.get(f"/leaderboard.csv?{query}").status_code == 404
        assert browser.http.get(f"/leaderboard?{query}").status_code == 303


def test_the_same_vote_again_changes_nothing_and_another_is_refused(arena):
    site = arena()
    browser = site.browser()
    battle = browser.battle()
    first, again = browser.vote(battle.id).json(), browser.vote(battle.id).json()
    assert not first["vote"]["repeated"]
    assert again["vote"] == {**first["vote"], "repeated": True}
    assert code(browser.vote(battle.id, "tie")) == (409, "already_voted")
    assert len(stored(site)) == 1
    assert counts_hold(site)


def test_many_votes_at_once_count_once(arena):
    site = arena()
    browser = site.browser()
    battle = browser.battle()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(browser.vote(battle.id))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.status_code for one in answers] == [200] * 12
    assert sum(not one.json()["vote"]["repeated"] for one in answers) == 1
    assert len(stored(site)) == 1
    assert counts_hold(site)


def test_nobody_votes_on_anothers_battle(arena):
    site = arena()
    owner, stranger, other = site.browser(), site.browser(), site.browser()
    battle = owner.battle()
    stranger.battle()  # a stranger with a row of its own, and one without
    for someone in (stranger, other):
        assert code(someone.vote(battle.id)) == (404, "no_such_battle")
        assert code(someone.post(f"/api/battles/{battle.id}/undo", {})) == (404, "no_such_battle")
    assert code(owner.vote("A" * 22)) == (404, "no_such_battle")
    assert stored(site) == []


def test_no_vote_before_both_answers_have_ended(arena):
    site = arena(("slow", "second"))
    browser = site.browser()
    with browser.watch("hi") as response:
        parts = response.iter_text()
        identity = next(parts).split('"')[3]
        assert code(browser.vote(identity)) == (409, "not_ended")
        for _ in parts:
            pass
    assert browser.vote(identity).status_code == 200


def test_a_battle_that_the_voter_left_takes_no_vote(arena):
    site = arena(("hang", "second"), silence_s=5, answer_timeout_s=6)
    browser = site.browser()
    with browser.watch("hi") as response:
        identity = next(response.iter_text()).split('"')[3]
    until = time.monotonic() + 5
    while code(browser.vote(identity)) != (409, "void") and time.monotonic() < until:
        time.sleep(0.02)
    assert code(browser.vote(identity)) == (409, "void")
    assert site.arena.seats._value == site.arena.settings.arena.battles_at_once


def test_a_late_vote_and_a_late_undo_are_refused(arena):
    site = arena(vote_window_s=0.5, undo_s=0.05)  # half a second: a busy machine must not fail it
    browser = site.browser()
    late = browser.battle()
    time.sleep(0.6)
    assert code(browser.vote(late.id)) == (409, "too_late")
    battle = browser.battle("another")
    assert browser.vote(battle.id).status_code == 200
    time.sleep(0.1)
    assert code(browser.post(f"/api/battles/{battle.id}/undo", {})) == (409, "too_late")


def test_a_vote_taken_back_leaves_the_board_and_the_battle_takes_no_other(arena):
    site = arena()
    browser = site.browser()
    battle = browser.battle()
    browser.vote(battle.id)
    for _ in range(2):
        assert browser.post(f"/api/battles/{battle.id}/undo", {}).json()["vote"]["undone"]
    assert browser.http.get("/leaderboard.json").json()["votes"] == 0
    assert code(browser.vote(battle.id)) == (409, "already_voted")
    assert counts_hold(site)


def test_a_question_counts_once_a_day_and_votes_over_the_cap_are_kept_apart(arena):
    site = arena(rated_votes_a_day=2)
    browser = site.browser()
    apart = [
        browser.battle_and_vote(prompt).json()["vote"]["set_apart"]
        for prompt in ("one", " ONE ", "two", "three", "four")
    ]
    assert apart == [None, "repeat", None, "cap", "cap"]
    assert browser.http.get("/leaderboard.json").json()["votes"] == 2
    assert counts_hold(site)


def test_new_cookies_do_not_lift_the_cap_of_an_address(arena):
    site = arena(rated_votes_a_day_per_address=2)
    told = [site.browser().battle_and_vote(f"q{i}").json() for i in range(4)]
    assert all("vote" in answer for answer in told), told
    assert [answer["vote"]["set_apart"] for answer in told] == [None, None, "cap", "cap"]


def test_an_excluded_voter_is_out_of_every_board_and_told_nothing_precise(arena):
    site = arena()
    browser, other = site.browser(), site.browser()
    browser.battle_and_vote("one")
    other.battle_and_vote("two")
    voter = stored(site)[0].voter_id
    with site.arena.database.write() as connection:
        assert exclude(connection, voter, "side", 0.001, time.time()) == 1
        assert exclude(connection, voter, "side", 0.001, time.time()) == 0
    assert browser.http.get("/leaderboard.json").json()["votes"] == 1
    assert browser.battle_and_vote("three").json()["vote"]["set_apart"] == "voter"
    assert counts_hold(site)
    assert "side" in browser.http.get("/audit").text


def test_malformed_requests_are_refused_kindly(arena):
    site = arena()
    browser = site.browser()
    header = {"x-arena-token": browser.token, "content-type": "application/json"}
    post = lambda path, content, **more: browser.http.post(path, content=content, headers={**header, **more})  # noqa: E731
    battle = browser.battle()
    vote = f"/api/battles/{battle.id}/vote"
    assert code(post(vote, b"{")) == (400, "malformed")
    assert code(post(vote, b"[" * 100_000)) == (400, "malformed")
    assert code(post(vote, b'{"outcome": 1}')) == (400, "malformed")
    assert code(post(vote, b'{"outcome": "tie", "voter": 3}')) == (400, "malformed")
    assert code(post(vote, b'{"outcome": "model_c"}')) == (400, "no_such_outcome")
    assert code(post(vote, b"x" * 300_000)) == (413, "too_large")
    assert code(post(vote, b"\xff\xfe")) == (400, "malformed")
    assert code(post(vote, b'{"outcome": "tie"}', **{"content-type": "text/plain"})) == (415, "not_json")
    assert code(browser.post("/api/battles", {"prompt": "  "})) == (400, "empty")
    assert code(browser.post("/api/battles", {"prompt": "x" * 9000})) == (413, "too_long")
    assert code(browser.post("/api/battles", {"prompt": "x", "category": "?"})) == (400, "no_such_category")
    assert post("/api/battles", b'{"prompt": "half \\ud83d of one"}').status_code in (200, 400)
    assert browser.battle("a\x00b \N{GRINNING FACE}").html is not None
    assert browser.vote(battle.id).status_code == 200
