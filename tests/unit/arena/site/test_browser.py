"""The pages in a real browser: ask, watch, vote by key, see the names, take the vote back; light, dark, narrow."""

import os
from pathlib import Path

import pytest
from tests.unit.arena.site.chromium import chromium

pytestmark = pytest.mark.slow


@pytest.fixture
def page(tmp_path):
    with chromium(tmp_path / "profile") as found:
        yield found


@pytest.fixture
def keep(tmp_path):
    """Where pictures go: MORESEEK_PICTURES, or a folder that is thrown away."""
    folder = Path(os.environ.get("MORESEEK_PICTURES", tmp_path))
    folder.mkdir(exist_ok=True)
    return folder


def ask(page, text):
    page.run(f"document.getElementById('prompt').value = {text!r}")
    page.run("document.getElementById('send').click()")


def test_a_battle_from_question_to_names(arena, page, keep):
    site = arena((("think", "reasoning"), ("xss", "reasoning")), suggestions=["What is 17 * 24?"])
    page.size(1280, 900)
    page.open(site.url + "/?lang=en")
    page.picture(keep / "battle-asked.png")
    ask(page, "What is 2 + 2?")
    page.until("!document.getElementById('voting').hidden")
    text = page.run("document.body.innerText")
    assert "9000" not in text
    assert "Let me think" not in text
    page.picture(keep / "battle-vote.png")
    assert page.run("document.querySelectorAll('.answer script, .answer img, .answer a').length") == 0
    assert page.run("document.querySelectorAll('.answer h1').length") == 1
    page.press("1")
    page.until("!document.getElementById('after').hidden")
    text = page.run("document.body.innerText")
    assert "Think-9000" in text
    assert "Xss-9000" in text
    assert page.run("document.querySelector('details').innerText") is not None
    page.picture(keep / "battle-revealed.png")
    page.run("document.getElementById('undo').click()")
    page.until("document.getElementById('status').textContent === 'The vote was taken back.'")
    page.run("document.getElementById('next').click()")
    assert page.run("document.getElementById('prompt').value") == ""
    assert page.said == []


def test_what_goes_wrong_is_said_and_one_can_ask_again(arena, page):
    site = arena(("ok", "fail"))
    page.open(site.url + "/?lang=en")
    ask(page, "What is 2 + 2?")
    page.until("document.getElementById('status').textContent.includes('does not count')")
    assert not page.run("document.getElementById('send').disabled")
    assert page.run("document.getElementById('prompt').value") == "What is 2 + 2?"


def test_private_things_are_warned_of_once(arena, page):
    site = arena()
    page.open(site.url + "/?lang=en")
    ask(page, "write to me@example.org")
    page.until("document.getElementById('status').textContent.includes('e-mail')")
    ask(page, "write to me@example.org")
    page.until("!document.getElementById('voting').hidden")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_screen(arena, page, keep, width, dark):
    site = arena(("ok", "second", "xss"), min_votes=2)
    browser = site.browser()
    for i in range(8):
        browser.battle_and_vote(f"question {i}", outcome=("model_a", "tie", "model_b")[i % 3])
    page.size(width, 900, dark)
    for path in ("/?lang=en", "/leaderboard?lang=zh", "/audit?lang=en"):
        page.open(site.url + path)
        assert page.run("document.documentElement.scrollWidth") <= width, path
        page.picture(
            keep / f"{path.partition('?')[0].strip('/') or 'battle'}-{width}-{'dark' if dark else 'light'}.png"
        )
    page.open(site.url + "/?lang=en")
    ask(page, "What is 2 + 2?")
    page.until("!document.getElementById('voting').hidden")
    assert page.run("document.documentElement.scrollWidth") <= width
    page.picture(keep / f"vote-{width}-{'dark' if dark else 'light'}.png")
    assert page.said == []


def test_the_theme_is_chosen_and_kept(arena, page):
    site = arena()
    page.size(800, 600)
    page.open(site.url + "/")
    page.run("document.getElementById('theme').click()")
    assert page.run("document.documentElement.dataset.theme") == "dark"
    page.open(site.url + "/leaderboard")
    page.until("document.documentElement.dataset.theme === 'dark'")
