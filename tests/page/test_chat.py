"""Ask and answer: streams, thinking, stop, edits, branches, reloads, errors."""

import re

from tests.page.conftest import ask, done, texts, until
from tests.page.stub import Gate, Stub


def test_an_answer_is_shown_while_it_streams(visit, stub):
    gate = Gate()
    stub.answers["hello"] = ["The **first", "** half", gate, " and the rest."]
    page = visit()
    ask(page, "hello", wait=False)
    until(page, "document.querySelector('.text')?.innerText === 'The first half'")
    assert page.locator(".text strong").inner_text() == "first"
    assert page.locator("#stop").is_visible()
    gate.set()
    done(page)
    assert texts(page) == ["hello", "The first half and the rest."]
    assert stub.asked[0]["messages"] == [{"role": "user", "content": "hello"}]
    assert stub.asked[0]["model"] == "tiny"
    assert re.search(r"^4 tokens|^3 tokens", page.locator(".facts").inner_text())


def test_thinking_is_folded_and_says_its_length_and_time(visit, stub):
    gate = Gate()
    stub.answers["think"] = [{"think": "Let me "}, {"think": "see."}, gate, "42"]
    page = visit()
    ask(page, "think", wait=False)
    until(page, "/Thinking · [\\d.]+ s · 11 characters/.test(document.querySelector('summary')?.innerText)")
    assert not page.locator(".thought").is_visible()
    gate.set()
    done(page)
    assert re.fullmatch(r"Thought · [\d.]+ s · 2 tokens", page.locator("summary").inner_text())
    page.click("summary")
    until(page, "document.querySelector('.thought').innerText === 'Let me see.'")
    assert texts(page)[-1] == "42"


def test_stop_keeps_what_came_and_tells_the_server(visit, stub):
    stub.answers["long"] = ["so far", Gate()]
    page = visit()
    ask(page, "long", wait=False)
    until(page, "document.querySelector('.text')?.innerText === 'so far'")
    page.click("#stop")
    done(page)
    assert texts(page) == ["long", "so far"]
    assert page.locator(".note").inner_text() == "Stopped."
    assert stub.left.wait(5)
    ask(page, "and then?")
    assert [turn["content"] for turn in stub.asked[-1]["messages"]] == ["long", "so far", "and then?"]


def test_an_edited_question_is_a_branch_and_both_can_be_seen(visit, stub):
    page = visit()
    ask(page, "one")
    ask(page, "two")
    page.locator(".question").nth(0).get_by_role("button", name="Edit").click()
    page.get_by_label("Edit your message").fill("uno")
    page.keyboard.press("Enter")
    done(page)
    assert texts(page) == ["uno", "An answer to uno."]
    assert stub.asked[-1]["messages"] == [{"role": "user", "content": "uno"}]
    assert page.locator(".question .versions").inner_text().startswith("2/2")
    page.get_by_role("button", name="Previous version").click()
    assert texts(page) == ["one", "An answer to one.", "two", "An answer to two."]
    assert page.evaluate("document.activeElement.title") == "Next version"
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert texts(page) == ["one", "An answer to one.", "two", "An answer to two."]


def test_an_edit_can_be_cancelled(visit):
    page = visit()
    ask(page, "one")
    page.press("#question", "ArrowUp")
    page.keyboard.type(" more")
    page.keyboard.press("Escape")
    assert texts(page) == ["one", "An answer to one."]
    assert page.evaluate("document.activeElement.title") == "Edit"


def test_another_answer_is_a_branch(visit, stub):
    page = visit()
    stub.answers["q"] = ["first"]
    ask(page, "q")
    stub.answers["q"] = ["second"]
    page.get_by_role("button", name="Answer again").click()
    done(page)
    assert texts(page) == ["q", "second"]
    ask(page, "on")
    page.locator(".answer").nth(0).get_by_role("button", name="Previous version").click()
    assert texts(page) == ["q", "first"]
    ask(page, "elsewhere")
    assert [turn["content"] for turn in stub.asked[-1]["messages"]] == ["q", "first", "elsewhere"]


def test_a_reload_in_the_middle_keeps_what_came(visit, stub):
    gate = Gate()
    stub.answers["long"] = [{"think": "Hm."}, "Already ", "here", gate, "never seen"]
    page = visit()
    ask(page, "long", wait=False)
    until(page, "document.querySelector('.text')?.innerText === 'Already here'")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert texts(page) == ["long", "Already here"]
    assert page.locator(".note").inner_text().startswith("Interrupted")
    assert "Thought" in page.locator("summary").inner_text()
    stub.answers["long"] = ["whole"]
    page.get_by_role("button", name="Answer again").click()
    done(page)
    assert texts(page) == ["long", "whole"]


def test_errors_are_said_and_what_came_stays(visit, stub):
    stub.answers["full"] = [429, "Too many requests are waiting. Please come back."]
    stub.answers["breaks"] = ["half", {"error": "The model broke."}]
    stub.answers["cable"] = ["half", Stub.BREAK]
    page = visit()
    ask(page, "full")
    assert page.locator(".note").last.inner_text() == "No answer: Too many requests are waiting. Please come back."
    ask(page, "breaks")
    assert texts(page)[-1] == "half"
    assert page.locator(".note").last.inner_text() == "No answer: The model broke."
    ask(page, "cable")
    assert texts(page)[-1] == "half"
    assert page.locator(".note").last.inner_text() == "The connection broke off."
    page.complaints[:] = [one for one in page.complaints if "429" not in one]  # Chromium notes the status


def test_a_server_with_a_key_is_asked_with_it(visit, stub):
    stub.key = "secret"
    page = visit()
    assert page.evaluate("document.activeElement.id") == "key"
    page.fill("#key", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#key-form", state="hidden")
    ask(page, "hello")
    assert texts(page) == ["hello", "An answer to hello."]
    page.complaints[:] = [one for one in page.complaints if "401" not in one]


def test_the_settings_reach_the_server(visit, stub):
    page = visit()
    ask(page, "plain")
    assert not {"temperature", "max_tokens", "chat_template_kwargs"} & set(stub.asked[-1])
    page.click("#open-settings")
    page.fill("#temperature", "0.6")
    page.fill("#maxTokens", "100")
    page.select_option("#thinking", "off")
    page.fill("#system", "Be brief.")
    page.click("#close-settings")
    page.select_option("#model", "large")
    page.reload()
    until(page, "document.getElementById('model').value === 'large'")
    ask(page, "set")
    asked = stub.asked[-1]
    assert (asked["temperature"], asked["max_tokens"], asked["model"]) == (0.6, 100, "large")
    assert asked["chat_template_kwargs"] == {"thinking": False, "enable_thinking": False}
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}


def test_two_models_answer_side_by_side_and_one_is_gone_on_with(visit, stub):
    gate = Gate()
    stub.answers["q"] = {"tiny": ["from tiny"], "large": ["from", gate, " large"]}
    page = visit(width=1200)
    page.click("#compare")
    ask(page, "q", wait=False)
    until(page, "document.querySelectorAll('.pair .text')[0]?.innerText === 'from tiny'")
    gate.set()
    done(page)
    assert texts(page) == ["q", "from tiny", "from large"]
    left, right = (page.locator(".pair .answer").nth(side).bounding_box() for side in (0, 1))
    assert left["y"] == right["y"]
    assert left["x"] < right["x"]
    page.get_by_role("button", name="Continue with this answer").last.click()
    page.click("#compare")
    ask(page, "on")
    assert [turn["content"] for turn in stub.asked[-1]["messages"]] == ["q", "from large", "on"]
    assert texts(page) == ["q", "from tiny", "from large", "on", "An answer to on."]
