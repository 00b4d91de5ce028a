"""A headless Chromium by playwright, and the page before a server whose answers the test writes."""

import os
import shutil
import time
from pathlib import Path

import pytest
from tests.page.stub import Stub, serving

ROOT = Path(__file__).resolve().parents[2]
AXE = ROOT / ".peers" / "page" / "node_modules" / "axe-core" / "axe.min.js"
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.page)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="package")
def chromium():
    """One browser for all tests here. (Of the package: playwright's loop would be in the way of asyncio elsewhere.)"""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: `make test-page` installs it")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with playwright.sync_playwright() as driver:
        if program is None and not Path(driver.chromium.executable_path).exists():
            pytest.skip("no Chromium here: install your system's, or run `playwright install chromium`")
        browser = driver.chromium.launch(executable_path=program, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def stub():
    found = Stub()
    with serving(found.app()) as found.url:
        yield found


@pytest.fixture
def browse(chromium):
    """browse(url, language, dark, width, height): a page in its own browser. What it complains of fails the test."""
    contexts, complaints = [], []

    def go(url, language="en", dark=False, width=900, height=800, **more):
        context = chromium.new_context(
            locale="zh-CN" if language == "zh" else "en-GB", color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": height}, **more,
        )  # fmt: skip
        context.set_default_timeout(60_000)  # a busy machine must not fail a test
        contexts.append(context)
        page = context.new_page()
        page.complaints = complaints
        page.on("console", lambda message: message.type == "error" and complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.goto(url)
        return page

    yield go
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def visit(browse, stub):
    """visit(language, dark, width, height, url): the chat page, once it is ready."""

    def go(*given, url=None, **more):
        page = browse(url or stub.url, *given, **more)
        page.wait_for_selector("html[data-ready]")
        until(page, "document.getElementById('model').value || !document.getElementById('key-form').hidden")
        return page

    return go


@pytest.fixture(scope="session")
def axe():
    """axe(page, state): axe-core finds nothing on the page."""
    if not AXE.is_file():
        pytest.skip("no axe-core in .peers/page: `make test-page` installs it")
    script = AXE.read_text(encoding="utf-8")

    def clean(page, state):
        if not page.evaluate("typeof axe === 'object'"):
            page.evaluate(script)
        found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
        told = [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found]
        assert told == [], state

    return clean


@pytest.fixture
def pictures(tmp_path):
    """Where pictures go: MORESEEK_PICTURES, or a folder that is thrown away."""
    folder = Path(os.environ.get("MORESEEK_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def until(page, condition):
    """Wait for an expression to hold. (The page's policy forbids eval, with which playwright's own wait does it.)"""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if page.evaluate(condition):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never: {condition}\n{page.locator('body').inner_text()}")


def ask(page, text, wait=True):
    """Type a question and send it; wait until all answers have ended."""
    page.fill("#question", text)
    page.press("#question", "Enter")
    if wait:
        done(page)


def done(page):
    page.wait_for_selector("#send:visible")
    until(page, "!document.querySelector('.running')")


def chinese_is_drawn(page):
    """Whether two different signs look different: without a font both are the same empty box."""
    return page.evaluate("""(() => {
      const drawn = (sign) => {
        const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
        context.font = "40px sans-serif";
        context.fillText(sign, 10, 60);
        return canvas.toDataURL();
      };
      return drawn("思") !== drawn("考");
    })()""")


def texts(page):
    """The messages on the page, first to last: what was asked, and the text of answers."""
    return page.locator(".bubble, .text").all_inner_texts()
