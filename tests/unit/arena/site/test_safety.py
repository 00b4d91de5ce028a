"""Hostile browsers, pages and models: forged requests, floods, forged addresses, scripts in answers."""

import re
import sqlite3
import threading
import time

import pytest
from starlette.requests import Request
from tests.unit.arena.site.endpoints import XSS

from moreseek.arena.live.markup import to_html
from moreseek.arena.store import database as opened
from moreseek.arena.web.safety import address_of
from moreseek.arena.web.words import WORDS


def code(response):
    return response.status_code, response.json()["error"]["code"]


def test_another_sites_page_cannot_ask_or_vote(arena):
    site = arena()
    browser, other = site.browser(), site.browser()
    battle = browser.battle()
    path = f"/api/battles/{battle.id}/vote"
    tries = [
        {"x-arena-token": ""},
        {"x-arena-token": other.token},
        {"x-arena-token": b"\xe2\x98\x83"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ]
    for headers in tries:
        assert code(browser.post(path, {"outcome": "tie"}, **headers)) == (403, "forged"), headers
        assert code(browser.post("/api/battles", {"prompt": "x"}, **headers)) == (403, "forged")
        assert code(browser.post(path.replace("vote", "undo"), {}, **headers)) == (403, "forged")
    origin = {"origin": site.url, "sec-fetch-site": "same-origin"}
    assert browser.post(path, {"outcome": "tie"}, **origin).status_code == 200


def test_without_a_session_there_is_nothing(arena):
    browser = arena().browser()
    browser.http.cookies.clear()
    assert code(browser.post("/api/battles", {"prompt": "x"})) == (403, "no_session")


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(arena):
    cookie = arena().browser().http.get("/").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


def test_the_cookie_is_for_https_alone_where_a_trusted_proxy_says_so(arena):
    behind = {"x-forwarded-proto": "https"}
    trusting = arena(trusted_proxies=["127.0.0.1"]).browser()
    assert "secure" in trusting.http.get("/", headers=behind).headers["set-cookie"].lower()
    assert "secure" not in trusting.http.get("/").headers["set-cookie"].lower()
    assert "secure" not in arena().browser().http.get("/", headers=behind).headers["set-cookie"].lower()


def test_every_answer_carries_the_headers_of_safety(arena):
    browser = arena().browser()
    for path in ("/", "/leaderboard", "/audit", "/leaderboard.json", "/static/battle.js", "/nothing"):
        headers = browser.http.get(path).headers
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_both_languages_say_everything():
    assert set(WORDS["en"]) == set(WORDS["zh"])


def test_the_pages_hold_no_inline_script_or_style(arena):
    browser = arena(title="<script>alert(1)</script>", suggestions=['"><img src=x onerror=alert(1)>']).browser()
    browser.battle_and_vote()
    for path in ("/", "/leaderboard", "/audit", "/?lang=zh", "/leaderboard?lang=zh", "/audit?lang=zh"):
        page = browser.http.get(path).text
        assert not re.search(r"<script(?![^>]*src=)|<style| style=|<[^>]+ on\w+=|javascript:|<img", page), path
        assert "object at 0x" not in page, path
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


@pytest.mark.parametrize(
    "text",
    [
        XSS, "<svg/onload=alert(1)>", "[x](data:text/html,1)", "<a href='//evil'>x</a>", "![](//evil/p)",
        "<https://evil.example>", "[r]: //evil\n[r]", "<iframe src=//evil>",
    ],
)  # fmt: skip
def test_markdown_of_models_is_harmless(text):
    html = to_html(text)
    assert not re.search(r"<(?:script|img|svg|a|iframe|style|object|form|input)\b", html)
    assert not re.search(r"<[^>]*\s(?:on\w+|src|href|style)=", html)


def test_deep_and_long_markdown_costs_little():
    begun = time.process_time()
    for text in (
        "> " * 20_000,
        "[" * 30_000,
        "*a " * 20_000,
        "`" * 30_000,
        "- " * 5_000,
        "|a" * 10_000 + "\n" + "|-" * 10_000,
    ):
        to_html(text)
    assert time.process_time() - begun < 5


def test_floods_are_slowed_down_by_session_and_by_address(arena):
    site = arena(battles_a_minute=2, battles_a_minute_per_address=3)
    browser = site.browser()
    for i in range(2):
        browser.battle(str(i))
    refused = browser.post("/api/battles", {"prompt": "x"})
    assert code(refused) == (429, "too_fast")
    assert refused.headers["retry-after"]
    other = site.browser()  # a new cookie from the same address
    other.battle()
    forged = {"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.9", "x-real-ip": "203.0.113.9"}
    assert code(site.browser().post("/api/battles", {"prompt": "x"}, **forged)) == (429, "too_fast")


def test_too_many_battles_at_once_are_turned_away(arena):
    site = arena(("hang", "second"), battles_at_once=1, silence_s=3)
    browser = site.browser()
    with browser.watch("x") as response:
        parts = response.iter_text()  # letting go of it would close the stream
        next(parts)
        assert code(site.browser().post("/api/battles", {"prompt": "y"})) == (503, "busy")


def request_from(peer, forwarded=None):
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    return Request({"type": "http", "client": (peer, 1), "headers": headers})


@pytest.mark.parametrize(
    ("peer", "forwarded", "proxies", "found"),
    [
        ("198.51.100.7", "203.0.113.1", [], "198.51.100.7"),
        ("198.51.100.7", "203.0.113.1", ["10.0.0.0/8"], "198.51.100.7"),
        ("10.0.0.1", "203.0.113.1", ["10.0.0.0/8"], "203.0.113.1"),
        ("10.0.0.1", "1.2.3.4, 203.0.113.1", ["10.0.0.0/8"], "203.0.113.1"),
        ("10.0.0.1", "1.2.3.4, 203.0.113.1, 10.0.0.2", ["10.0.0.0/8"], "203.0.113.1"),
        ("10.0.0.1", "rubbish", ["10.0.0.0/8"], "unknown"),
        ("2001:db8:1:2:3:4:5:6", None, [], "2001:db8:1:2::/64"),
        ("::ffff:198.51.100.7", None, [], "198.51.100.7"),
    ],
)
def test_forged_forwarding_headers_are_ignored(peer, forwarded, proxies, found):
    assert address_of(request_from(peer, forwarded), proxies) == found


def test_addresses_and_cookies_are_kept_as_keyed_hashes_only(arena, tmp_path):
    browser = arena().browser()
    browser.battle_and_vote()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("arena.sqlite*"))
    assert browser.http.cookies["arena_session"].encode() not in stored
    assert b"127.0.0.1" not in stored
    assert (tmp_path / "arena.sqlite.secret").stat().st_mode & 0o077 == 0


def test_a_locked_database_is_a_503_and_the_vote_can_be_cast_again(arena, tmp_path, monkeypatch):
    monkeypatch.setattr(opened, "_BUSY_MS", 50)
    site = arena()
    browser = site.browser()
    battle = browser.battle()
    holder = sqlite3.connect(tmp_path / "arena.sqlite", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    refused = browser.vote(battle.id)
    assert code(refused) == (503, "busy")
    assert "SELECT" not in refused.text
    holder.execute("ROLLBACK")
    holder.close()
    assert browser.vote(battle.id).status_code == 200


def test_a_short_lock_is_waited_for(arena, tmp_path):
    browser = arena().browser()
    battle = browser.battle()
    holder = sqlite3.connect(tmp_path / "arena.sqlite", isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, lambda: holder.execute("ROLLBACK")).start()
    assert browser.vote(battle.id).status_code == 200
