"""By keyboard, input method and screen reader, on a narrow screen; conversations kept, exported, imported, deleted."""

import json

import pytest
from tests.page.conftest import ask, done, texts, until
from tests.page.stub import Gate

WIDE = "https://example.org/" + "long" * 80 + "\n\n`" + "code" * 80 + "`\n\n```python\n" + "x = 1; " * 60 + "\n```\n\n"
WIDE += "| " + " | ".join(f"column {i}" for i in range(12)) + " |\n|" + "---|" * 12 + "\n|" + " value |" * 12 + "\n\n"
WIDE += "$$" + " + ".join(f"a_{{{i}}}x^{{{i}}}" for i in range(40)) + "$$\n\n" + "W" * 300


def test_enter_while_an_input_method_composes_does_not_send(visit, stub):
    page = visit(language="zh")
    typist = page.context.new_cdp_session(page)
    page.focus("#question")
    typist.send("Input.imeSetComposition", {"text": "nihao", "selectionStart": 5, "selectionEnd": 5})
    for code in (229, 13):  # as Safari and as others report the key
        page.evaluate(
            """(code) => document.getElementById("question").dispatchEvent(new KeyboardEvent("keydown",
            { key: "Enter", keyCode: code, isComposing: code === 13, bubbles: true, cancelable: true }))""",
            code,
        )
    assert stub.asked == []
    assert page.input_value("#question") == "nihao"
    typist.send("Input.insertText", {"text": "你好"})
    page.keyboard.press("Enter")
    done(page)
    assert texts(page)[0] == "你好"


def test_all_can_be_done_with_the_keyboard(visit, stub):
    gate = Gate()
    stub.answers["long"] = [{"think": "hm"}, "begun", gate]
    page = visit()
    keys = page.keyboard
    assert page.evaluate("document.activeElement.id") == "question"
    keys.type("first line")
    keys.press("Shift+Enter")
    keys.type("second")
    keys.press("Enter")
    done(page)
    assert texts(page)[0] == "first line\nsecond"
    keys.type("long")
    keys.press("Enter")
    until(page, "document.querySelectorAll('.text')[1]?.innerText === 'begun'")
    keys.press("Escape")
    done(page)
    assert page.locator(".note").last.inner_text() == "Stopped."
    seen = walk(page, "Shift+Tab")
    assert {
        "Answer again",
        "Edit",
        "Copy",
        "SUMMARY",
        "log",
        "open-settings",
        "compare",
        "model",
        "menu",
        "new-chat",
    } <= seen
    page.locator(".answer").last.get_by_role("button", name="Answer again").focus()
    gate.set()
    keys.press("Enter")
    done(page)
    page.focus("#open-settings")
    keys.press("Enter")
    assert page.locator("#settings").is_visible()
    keys.press("Escape")
    assert page.evaluate("document.activeElement.id") == "open-settings"
    page.locator("summary").last.focus()
    keys.press("Enter")
    until(page, "document.querySelectorAll('.thought')[1].innerText === 'hm'")


def walk(page, key):
    """What the focus meets, until it comes round; each must be seen to have it."""
    seen = set()
    for _ in range(60):
        page.keyboard.press(key)
        name, shown = page.evaluate("""(() => {
          const node = document.activeElement, style = getComputedStyle(node);
          const name = node.id || node.title || node.tagName;
          const framed = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 1;
          return [name, framed || ["BODY", "question"].includes(name)];
        })()""")
        assert shown, f"{name} does not show that it has the focus"
        if name == "question":
            break
        seen.add(name)
    return seen


def test_a_screen_reader_hears_the_end_and_not_every_token(visit, stub):
    stub.answers["q"] = [{"think": "hm "}] * 50 + ["word "] * 200
    page = visit()
    assert page.get_attribute("#turns", "role") == "log"
    assert page.get_attribute("#turns", "aria-live") == "off"
    assert page.get_attribute("#announcer", "aria-live") == "polite"
    page.evaluate("""(() => { window.heard = []; new MutationObserver(() => heard.push(announcer.textContent))
      .observe(announcer, { childList: true, characterData: true, subtree: true }); })()""")
    page.fill("#question", "q")
    page.press("#question", "Tab")
    page.keyboard.press("Enter")  # on the button, which gives way to another
    done(page)
    assert page.evaluate("document.activeElement.id") == "send"
    until(page, "heard.length >= 2")
    assert page.evaluate("heard.length") == 2
    assert page.evaluate("heard[0]") == "The answer is being written."
    assert page.evaluate("heard[1]").startswith("Answer finished. word word")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_is_wider_than_a_narrow_screen(visit, stub, language):
    stub.answers["W" * 200] = [{"think": WIDE}, WIDE]
    page = visit(language=language, width=320, height=640)

    def narrow():
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        wide = page.evaluate("""[...document.querySelectorAll("body *")].filter((node) => node.checkVisibility() &&
          !node.closest("pre, .wide, .maths, .hidden, .skip, #side") && node.getBoundingClientRect().right > 320.5)
          .map((node) => node.outerHTML)""")
        assert wide == []

    narrow()
    page.click("#compare")
    ask(page, "W" * 200)
    page.click("#compare")
    ask(page, "W" * 200)
    page.locator("summary").last.click()
    page.wait_for_timeout(300)
    narrow()
    page.locator("button.edit").last.click()
    narrow()
    page.click("#menu")
    page.wait_for_timeout(300)
    assert page.locator("#new-chat").is_visible()
    assert page.evaluate("document.activeElement.id") == "new-chat"
    narrow()
    page.keyboard.press("Escape")
    page.click("#open-settings")
    assert page.locator("#settings").bounding_box()["width"] <= 320
    narrow()


def test_conversations_are_kept_opened_exported_deleted_and_imported(visit, tmp_path):
    page = visit(accept_downloads=True)
    ask(page, "first talk")
    page.click("#new-chat")
    ask(page, "second talk")
    assert page.locator("#list .open").all_inner_texts() == ["second talk", "first talk"]
    page.locator("#list .open").last.click()
    until(page, "document.querySelector('.bubble')?.innerText === 'first talk'")
    with page.expect_download() as caught:
        page.click("#export")
    file = tmp_path / "kept.json"
    caught.value.save_as(file)
    assert {one["title"] for one in json.loads(file.read_text())["conversations"]} == {"first talk", "second talk"}
    page.get_by_role("button", name="Delete “first talk”").click()
    page.locator("#removal button[value=remove]").click()
    until(page, "document.querySelectorAll('#list li').length === 1")
    assert page.locator("#welcome").is_visible()
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#list .open").all_inner_texts() == ["second talk"]
    page.set_input_files("#file", file)
    until(page, "document.querySelectorAll('#list li').length === 2")
    assert page.locator("#notice").inner_text() == "1 conversation imported."
    page.get_by_role("button", name="first talk", exact=True).click()
    until(page, "document.querySelector('.text')?.innerText === 'An answer to first talk.'")


def test_an_answer_goes_on_while_another_conversation_is_looked_at(visit, stub):
    gate = Gate()
    stub.answers["slow"] = ["begun", gate, " and ended"]
    page = visit()
    ask(page, "slow", wait=False)
    until(page, "document.querySelector('.text')?.innerText === 'begun'")
    page.click("#new-chat")
    ask(page, "other")
    gate.set()
    page.get_by_role("button", name="slow", exact=True).click()
    until(page, "document.querySelector('.text')?.innerText === 'begun and ended'")
    done(page)


def test_two_tabs_see_the_same_conversation(visit, stub):
    page = visit()
    ask(page, "one")
    other = page.context.new_page()
    other.goto(page.url)
    until(other, "document.querySelector('.text')?.innerText === 'An answer to one.'")
    ask(page, "two")
    until(other, "document.querySelectorAll('.text')[1]?.innerText === 'An answer to two.'")
    page.get_by_role("button", name="Delete “one”").click()
    page.locator("#removal button[value=remove]").click()
    until(other, "!document.querySelector('.turn') && !document.querySelector('#list li')")


def test_language_and_theme_are_chosen_and_kept(visit):
    page = visit(language="zh")
    assert page.locator("#new-chat").inner_text() == "新对话"
    page.click("#other-language")
    assert page.locator("#new-chat").inner_text() == "New chat"
    assert page.get_attribute("html", "lang") == "en"
    page.click("#open-settings")
    page.select_option("#theme", "dark")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("#new-chat").inner_text() == "New chat"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 24, 26)"


def test_markdown_code_and_maths_are_drawn(visit, stub):
    stub.answers["q"] = [
        "**答案：**42, it costs $5 and $10, $e^{i\\pi}=-1$ and \\(x^2\\).\n\n\\[\n\\frac{1}{2}\n\\]\n\n"
        "```python\ndef f():\n    return '<b>'\n```\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n3. three\n\n"
        "- [x] done\n\n<b>as text</b>\n\n$$ never closed\n\n# Title"
    ]
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "q")
    until(page, "document.querySelectorAll('.katex').length === 3")
    assert page.locator(".text strong").inner_text() == "答案："
    assert "it costs $5 and $10" in page.locator(".text").inner_text()
    assert "<b>as text</b>" in page.locator(".text").inner_text()
    assert "$$ never closed" in page.locator(".text").inner_text()
    assert page.locator(".katex-display").count() == 1
    until(page, "document.querySelector('.hljs-keyword')?.innerText === 'def'")
    assert page.locator("td").last.evaluate("node => getComputedStyle(node).textAlign").endswith("right")
    assert page.get_attribute(".text ol", "start") == "3"
    assert page.locator(".text input").is_checked()
    assert page.locator(".text h3").inner_text() == "Title"
    page.get_by_role("button", name="Copy code").click()
    assert page.evaluate("navigator.clipboard.readText()").strip() == "def f():\n    return '<b>'"
