"""axe-core finds nothing on any page of the arena, in both languages and themes, wide and narrow; and the pictures."""

import pytest
from tests.page import arenas
from tests.page.conftest import chinese_is_drawn, until
from tests.unit.arena.site.endpoints import endpoint as run_endpoint
from tests.unit.arena.site.running import running

from moreseek.arena.web.arena import ADMIN_KEY_VARIABLE
from moreseek.arena.web.chosen import PLOTS


@pytest.fixture(scope="module")
def script():
    return arenas.Script()


@pytest.fixture(scope="module")
def site(script, tmp_path_factory):
    """An arena with votes, a judge's verdicts, a rigger who was caught, and an admin page."""
    with pytest.MonkeyPatch.context() as patch, run_endpoint() as endpoint:
        patch.setenv(ADMIN_KEY_VARIABLE, arenas.KEY)
        with running(arenas.wanted(endpoint, tmp_path_factory.mktemp("arena") / "arena.sqlite", script)) as found:
            arenas.fill(found.arena)
            found.rigger, found.caught = arenas.rig(found.arena, patch)
            arenas.act(found.arena)
            yield found


def ask(page, text):
    page.fill("#prompt", text)
    page.press("#prompt", "Control+Enter")


def answered(page):
    page.wait_for_selector("#voting:visible")


def log_in(page, url):
    page.goto(url)
    page.fill("#key", arenas.KEY)
    page.click("main button[type=submit]")
    page.wait_for_selector(".cards")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [320, 1280])
def test_axe_finds_nothing_on_any_page(site, script, browse, axe, language, dark, width):
    script.go.clear()
    page = browse(f"{site.url}/?lang={language}", language, dark, width)

    def clean(state):
        axe(page, state)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, state

    clean("battle, empty")
    ask(page, "x@example.org")
    clean("battle, warned")
    ask(page, "wait " + arenas.QUESTIONS[language])
    until(page, "[...document.querySelectorAll('.answer')].every((one) => one.textContent)")
    clean("battle, answering")
    script.go.set()
    answered(page)
    clean("battle, to be voted on")
    page.fill("#further", "And 3 + 3?")
    page.click("#send-on")
    until(page, "document.querySelectorAll('.answer').length === 4 && !document.getElementById('voting').hidden")
    page.locator("#marks input").first.check()
    clean("battle, second turn")
    page.click("[data-outcome=tie]")
    page.wait_for_selector("#after:visible")
    if page.locator("#answers details").count():
        page.locator("#answers details summary").first.click()
    clean("battle, revealed")
    page.click("#undo")
    until(page, "document.getElementById('undo').hidden")
    clean("battle, taken back")
    for mode in ("named", "direct"):
        page.click(f"[data-mode={mode}].mode")
        until(page, "document.getElementById('model-a').options.length > 0")
        clean(f"{mode}, empty")
        ask(page, arenas.QUESTIONS[language])
        page.wait_for_selector("#on:visible")
        clean(mode)
    for path in (
        "leaderboard", "leaderboard?board=reasoning&category=maths", "leaderboard?style=cost",
        "leaderboard?judge=llm-judge", "votes", "votes?judge=llm-judge&a=Alder", "audit", "admin", "embed/board",
        *(f"embed/{name}" for name in PLOTS),
    ):  # fmt: skip
        page.goto(f"{site.url}/{path}{'&' if '?' in path else '?'}lang={language}")
        until(page, "!document.querySelector('[data-figure]')")
        for details in page.locator("details").all():
            details.evaluate("(one) => { one.open = true; }")
        clean(path)
    log_in(page, f"{site.url}/admin?lang={language}")
    for details in page.locator("details").all():
        details.evaluate("(one) => { one.open = true; }")
    clean("admin, open")


# ------------------------------------------------------------------------------------------------------ pictures


@pytest.fixture
def shot(site, browse, pictures):
    """shot(path, name, language, dark, width, height): the page, and a function that takes its picture."""

    def go(path, name, language, dark, width, height):
        page = browse(f"{site.url}/{path}{'&' if '?' in path else '?'}lang={language}", language, dark, width, height)
        if language == "zh" and not chinese_is_drawn(page):
            pytest.skip("no Chinese font here (Debian: fonts-noto-cjk): its picture would show empty boxes")

        def take(**more):
            until(page, "!document.querySelector('[data-figure]')")
            page.mouse.move(0, 0)
            page.wait_for_timeout(100)
            file = pictures / f"arena-{name}-{language}.png"
            page.screenshot(path=file, **more)
            assert file.stat().st_size <= 250_000

        return page, take

    return go


BOTH = pytest.mark.parametrize(("language", "dark"), [("en", False), ("zh", True)])


@BOTH
@pytest.mark.parametrize(("name", "width", "height"), [("vote", 1100, 900), ("narrow", 320, 700)])
def test_pictures_of_a_battle(shot, name, width, height, language, dark):
    page, take = shot("", name, language, dark, width, height)
    ask(page, arenas.QUESTIONS[language])
    answered(page)
    take(full_page=name == "vote")


@BOTH
def test_pictures_of_the_names_after_the_vote(shot, language, dark):
    page, take = shot("", "revealed", language, dark, 1100, 900)
    ask(page, arenas.QUESTIONS[language])
    answered(page)
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("1")
    page.wait_for_selector("#after:visible")
    if page.locator("#answers details").count():
        page.locator("#answers details summary").first.click()
    take(full_page=True)


@BOTH
@pytest.mark.parametrize(
    ("path", "name"),
    [("leaderboard", "board"), ("leaderboard?judge=llm-judge", "judge"), ("audit", "audit")],
)
def test_pictures_of_pages(shot, site, path, name, language, dark):
    page, take = shot(path, name, language, dark, 1100, 1000)
    if name == "audit":
        assert site.rigger in page.locator("#excluded").inner_text()
    take(full_page=name == "audit")


@BOTH
def test_pictures_of_the_admin_page(shot, site, language, dark):
    page, take = shot("admin", "admin", language, dark, 1100, 1000)
    log_in(page, f"{site.url}/admin?lang={language}&voter={site.rigger}")
    take()


def test_a_rigger_is_caught_and_the_audit_page_shows_who_and_why(site, browse):
    assert "target" in site.caught.test
    page = browse(f"{site.url}/audit?lang=en")
    row = page.locator("#excluded tr", has_text=site.rigger)
    assert row.count() == 1
    assert "pushes one contestant" in row.inner_text()
    assert "60" in row.inner_text()
    page.goto(f"{site.url}/votes?lang=en")
    assert site.rigger not in page.locator("main").inner_text()
