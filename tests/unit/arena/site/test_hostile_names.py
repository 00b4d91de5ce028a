"""Names that want to be more than names: refused where nobody could read them aright, else text wherever they stand."""

import csv
import html
import io
import json
from html.parser import HTMLParser

import pytest
from tests.unit.arena.site.test_admin import KEY, House

from moreseek.arena.web.arena import ADMIN_KEY_VARIABLE

REFUSED = [
    "<img src=x onerror=pwned=1>", "</script><script>alert(1)</script>", "GPT\u202e4-esrever", "zero\u200bwidth",
    "\u2066isolated\u2069", "bell\x07", "two\nlines", "NUL\x00", "del\x7f", "\ufeffmark", "n" * 81, "   ",
]  # fmt: skip
NASTY = [
    "\"&'{{7*7}}$(id)`id` onerror=pwned=1", "javascript:alert(1)", "Robert'); DROP TABLE votes;--", "../../etc/passwd",
    "=HYPERLINK(1)", "%00%0a", "\\input{/etc/passwd}_^#", "名字 😀 ﷽", "Z\u0351\u036b\u0343" * 20, "n" * 80,
]  # fmt: skip


class Tags(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def house(arena, endpoint, monkeypatch):
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, KEY)
    address = endpoint.url.split("/")[2]
    return House(arena(("ok", "second"), internal_endpoints=[address], min_votes=1))


def enter(house, endpoint, name, **more):
    fields = {"name": name, "class": "base", "url": endpoint.url, "model": "ok", "family": "f", **more}
    return house.act("enter", **fields)


def registered(house):
    return [one["name"] for one in house.browser.http.get("/audit.json").json()["contestants"]]


@pytest.mark.parametrize("name", REFUSED)
def test_a_name_that_cannot_be_read_aright_is_refused_and_said_why(house, endpoint, name):
    answer = enter(house, endpoint, name)
    if name.strip("\x00 ") and "\x00" not in name:
        assert answer.status_code == 400
        assert "1 to 80 visible characters" in html.unescape(answer.text)
    assert "<img" not in answer.text
    assert "<script>alert" not in answer.text
    assert name not in registered(house)


@pytest.mark.parametrize("field", ["family", "model"])
def test_what_stands_beside_a_name_is_one_line_that_can_be_read(house, endpoint, field):
    for text in ("x\u202ey", "a\nb", "y" * 201):
        answer = enter(house, endpoint, "fine", **{field: text})
        assert answer.status_code == 400
        assert "visible characters" in answer.text
    assert "fine" not in registered(house)
    assert enter(house, endpoint, "fine", **{field: "<i>&amp;"}).status_code == 200
    assert "<i>" not in house.browser.http.get("/admin").text + house.browser.http.get("/audit").text


def test_nasty_names_are_text_on_the_admin_page_in_chats_and_after_the_vote(house, endpoint):
    for name in NASTY:
        assert enter(house, endpoint, name, family=name[:60]).status_code == 200, name
    pages = [house.browser.http.get(path).text for path in ("/admin", "/audit", "/leaderboard?lang=zh", "/votes")]
    assert all(name in html.unescape(pages[0]) and name in html.unescape(pages[1]) for name in NASTY)
    for page in pages:
        made = Tags(page).found
        assert all("src" in attributes for tag, attributes in made if tag == "script")
        assert not [key for _, attributes in made for key in attributes if key.startswith("on") or key == "pwned"]
    person = house.site.browser()
    assert set(NASTY) < set(person.http.get("/api/contestants").json()["names"])
    for pair in zip(NASTY, [*NASTY[1:], NASTY[0]], strict=True):
        chat = {"contestants": list(pair), "said": [[], []], "prompt": "hello"}
        lines = person.post("/api/chats", chat).text.split("\n\n")
        events = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        assert [one["name"] for one in next(event["facts"] for event in events if "facts" in event)] == list(pair)
    revealed = set()
    for i in range(40):
        revealed |= {one["name"] for one in person.battle_and_vote(f"q {i}").json()["reveal"]}
    assert len(revealed & set(NASTY)) > len(NASTY) // 2
    rows = csv.DictReader(io.StringIO(person.http.get("/leaderboard.csv").text))
    assert not {row["name"][0] for row in rows} & set("=+-@")
    for name in NASTY:
        assert house.said(house.act("pause", name=name)) == "Done.", name
    assert not set(NASTY) & set(person.http.get("/api/contestants").json()["names"])


@pytest.mark.parametrize(
    "path", ["/votes?before=%00", "/leaderboard?judge=%00", "/admin?voter=%00", "/embed/%00", "/%00"]
)
def test_an_address_with_a_nul_is_malformed(house, path):
    answer = house.browser.http.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "malformed")
    assert "content-security-policy" in answer.headers
