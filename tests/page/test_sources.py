"""What an answer was given to read stands under it: as text, unfolded when it is wanted, kept with the conversation."""

import json

import pytest
from tests.page.conftest import ask, done, until
from tests.page.stub import Gate, serving
from tests.unit.server.serving import model_of

from moreseek.server.app import build_app
from moreseek.server.documents.library import Documents
from moreseek.server.models import Models
from moreseek.server.service import Served

EVIL = "<img src=x onerror=alert(1)>"
SOURCES = [
    {"index": 1, "title": "Returns › Period", "file": "returns.md", "line": 4, "text": "Within 30 days.\n\nNot later."},
    {"index": 2, "title": EVIL, "file": f"{EVIL}.md", "line": 1, "text": f"{EVIL}<script>alert(2)</script>"},
]


@pytest.fixture
def sourced(visit, stub):
    stub.with_documents = ["tiny"]
    stub.answers["returns?"] = [{"sources": SOURCES}, "Within 30 days [1]."]
    return visit


def sources(page):
    return page.locator(".sources > summary").all_inner_texts()


@pytest.mark.parametrize(("language", "word"), [("en", "2 sources"), ("zh", "2 个来源")])
def test_sources_are_folded_text_that_can_be_opened_with_the_keyboard(sourced, stub, language, word):
    gate = Gate()
    stub.answers["returns?"] = [{"sources": SOURCES}, "Within", gate, " 30 days [1]."]
    page = sourced(language)
    ask(page, "returns?", wait=False)
    until(page, "document.querySelector('.text')?.innerText === 'Within'")
    assert sources(page) == [word]  # already while the answer is written
    gate.set()
    done(page)
    page.locator(".sources > summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    place = {"en": "returns.md, line 4", "zh": "returns.md，第 4 行"}[language]
    first = page.locator(".sources li").first
    assert first.locator("summary").inner_text().split("\n") == ["[1] Returns › Period", place]
    assert first.locator("p").inner_text() == "Within 30 days.\n\nNot later."
    page.locator(".sources li summary").nth(1).click()
    assert page.locator(".sources li p").nth(1).inner_text() == SOURCES[1]["text"]
    assert page.locator(".sources img, .sources script").count() == 0


def test_sources_stay_with_branches_reloads_exports_and_imports(sourced, stub, tmp_path):
    page = sourced(accept_downloads=True)
    ask(page, "returns?")
    stub.answers["returns?"] = ["No idea."]
    page.get_by_role("button", name="Answer again").click()
    done(page)
    assert page.locator(".sources:visible").count() == 0
    page.locator(".answer").get_by_role("button", name="Previous version").click()
    assert sources(page) == ["2 sources"]
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert sources(page) == ["2 sources"]
    with page.expect_download() as caught:
        page.click("#export")
    caught.value.save_as(tmp_path / "kept.json")
    kept = json.loads((tmp_path / "kept.json").read_text(encoding="utf-8"))
    answers = [message for message in kept["conversations"][0]["messages"] if message["role"] == "assistant"]
    assert answers[0]["sources"] == SOURCES
    answers[0]["sources"] += [{"index": "3", "title": EVIL}, None, {**SOURCES[0], "more": 1}]
    kept["conversations"][0]["id"] = "another"
    (tmp_path / "other.json").write_text(json.dumps(kept), encoding="utf-8")
    page.set_input_files("#file", tmp_path / "other.json")
    until(page, "document.querySelectorAll('#list li').length === 2")
    page.goto(f"{stub.url}/#another")
    until(page, "document.querySelector('.sources > summary')?.innerText === '3 sources'")


def test_of_two_models_side_by_side_each_has_its_own(sourced, stub):
    stub.answers["q"] = {"tiny": [{"sources": SOURCES[:1]}, "from tiny"], "large": ["from large"]}
    page = sourced(width=1200)
    page.click("#compare")
    ask(page, "q")
    assert sources(page) == ["1 source", ""] or sources(page) == ["1 source"]
    assert page.locator(".pair .answer").nth(1).locator(".sources:visible").count() == 0


def test_looking_can_be_switched_off_where_there_are_documents(sourced, stub, visit):
    page = sourced()
    ask(page, "returns?")
    assert "retrieval" not in stub.asked[-1]
    page.click("#open-settings")
    page.select_option("#documents", "off")
    page.click("#close-settings")
    ask(page, "returns?")
    assert stub.asked[-1]["retrieval"] is False
    stub.with_documents = []
    page = visit()
    page.click("#open-settings")
    assert not page.locator("#documents").is_visible()
    assert not page.locator("label[for=documents]").is_visible()


def test_a_real_server_shows_the_passages_that_it_found(visit, make_llm, tmp_path, monkeypatch):
    (tmp_path / "handbook").mkdir()
    (tmp_path / "handbook" / "退货.md").write_text("# 退货\n收货后三十天内可以退货。\n", encoding="utf-8")
    with monkeypatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path))
        documents = Documents(tmp_path / "handbook")
    models = Models({"tiny": model_of(make_llm(["hello world, how are you"] * 5, 290, 4096))})
    models.begun = True
    with serving(build_app(Served(models, documents={"tiny": documents}))) as address:
        page = visit("zh", url=address)
        page.click("#open-settings")
        page.fill("#maxTokens", "5")
        page.click("#close-settings")
        ask(page, "退货期限是多久？")
        page.locator(".sources > summary").click()
        page.locator(".sources li summary").click()
        assert page.locator(".sources li p").inner_text() == "收货后三十天内可以退货。"
