"""The modes of the battle page, the admin page and the boards' pictures in a real browser."""

import pytest
from tests.unit.arena.site.test_browser import ask, keep, page  # noqa: F401

from moreseek.arena.web.arena import ADMIN_KEY_VARIABLE

pytestmark = pytest.mark.slow


def mode(page, name):  # noqa: F811
    page.run(f"document.querySelector('[data-mode={name}].mode').click()")
    page.until("document.getElementById('model-b').options.length > 0")


def test_a_battle_of_two_turns_then_a_vote_with_a_tag(arena, page, keep):  # noqa: F811
    site = arena(("ok", "second"))
    page.size(1280, 900)
    page.open(site.url + "/?lang=en")
    ask(page, "What is 2 + 2?")
    page.until("!document.getElementById('voting').hidden")
    page.run("document.getElementById('further').value = 'And 3 + 3?'")
    page.run("document.getElementById('send-on').click()")
    page.until("!document.getElementById('voting').hidden && document.querySelectorAll('.answer').length === 4")
    page.picture(keep / "turns.png")
    page.run("document.querySelector('#marks input').click()")
    page.run("document.querySelector('[data-outcome=tie]').click()")
    page.until("!document.getElementById('after').hidden")
    assert "Ok-9000" in page.run("document.body.innerText")
    page.run("document.getElementById('next').click()")
    assert page.run("document.querySelectorAll('.answer').length") == 0
    assert page.said == []


@pytest.mark.parametrize(("name", "answers"), [("named", 2), ("direct", 1)])
def test_chats_by_name_have_no_vote(arena, page, keep, name, answers):  # noqa: F811
    site = arena(("ok", "second"))
    page.size(390, 800, dark=True)
    page.open(site.url + "/?lang=zh")
    mode(page, name)
    ask(page, "2 + 2?")
    page.until("!document.getElementById('on').hidden")
    assert page.run("document.getElementById('voting').hidden")
    page.press("1")  # the key of a vote
    assert page.run("document.querySelectorAll('.answer').length") == answers
    page.run("document.getElementById('further').value = 'more'; document.getElementById('send-on').click()")
    page.until(
        f"document.querySelectorAll('.answer').length === {2 * answers} && !document.getElementById('on').hidden"
    )
    page.picture(keep / f"{name}.png")
    assert "Ok-9000" in page.run("document.getElementById('head-a').textContent")
    assert page.run("document.documentElement.scrollWidth") <= 390
    assert site.browser().http.get("/leaderboard.json").json()["votes"] == 0
    assert page.said == []


def test_suggestions_follow_the_category(arena, page):  # noqa: F811
    site = arena(suggestions=["Anything?"], category_suggestions={"maths": ["Is 221 prime?"]})
    page.open(site.url + "/?lang=en")
    shown = "[...document.querySelectorAll('.suggestion')].map((one) => one.textContent)"
    assert page.run(shown) == ["Anything?", "↻ A question for me"]
    page.run("const c = document.getElementById('category'); c.value = 'maths'; c.dispatchEvent(new Event('change'))")
    assert page.run(shown)[0] == "Is 221 prime?"
    page.run("document.querySelector('.suggestion').click()")
    assert page.run("document.getElementById('prompt').value") == "Is 221 prime?"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_admin_votes_and_pictures_fit_the_screen(arena, page, keep, monkeypatch, width, dark):  # noqa: F811
    key = "a key that tests use"
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, key)
    site = arena(("ok", "second", "xss"), min_votes=2)
    browser = site.browser()
    for i in range(8):
        browser.battle_and_vote(f"question {i}", outcome=("model_a", "tie", "model_b")[i % 3])
    page.size(width, 900, dark)
    page.open(site.url + "/admin?lang=en")
    page.run(f"document.getElementById('key').value = {key!r}; document.querySelector('main form').submit()")
    page.until("!!document.querySelector('.cards')")
    page.run("document.querySelector('.cards details').open = true")
    page.run("document.querySelector('.cards .act [name=reason]').value = 'too hot'")
    page.run("document.querySelector('.cards .act').submit()")
    page.until("!!document.querySelector('.log') && document.readyState === 'complete'")
    shade = "dark" if dark else "light"
    page.picture(keep / f"admin-{width}-{shade}.png")
    for path in (
        "/admin?lang=zh",
        "/votes?lang=en",
        "/leaderboard?lang=en",
        "/embed/trend?lang=en",
        "/plots/matrix.svg",
    ):
        page.open(site.url + path)
        if not path.startswith("/plots"):
            assert page.run("document.documentElement.scrollWidth") <= width, path
        page.picture(keep / f"{path.partition('?')[0].strip('/').replace('/', '-')}-{width}-{shade}.png")
    assert [said for said in page.said if "favicon" not in said and "Password forms" not in said] == []
