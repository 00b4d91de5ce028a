"""Several turns in a blind battle; named and direct chats, which are never votes; the house's filter of questions."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from moreseek.arena.store import battles as stored
from moreseek.arena.store import counts, tallies
from moreseek.arena.store.export import preferences
from moreseek.arena.store.tables import chats, votes
from moreseek.errors import InputError


def code(response):
    return response.status_code, response.json()["error"]["code"]


def further(browser, battle, prompt="And why?"):
    return browser.post(f"/api/battles/{battle}/turns", {"prompt": prompt})


def talk(browser, names, prompt="Hello?", said=None):
    body = {"contestants": names, "prompt": prompt, "said": said if said is not None else [[] for _ in names]}
    return browser.post("/api/chats", body)


def events(response):
    return [json.loads(line[6:]) for line in response.text.split("\n\n") if line.startswith("data: ")]


# ---------------------------------------------------------------------------------------------------------- turns


def test_a_further_question_goes_to_the_same_two_with_what_each_said(endpoint, arena):
    site = arena(("ok", "xss"))
    browser = site.browser()
    battle = browser.battle("First?")
    endpoint.asked.clear()
    seen = events(further(browser, battle.id, "Second?"))
    assert len(seen[-1]["end"]) == 2
    assert "9000" not in json.dumps(seen)
    for asked in endpoint.asked:
        messages = asked["body"]["messages"]
        assert [one["role"] for one in messages] == ["user", "assistant", "user"]
        assert (messages[0]["content"], messages[2]["content"]) == ("First?", "Second?")
        said = "word1 " if asked["body"]["model"] == "ok" else "<script>"
        assert said in messages[1]["content"]
    answer = browser.vote(battle.id).json()
    assert {one["name"] for one in answer["reveal"]} == {"Ok-9000", "Xss-9000"}
    assert [one["tokens"] for one in answer["reveal"]] == [120, 120]
    assert code(further(browser, battle.id)) == (409, "already_voted")
    assert list(preferences(site.arena.database)) == []


def test_no_vote_while_a_further_answer_runs_and_none_on_a_turn_that_failed(endpoint, arena):
    site = arena(("ok", "slow"))
    browser = site.browser()
    battle = browser.battle()
    body, headers = {"prompt": "On?"}, {"x-arena-token": browser.token}
    with browser.http.stream("POST", f"/api/battles/{battle.id}/turns", json=body, headers=headers) as response:
        parts = response.iter_text()
        next(parts)
        assert code(browser.vote(battle.id)) == (409, "not_ended")
        assert code(further(browser, battle.id)) == (409, "not_ended")
        for _ in parts:
            pass
    assert browser.vote(battle.id).status_code == 200


def test_a_turn_that_fails_makes_the_battle_void(arena, monkeypatch):
    site = arena(("ok", "second"))
    browser = site.browser()
    battle = browser.battle()
    with site.arena.database.write() as connection:
        from moreseek.arena.store import turns

        key = site.arena.database.keyed("session", browser.http.cookies["arena_session"])
        found = turns.begin(connection, key, battle.id, "On?", 8, 5.0)
        stored.give_up(connection, battle.id, stored.FAILED, 6.0, found.battle.left_id, "hung", found.turn)
    assert code(browser.vote(battle.id)) == (409, "void")
    assert code(further(browser, battle.id)) == (409, "void")


def test_turns_have_an_end_an_owner_and_a_speed(arena):
    site = arena(max_turns=2, battles_a_minute=3)
    browser, other = site.browser(), site.browser()
    battle = browser.battle()
    other.battle()
    assert code(further(other, battle.id)) == (404, "no_such_battle")
    assert further(browser, battle.id).status_code == 200
    assert code(further(browser, battle.id)) == (409, "too_many_turns")
    assert code(further(browser, battle.id, "  ")) == (400, "empty")
    browser.battle("x")
    assert code(further(browser, battle.id)) == (429, "too_fast")


# ---------------------------------------------------------------------------------------------------------- chats


def test_chats_by_name_are_no_battles_and_no_votes_and_not_kept(endpoint, arena, tmp_path):
    site = arena()
    browser = site.browser()
    direct = events(talk(browser, ["Ok-9000"], "a very private word"))
    assert direct[0] == {"chat": ["Ok-9000"]}
    assert direct[-1]["facts"][0]["tokens"] == 60
    said = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "1."}]
    named = events(talk(browser, ["Ok-9000", "Second-9000"], "Two?", [said, said]))
    assert len(named[-1]["end"]) == 2
    assert [one["content"] for one in endpoint.asked[-1]["body"]["messages"]] == ["One?", "1.", "Two?"]
    with site.arena.database.read() as connection:
        assert connection.execute(votes.select()).all() == []
        assert len(connection.execute(chats.select()).all()) == 2
        assert counts.kept(connection) == {}
        assert tallies.means(connection) == {}
    assert b"very private" not in b"".join(path.read_bytes() for path in tmp_path.glob("arena.sqlite*"))
    assert site.browser().http.get("/audit.json").json()["chats"] == 2


def test_chats_are_for_those_who_are_there_and_in_form(arena):
    site = arena(max_turns=2)
    browser = site.browser()
    assert browser.http.get("/api/contestants").json() == {"names": ["Ok-9000", "Second-9000"]}
    assert code(talk(browser, ["Nobody"])) == (409, "not_here")
    assert code(talk(browser, ["Ok-9000", "Ok-9000"])) == (400, "same_twice")
    assert code(talk(browser, [])) == (400, "malformed")
    assert code(talk(browser, ["Ok-9000"], said=[])) == (400, "malformed")
    assert code(talk(browser, ["Ok-9000"], said=[[{"role": "assistant", "content": "x"}]])) == (400, "malformed")
    assert code(talk(browser, ["Ok-9000"], said=[[{"role": "system", "content": "x"}]])) == (400, "malformed")
    both = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}] * 2
    assert code(talk(browser, ["Ok-9000"], said=[both])) == (409, "too_many_turns")
    assert code(browser.post("/api/chats", {}, **{"x-arena-token": "forged"})) == (403, "forged")


def test_a_house_offers_the_modes_it_wants(arena):
    site = arena(modes=["blind"])
    browser = site.browser()
    assert code(talk(browser, ["Ok-9000"])) == (403, "no_such_mode")
    assert 'data-mode="direct"' not in browser.page
    only = arena(modes=["direct"]).browser()
    assert code(only.post("/api/battles", {"prompt": "x"})) == (403, "no_such_mode")


def test_a_contestant_that_fails_in_a_chat_is_named_and_rests(arena):
    site = arena(("ok", "fail"))
    browser = site.browser()
    assert "Fail-9000" in events(talk(browser, ["Fail-9000"]))[-1]["error"]
    assert code(talk(browser, ["Fail-9000"])) == (409, "not_here")


# ----------------------------------------------------------------------------------------------------------- tags


def test_tags_are_optional_and_only_those_of_the_house(arena):
    site = arena(tags=["clear", "wrong"])
    browser = site.browser()
    battle = browser.battle()
    assert code(browser.vote(battle.id, tags=["rude"])) == (400, "no_such_tag")
    assert browser.vote(battle.id, tags=["clear", "clear"]).status_code == 200
    with site.arena.database.read() as connection:
        assert [row.tags for row in connection.execute(votes.select())] == ['["clear"]']


# --------------------------------------------------------------------------------------------------------- filter


def refuses_pie(question):
    if "break" in question:
        raise RuntimeError("the filter's own trouble")
    if "odd" in question:
        return 7
    return "No questions about pie." if "pie" in question else None


def test_a_function_filters_every_kind_of_question_before_anything_is_kept_or_sent(endpoint, arena):
    site = arena(content_filter=f"{__name__}:refuses_pie")
    browser = site.browser()
    battle = browser.battle("About cake?")
    endpoint.asked.clear()
    for refused in (
        browser.post("/api/battles", {"prompt": "About pie?"}),
        further(browser, battle.id, "And pie?"),
        talk(browser, ["Ok-9000"], "pie"),
    ):
        assert code(refused) == (422, "filtered")
        assert refused.json()["error"]["message"] == "No questions about pie."
    for prompt in ("break it", "something odd"):
        assert code(browser.post("/api/battles", {"prompt": prompt})) == (503, "filter_down")
    assert endpoint.asked == []
    assert browser.vote(battle.id).status_code == 200


@contextmanager
def hook(answer):
    """An HTTP hook that says ``answer`` (status, body)."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_POST(self):
            server.heard.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            status, text = server.answer
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.answer, server.heard = answer, []
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def test_a_hook_filters_and_what_it_cannot_judge_is_not_sent(endpoint, arena):
    with hook((200, b'{"allowed": true}')) as server:
        browser = arena(content_filter=f"http://127.0.0.1:{server.server_address[1]}/check").browser()
        assert browser.battle("fine?").html is not None
        assert server.heard == [{"text": "fine?"}]
        endpoint.asked.clear()
        ask = lambda: browser.post("/api/battles", {"prompt": "x"})  # noqa: E731
        server.answer = (200, b'{"allowed": false, "message": "Not here."}')
        assert ask().json()["error"]["message"] == "Not here."
        server.answer = (200, b'{"allowed": false}')
        assert code(ask()) == (422, "filtered")
        for bad in ((500, b"{}"), (200, b"garbage"), (200, b"{}"), (200, b'{"allowed": "yes"}'), (302, b"")):
            server.answer = bad
            assert code(ask()) == (503, "filter_down"), bad
    assert code(ask()) == (503, "filter_down")  # it is gone
    assert endpoint.asked == []


def test_a_filter_that_is_not_there_is_named_at_the_start(arena):
    with pytest.raises(InputError, match=r"content_filter.*no_such"):
        arena(content_filter="no_such_package:f")
