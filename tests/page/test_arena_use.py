"""The arena in a browser as people use it: by keyboard alone, over several turns, with reloads; and hostile texts."""

import json
from pathlib import Path

import pytest
from tests.page import arenas
from tests.page.conftest import until
from tests.unit.arena.site.endpoints import endpoint as run_endpoint
from tests.unit.arena.site.running import running

from moreseek.arena.store import admin_view
from moreseek.arena.store.tables import battles, ends, votes
from moreseek.arena.web.arena import ADMIN_KEY_VARIABLE

CORPUS = json.loads(Path(__file__).with_name("xss.json").read_text(encoding="utf-8"))
NAMES = set(arenas.STRENGTHS)
NO_HARM = """(() => {
  const bad = [], never = "script img iframe style form object embed link meta base svg math audio video a".split(" ");
  if (typeof pwned !== "undefined") bad.push("a script ran");
  for (const node of document.querySelectorAll("#answers *")) {
    if (never.includes(node.localName)) bad.push(node.outerHTML.slice(0, 80));
    for (const { name } of node.attributes) if (/^on|^style$|^href$|^src$/.test(name)) bad.push(name);
  }
  return bad;
})()"""


@pytest.fixture(scope="module")
def endpoint():
    with run_endpoint() as found:
        yield found


@pytest.fixture
def script():
    return arenas.Script()


@pytest.fixture
def site(endpoint, script, tmp_path, monkeypatch):
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, arenas.KEY)
    with running(arenas.wanted(endpoint, tmp_path / "arena.sqlite", script)) as found:
        yield found


@pytest.fixture
def visited(site, browse):
    return browse(f"{site.url}/?lang=en")


def rows(site, table):
    with site.arena.database.read() as connection:
        return connection.execute(table.select()).all()


def asked(page, text):
    page.fill("#prompt", text)
    page.press("#prompt", "Control+Enter")
    page.wait_for_selector("#voting:visible")


def status(page):
    return page.locator("#status").inner_text()


def test_a_battle_by_keyboard_alone(site, visited):
    page, keys = visited, visited.keyboard
    for _ in range(20):
        keys.press("Tab")
        if page.evaluate("document.activeElement.id") == "prompt":
            break
    keys.type("What is 2 + 2?")
    keys.press("Control+Enter")
    page.wait_for_selector("#voting:visible")
    assert not NAMES & set(page.locator("body").inner_text().split())
    keys.press("2")
    page.wait_for_selector("#after:visible")
    assert [vote.outcome for vote in rows(site, votes)] == [1]
    assert page.evaluate("document.activeElement.id") == "next"
    assert sum(name in page.locator("#answers").inner_text() for name in NAMES) == 2
    keys.press("Tab")
    keys.press("Enter")  # take it back
    until(page, "document.getElementById('status').textContent === 'The vote was taken back.'")
    assert page.evaluate("document.activeElement.id") == "next"
    keys.press("Enter")
    assert page.evaluate("document.activeElement.id") == "prompt"
    assert site.arena.boards.board()["votes"] == 0


def test_digits_that_are_typed_are_no_votes(site, visited):
    asked(visited, "What is 2 + 2?")
    visited.fill("#reason", "")
    visited.type("#reason", "1234")
    assert rows(site, votes) == []
    visited.locator("h1").click()
    for key in ("5", "a", "Control+1", "Alt+1"):
        visited.keyboard.press(key)
    assert rows(site, votes) == []


def test_reasons_and_tags_are_kept_and_what_it_took_is_shown(site, visited):
    asked(visited, arenas.QUESTIONS["en"])
    visited.check("#marks input[value=clear]")
    visited.fill("#reason", "the steps are shown")
    visited.click("[data-outcome=model_a]")
    visited.wait_for_selector("#after:visible")
    (vote,) = rows(site, votes)
    assert (vote.reason, json.loads(vote.tags)) == ("the steps are shown", ["clear"])
    shown = visited.locator(".revealed").all_inner_texts()
    for one in shown:
        assert "tokens" in one
        assert "s in all" in one
        assert "reasoning" in one or "base" in one
    assert visited.locator("#marks input:checked").count() == 0


def test_several_turns_then_one_vote_on_all(site, visited):
    asked(visited, "one")
    for n, question in enumerate(("two", "three"), start=2):
        visited.fill("#further", question)
        visited.press("#further", "Control+Enter")
        until(
            visited,
            f"document.querySelectorAll('.answer').length === {2 * n} && !document.getElementById('voting').hidden",
        )
    assert visited.locator("#turns-a .asked").all_inner_texts() == ["one", "two", "three"]
    visited.click("[data-outcome=both_bad]")
    visited.wait_for_selector("#after:visible")
    assert len(rows(site, votes)) == len(rows(site, battles)) == 1


def test_a_reload_while_both_answer_gives_the_battle_up_and_one_can_begin_anew(site, script, visited):
    visited.fill("#prompt", "wait for it")
    visited.press("#prompt", "Control+Enter")
    until(visited, "[...document.querySelectorAll('.answer')].every((one) => one.textContent)")
    visited.reload()
    assert visited.locator("#answers").is_hidden()
    script.go.set()
    end = 200
    while not (found := rows(site, ends)) and end:
        visited.wait_for_timeout(50)
        end -= 1
    assert [one.how for one in found] == ["abandoned"]
    asked(visited, "again")
    visited.keyboard.press("Escape")
    visited.click("[data-outcome=tie]")
    visited.wait_for_selector("#after:visible")
    assert len(rows(site, votes)) == 1


def test_a_reload_after_the_answers_leaves_no_vote(site, visited):
    asked(visited, "one")
    visited.reload()
    assert visited.locator("#voting").is_hidden()
    visited.keyboard.press("1")
    assert rows(site, votes) == []


def test_nothing_that_a_model_or_a_person_writes_runs_or_loads(site, script, visited):
    elsewhere = []
    visited.on("request", lambda request: elsewhere.append(request.url) if site.url not in request.url else None)
    whole = "\n\n".join(CORPUS)
    for question in (whole[:7000], CORPUS[0]):
        script.answers[question] = whole
        asked(visited, question)
        assert visited.locator(".asked").first.inner_text().strip() == question.strip()
        assert visited.evaluate(NO_HARM) == []
        visited.locator("h1").click()
        visited.keyboard.press("3")
        visited.wait_for_selector("#after:visible")
        assert visited.evaluate(NO_HARM) == []
        visited.click("#next")
    visited.click("[data-mode=direct].mode")
    until(visited, "document.getElementById('model-a').options.length > 0")
    visited.fill("#prompt", CORPUS[0])
    visited.press("#prompt", "Control+Enter")
    visited.wait_for_selector("#on:visible")
    assert visited.evaluate(NO_HARM) == []
    assert elsewhere == []


HOSTILE = "\"&'{{x}}$(y)`z` onerror=pwned=1"


def test_names_are_text_on_every_page(endpoint, script, tmp_path, monkeypatch, browse):
    monkeypatch.setenv(ADMIN_KEY_VARIABLE, arenas.KEY)
    wanted = arenas.wanted(endpoint, tmp_path / "arena.sqlite", script, title="<b onclick=x>T</b>", min_votes=2)
    first = wanted.contestant[0].model_copy(update={"name": HOSTILE, "family": HOSTILE})
    wanted = wanted.model_copy(update={"contestant": (first, *wanted.contestant[1:])})
    with running(wanted) as site:
        arenas.fill(site.arena, days=1, a_day=40)
        page = browse(f"{site.url}/?lang=en")
        for path in ("leaderboard", "votes", "audit", "embed/intervals", "embed/matrix", "plots/trend.svg"):
            page.goto(f"{site.url}/{path}")
            assert page.evaluate("typeof pwned") == "undefined", path
            assert page.evaluate("document.querySelectorAll('[onclick], [onerror]').length") == 0, path
            if not path.startswith("plots"):
                assert page.title().endswith("<b onclick=x>T</b>")
        page.goto(f"{site.url}/leaderboard?lang=en")
        assert HOSTILE in page.locator("table").first.inner_text()
        until(page, "!document.querySelector('[data-figure]')")
        _named_and_revealed(page, site)
        page.goto(f"{site.url}/admin?lang=en")
        page.fill("#key", arenas.KEY)
        page.keyboard.press("Enter")
        page.wait_for_selector(".cards")
        assert HOSTILE in page.locator(".cards").first.inner_text()
        assert page.evaluate("typeof pwned") == "undefined"
        assert page.evaluate("document.querySelectorAll('[onclick], [onerror]').length") == 0


def _named_and_revealed(page, site):
    """The hostile name heads its answer in a chat by name, and after a vote."""
    page.goto(f"{site.url}/?lang=en")
    page.click("[data-mode=named].mode")
    until(page, "document.getElementById('model-a').options.length > 0")
    page.select_option("#model-a", HOSTILE)
    page.select_option("#model-b", "Birch")
    page.fill("#prompt", "What is 2 + 2?")
    page.press("#prompt", "Control+Enter")
    page.wait_for_selector("#on:visible")
    assert page.locator("#head-a").inner_text() == HOSTILE
    page.goto(f"{site.url}/?lang=en")
    page.click("[data-mode=blind].mode")
    seen = ""
    for i in range(20):  # until it is drawn
        asked(page, f"What is {i} + 2?")
        assert HOSTILE not in page.locator("main").inner_text()
        page.click("[data-outcome=tie]")
        page.wait_for_selector("#after:visible")
        seen = page.locator("#answers").inner_text()
        if HOSTILE in seen:
            break
        page.click("#next")
    assert HOSTILE in seen
    assert page.evaluate("typeof pwned") == "undefined"


def test_a_figure_leads_to_the_votes_behind_it(site, visited):
    arenas.fill(site.arena, days=1, a_day=60)
    for place in (
        "table a[href*='a=Alder']",
        "#plot-matrix svg a",
        "#plot-intervals svg a",
        "#plot-frontier svg a text",
        "#plot-trend svg a text",
    ):
        visited.goto(f"{site.url}/leaderboard?lang=en")
        visited.locator(place).first.click()
        visited.wait_for_url("**/votes?**")
        assert visited.locator("tbody tr").count() > 0, place


def test_what_the_house_does_on_the_admin_page(site, visited):
    page = visited
    page.goto(f"{site.url}/admin?lang=en")
    page.fill("#key", "not the key")
    page.keyboard.press("Enter")
    page.wait_for_selector("#wrong")
    page.fill("#key", arenas.KEY)
    page.keyboard.press("Enter")
    page.wait_for_selector(".cards")
    card = page.locator(".cards .card", has_text="Alder").first
    card.locator("summary").click()
    form = card.locator("form", has_text="Pause")
    form.locator("[name=reason]").fill("too hot")
    form.locator("button").click()
    page.wait_for_selector(".log")
    assert "paused by the house" in page.locator(".cards .card", has_text="Alder").first.inner_text()
    page.locator(".log summary").first.click()
    page.locator(".log [name=reason]").first.fill("cooled down")
    page.locator(".log form button").first.click()
    until(page, "document.querySelectorAll('.log > li').length === 2")
    assert "paused by the house" not in page.locator(".cards").first.inner_text()
    with site.arena.database.read() as connection:
        assert [one.kind for one in admin_view.view(connection, "", 0).log] == ["undo", "pause"]
    page.goto(f"{site.url}/audit?lang=en")
    assert "too hot" in page.locator("main").inner_text()
    page.goto(f"{site.url}/admin?lang=en")
    page.locator("main button", has_text="Close").first.click()
    page.wait_for_selector("#key")


def test_what_goes_wrong_is_said_and_the_question_stays(site, endpoint, script, visited):
    endpoint.say["Alder"] = endpoint.say["Cedar"] = lambda _: ""
    endpoint.say["Birch"] = endpoint.say["Dogwood"] = lambda _: ""
    visited.fill("#prompt", "What is 2 + 2?")
    visited.press("#prompt", "Control+Enter")
    until(visited, "document.getElementById('status').textContent.includes('does not count')")
    assert visited.locator("#prompt").input_value() == "What is 2 + 2?"
    assert visited.locator("#send").is_enabled()
    assert not NAMES & set(visited.locator("body").inner_text().split())


def test_private_things_are_sent_only_when_asked_twice(site, visited):
    visited.fill("#prompt", "write to me@example.org")
    visited.press("#prompt", "Control+Enter")
    until(visited, "document.getElementById('status').textContent.includes('e-mail')")
    assert rows(site, battles) == []
    visited.press("#prompt", "Control+Enter")
    visited.wait_for_selector("#voting:visible")
    assert len(rows(site, battles)) == 1


def test_suggestions_follow_the_category(visited):
    shown = visited.locator(".suggestion")
    assert shown.first.inner_text() == "Explain why the sky is blue."
    visited.select_option("#category", "writing")
    assert shown.all_inner_texts()[0] == "Write a haiku about autumn rain."
    shown.first.click()
    assert visited.locator("#prompt").input_value() == "Write a haiku about autumn rain."
    assert visited.evaluate("document.activeElement.id") == "prompt"
    visited.fill("#prompt", "")
    shown.last.click()  # one at random
    assert visited.locator("#prompt").input_value()


@pytest.mark.parametrize(("mode", "answers"), [("named", 2), ("direct", 1)])
def test_chats_by_name_have_no_vote(site, visited, mode, answers):
    visited.click(f"[data-mode={mode}].mode")
    until(visited, "document.getElementById('model-b').options.length > 0")
    visited.fill("#prompt", "2 + 2?")
    visited.press("#prompt", "Control+Enter")
    visited.wait_for_selector("#on:visible")
    assert visited.locator("#voting").is_hidden()
    visited.locator("h1").click()
    visited.keyboard.press("1")
    visited.fill("#further", "more")
    visited.press("#further", "Control+Enter")
    until(visited, f"document.querySelectorAll('.answer').length === {2 * answers}")
    visited.wait_for_selector("#on:visible")
    assert visited.locator("#head-a").inner_text() == "Alder"
    assert (rows(site, battles), rows(site, votes)) == ([], [])


def test_the_theme_is_chosen_and_kept(site, visited):
    visited.click("#theme")
    assert visited.evaluate("document.documentElement.dataset.theme") == "dark"
    visited.goto(f"{site.url}/leaderboard")
    until(visited, "document.documentElement.dataset.theme === 'dark'")
