"""The page before a real server: what is on it is what the API answers."""

import json

import httpx
import pytest
from tests.page.conftest import ask
from tests.page.stub import serving
from tests.unit.server.serving import served

from moreseek.server.app import build_app


@pytest.fixture(scope="module")
def address(make_llm):
    llm = make_llm(["hello world, how are you"] * 5, 290, 256)
    with serving(build_app(served(llm))) as found:
        yield found


def test_what_is_kept_is_what_the_server_wrote(visit, address, tmp_path):
    page = visit(url=address, accept_downloads=True)
    page.click("#open-settings")
    page.fill("#temperature", "0")
    page.fill("#maxTokens", "20")
    page.click("#close-settings")
    ask(page, "hello")
    assert page.locator(".note").inner_text() == "Cut at the limit of tokens."
    assert page.locator(".facts").inner_text().startswith("20 tokens")
    with page.expect_download() as caught:
        page.click("#export")
    caught.value.save_as(tmp_path / "kept.json")
    [conversation] = json.loads((tmp_path / "kept.json").read_text(encoding="utf-8"))["conversations"]
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 20}
    said = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60).json()["choices"][0]["message"]
    kept = conversation["messages"][1]
    assert (kept["content"], kept["thinking"]) == (said["content"], said["reasoning_content"] or "")


def test_a_question_that_does_not_fit_is_refused_in_words(visit, address):
    page = visit(url=address)
    ask(page, "hello " * 300)
    assert "context" in page.locator(".note").inner_text()
    page.complaints[:] = [one for one in page.complaints if "400" not in one]
