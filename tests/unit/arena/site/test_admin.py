"""The admin page: nothing without its key; what it does is done, public, and mostly taken back."""

import html
import re
import time

import pytest
from tests.unit.arena.site.running import running, settings

from moreseek.arena.live.fight import choose
from moreseek.arena.replay import Replay
from moreseek.arena.store import counts, ledger
from moreseek.arena.web.arena import ADMIN_KEY_VARIABLE
from moreseek.errors import InputError

KEY = "the house's own key of tests"


class House:
    """Somebody at the admin page."""

    def __init__(self, site, key=KEY):
        self.site, self.browser = site, site.browser(follow_redirects=True)
        self.page = self.browser.http.post("/admin/login", data={"key": key})

    def act(self, do, reason="because of a test", **fields):
        token = re.search(r'name="token" value="([0-9a-f]+)"', self.browser.http.get("/admin").text)
        form = {"token": token.group(1) if token else "", "do": do, "reason": reason, **fields}
        return self.browser.http.post("/admin/act?lang=en", data=form)

    def said(self, response):
        found = re.search(r'role="(?:alert|status)"[^>]*>([^<]*)<', response.text)
        return html.unescape(found.group(1)) if found else None


@pytest.fixture
def house(arena, monkeypatch):
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, KEY)
    return House(arena(("ok", "second", "third")))


def audit(site):
    return site.browser().http.get("/audit.json").json()


def counts_hold(site):
    with site.arena.database.read() as connection:
        return counts.kept(connection) == counts.recount(connection)


def drawn(site):
    """Who is drawn in 60 draws."""
    draws = [choose(site.arena.database, site.arena.boards.kept, site.arena.settings, time.time()) for _ in range(60)]
    return {side.name for draw in draws if draw for side in draw[1]}


def test_without_a_key_in_the_environment_there_is_no_admin_page(arena):
    http = arena().browser().http
    for path in ("/admin", "/admin/login", "/admin/act"):
        answer = http.get(path) if path == "/admin" else http.post(path, data={"key": ""})
        assert answer.status_code == 404


def test_a_weak_key_is_refused_at_the_start(arena, monkeypatch):
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, "short")
    with pytest.raises(InputError, match="16 characters"):
        arena()


def test_a_wrong_key_opens_nothing_and_guessing_is_slowed_down(house):
    other = house.site.browser()
    for _ in range(5):
        assert "view" not in other.http.post("/admin/login", data={"key": "guess"}).text
    assert 'name="token"' not in other.http.get("/admin").text
    assert other.http.post("/admin/login", data={"key": KEY}).status_code == 429
    assert other.http.post("/admin/act", data={"do": "pause", "name": "Ok-9000", "reason": "x"}).status_code == 303
    assert audit(house.site)["house"] == []


def test_other_pages_and_forged_passes_cannot_act(house):
    form = {"do": "pause", "name": "Ok-9000", "reason": "x"}
    assert house.browser.http.post("/admin/act", data={**form, "token": "0" * 64}).status_code == 403
    other = house.site.browser()
    other.http.cookies.set("arena_admin", "99999999999.forged")
    assert other.http.post("/admin/act", data=form).status_code == 303
    far = house.browser.http.post("/admin/login", data={"key": KEY}, headers={"origin": "https://evil.example"})
    assert far.status_code == 403
    assert audit(house.site)["house"] == []


def test_a_paused_contestant_is_not_drawn_until_that_is_taken_back(house):
    assert house.said(house.act("pause", name="Ok-9000")) == "Done."
    assert "Ok-9000" not in drawn(house.site)
    assert house.said(house.act("pause", name="Ok-9000")) == "'Ok-9000' is paused already."
    house.act("undo", action="1")
    assert "Ok-9000" in drawn(house.site)
    assert "already" in house.said(house.act("undo", action="1"))


def test_a_quota_and_a_retirement_outlive_a_restart(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, KEY)
    wanted = settings(endpoint.url, tmp_path / "arena.sqlite", ("ok", "second", "third"))
    with running(wanted) as site:
        house = House(site)
        house.act("quota", name="Ok-9000", quota="7")
        assert "once more" in house.said(house.act("retire", name="Second-9000"))
        house.act("retire", name="Second-9000", again="Second-9000")
    with running(wanted) as site:
        rows = {one["name"]: one for one in audit(site)["contestants"]}
        assert rows["Ok-9000"]["quota"] == 7
        assert rows["Second-9000"]["withdrawn_reason"] == "because of a test"
        house = House(site)
        assert house.said(house.act("undo", action="2")) == "this action is final."
        house.act("undo", action="1")
        assert {one["name"]: one["quota"] for one in audit(site)["contestants"]}["Ok-9000"] is None
        assert [one["action"] for one in audit(site)["house"]] == ["undo", "retire", "quota"]


def test_a_contestant_entered_here_fights_and_its_key_is_nowhere(arena, endpoint, monkeypatch, tmp_path):
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, KEY)
    monkeypatch.setenv("ARENA_KEY_NEW", "sk-very-secret-of-new")
    monkeypatch.setenv("OTHER_SECRET", "not for contestants")
    inside = endpoint.url.split("/")[2]
    site = arena(("ok", "second"), internal_endpoints=[inside])
    house = House(site)
    new = {"name": "New-9000", "class": "base", "url": endpoint.url, "model": "newcomer", "price_in": "0.5"}
    assert "ARENA_KEY_" in house.said(house.act("enter", **new, api_key_env="OTHER_SECRET"))
    assert "number" in house.said(house.act("enter", **{**new, "price_in": "cheap"}))
    assert house.said(house.act("enter", **new, api_key_env="ARENA_KEY_NEW")) == "Done."
    assert "never used again" in house.said(house.act("enter", **new))
    assert "New-9000" in drawn(site)
    house.act("pause", name="Ok-9000")
    site.browser().battle_and_vote()
    asked = [one for one in endpoint.asked if one["body"]["model"] == "newcomer"]
    assert asked[0]["key"] == "Bearer sk-very-secret-of-new"
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("arena.sqlite*"))
    shown = house.browser.http.get("/admin").text + site.browser().http.get("/audit").text
    for text in (stored.decode("latin-1"), shown):
        assert "sk-very-secret" not in text
        assert KEY not in text


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://10.0.0.8/v1", "http://localhost/v1", "file:///etc/x"])
def test_addresses_inside_cannot_be_entered_here(house, url):
    new = {"name": "New-9000", "class": "base", "url": url, "model": "m"}
    assert house.said(house.act("enter", **new)) not in (None, "Done.")
    assert len(audit(house.site)["contestants"]) == 3


def test_a_banned_voter_is_out_of_the_boards_and_comes_back_when_the_ban_is_taken_back(house):
    site, browser = house.site, house.site.browser()
    browser.battle_and_vote("one")
    voter = audit(site)["active"][0]["voter"]
    house.act("flag", voter=voter)
    assert audit(site)["flagged"] == [voter]
    assert site.arena.boards.board()["votes"] == 1
    house.act("ban", voter=voter, addresses="1")
    assert site.arena.boards.board()["votes"] == 0
    assert counts_hold(site)
    refused = site.browser().post("/api/battles", {"prompt": "from the same address"})
    assert refused.json()["error"]["code"] == "barred"
    house.act("undo", action="2")
    assert site.arena.boards.board()["votes"] == 1
    assert counts_hold(site)
    assert browser.battle_and_vote("two").json()["vote"]["set_apart"] is None


def test_who_is_vouched_for_comes_back_and_is_not_tested_again(house, monkeypatch):
    from moreseek.arena.live import examine
    from moreseek.arena.store.voters import exclude, find
    from moreseek.arena.trust import Finding

    site, browser = house.site, house.site.browser()
    browser.battle_and_vote("one")
    database = site.arena.database
    key = database.keyed("session", browser.http.cookies["arena_session"])
    with database.write() as connection:
        exclude(connection, find(connection, key).id, "coin", 0.001, 5.0)
    voter = audit(site)["excluded"][0]["voter"]
    house.act("restore", voter=voter)
    assert audit(site)["excluded"] == []
    monkeypatch.setattr(examine, "is_a_look", lambda *_: True)
    monkeypatch.setattr(examine, "too_fast", lambda *_: Finding("too_fast", 0.0))
    browser.battle_and_vote("two")
    assert site.arena.boards.board()["votes"] == 2
    house.act("undo", action="1")
    assert audit(site)["excluded"][0]["test"] == "coin"
    assert site.arena.boards.board()["votes"] == 0
    assert counts_hold(site)


def test_every_action_has_a_reason_a_line_in_the_ledger_and_a_line_on_the_audit_page(house):
    assert house.said(house.act("pause", reason="  ", name="Ok-9000")) == "say why; the audit page shows it."
    house.act("pause", reason="<b>overheats</b>", name="Ok-9000")
    with house.site.arena.database.read() as connection:
        entries = [entry for _, entry, _ in ledger.lines(connection)]
    assert entries[-1]["kind"] == "action"
    assert (entries[-1]["action"], entries[-1]["name"]) == ("pause", "Ok-9000")
    Replay(entries)
    page = house.site.browser().http.get("/audit?lang=en").text
    assert "&lt;b&gt;overheats&lt;/b&gt;" in page


def test_nonsense_is_refused_kindly(house):
    assert "no contestant" in house.said(house.act("pause", name="nobody"))
    assert "no voter" in house.said(house.act("ban", voter="v-none"))
    assert "no action" in house.said(house.act("undo", action="99"))
    assert "number" in house.said(house.act("undo", action="x"))
    assert "at least 1" in house.said(house.act("quota", name="Ok-9000", quota="-3"))
    assert house.act("explode").status_code == 400
    assert house.browser.http.post("/admin/act", content=b"x" * 300_000).status_code in (403, 413)
