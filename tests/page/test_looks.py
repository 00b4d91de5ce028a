"""axe-core finds nothing in any state of the page, in both languages and themes; and the pictures of the documents."""

from functools import partial

import pytest
from tests.page.conftest import ask, chinese_is_drawn, until
from tests.page.stub import Gate

QUESTIONS = {"en": "What is 17 × 24? Show your steps.", "zh": "17 × 24 等于多少？请写出步骤。"}
THOUGHTS = {
    "en": "The second factor splits well: 24 = 20 + 4.\n\n17 × 20 = 340 and 17 × 4 = 68, together 408. "
    "Check: 408 / 24 = 17. Yes.",
    "zh": "第二个因数好拆：24 = 20 + 4。\n\n17 × 20 = 340，17 × 4 = 68，合起来 408。验算：408 / 24 = 17，对。",
}  # fmt: skip
ANSWERS = {
    "en": "Split 24 into **20 + 4**:\n\n$$17 \\times 24 = 17 \\times 20 + 17 \\times 4 = 340 + 68$$\n\n"
    "| part | product |\n|---|---:|\n| $17 \\times 20$ | 340 |\n| $17 \\times 4$ | 68 |\n\n"
    "The same in Python:\n\n```python\nprint(17 * 20 + 17 * 4)  # 408\n```\n\nSo the answer is `408`.",
    "zh": "把 24 拆成 **20 + 4**：\n\n$$17 \\times 24 = 17 \\times 20 + 17 \\times 4 = 340 + 68$$\n\n"
    "| 部分 | 乘积 |\n|---|---:|\n| $17 \\times 20$ | 340 |\n| $17 \\times 4$ | 68 |\n\n"
    "用 Python 验证：\n\n```python\nprint(17 * 20 + 17 * 4)  # 408\n```\n\n**答案：**`408`。",
}  # fmt: skip
SHORT = {
    "en": "$17 \\times 25 = 425$, and one 17 less is **408**.",
    "zh": "$17 \\times 25 = 425$，减去一个 17，得 **408**。",
}


def scripted(text, size=3):
    return [text[at : at + size] for at in range(0, len(text), size)]


@pytest.fixture
def scene(visit, stub):
    """scene(language, dark, width): a page whose models answer the question about 17 × 24."""
    stub.models = ["tiny-r1", "tiny-r1/base"]
    stub.pause_s = 0.008
    for language, question in QUESTIONS.items():
        thinking = [{"think": text} for text in scripted(THOUGHTS[language])]
        whole = thinking + scripted(ANSWERS[language])
        stub.answers[question] = {"tiny-r1": whole, "tiny-r1/base": scripted(SHORT[language])}
    return visit


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [320, 900])
def test_axe_finds_nothing(scene, stub, axe, language, dark, width):
    stub.answers["wait"], stub.answers["fail"] = [{"think": "hm"}, "begun", Gate()], [500, "broken"]
    stub.answers["headings"] = [
        "#### Four\n\n# One\n\n> quoted\n\n[a link](https://example.org)\n\n- [x] done\n\n- [ ] `not`"
    ]
    passage = {"title": "Salt › Storage", "file": "handbook/salt.md", "line": 4, "text": "Keep it dry. " * 200}
    stub.with_documents, stub.answers["sourced"] = (
        ["tiny-r1"],
        [{"sources": [passage | {"index": 1}, passage | {"index": 2}]}, "Dry [1]."],
    )
    page = scene(language, dark, width)
    clean = partial(axe, page)
    clean("empty")
    ask(page, QUESTIONS[language])
    page.click("summary")
    until(page, "document.querySelectorAll('.hljs-comment').length && document.querySelectorAll('.katex').length >= 3")
    clean("answered")
    page.locator(".again").last.click()
    until(page, "!document.querySelector('.running')")
    ask(page, "headings")
    ask(page, "sourced")
    page.locator(".sources:visible > summary").click()
    page.locator(".sources:visible li summary").first.click()
    clean("sources")
    ask(page, "fail")
    page.complaints[:] = [one for one in page.complaints if "500" not in one]
    ask(page, "wait", wait=False)
    until(page, "[...document.querySelectorAll('.text')].at(-1).innerText === 'begun'")
    clean("streaming, failed, versions")
    page.keyboard.press("Escape")
    page.locator(".edit").first.click()
    clean("editing")
    page.click("#open-settings")
    clean("settings")
    page.keyboard.press("Escape")
    if width == 320:
        page.click("#menu")
        page.wait_for_timeout(300)
    clean("list")
    page.locator("#list button.icon").first.click()
    clean("removal")
    page.keyboard.press("Escape")
    page.click("#new-chat")
    page.click("#compare")
    ask(page, QUESTIONS[language])
    clean("two models")
    stub.key = "secret"
    ask(page, "with a key")
    page.wait_for_selector("#key-form", state="visible")
    page.complaints[:] = [one for one in page.complaints if "401" not in one]
    clean("key")


PICTURES = [
    ("chat", "en", False, 900, 820), ("chat", "zh", True, 900, 820), ("compare", "en", True, 1100, 780),
    ("compare", "zh", False, 1100, 780), ("narrow", "en", False, 320, 640), ("narrow", "zh", True, 320, 640),
]  # fmt: skip


@pytest.mark.parametrize(("name", "language", "dark", "width", "height"), PICTURES)
def test_pictures(scene, pictures, name, language, dark, width, height):
    page = scene(language, dark, width, height)
    if language == "zh" and not chinese_is_drawn(page):
        pytest.skip("no Chinese font here (Debian: fonts-noto-cjk): its picture would show empty boxes")
    if name == "compare":
        page.click("#compare")
    ask(page, QUESTIONS[language])
    until(page, "document.querySelector('.hljs-comment') && document.querySelectorAll('.katex').length >= 3")
    if name == "chat":
        page.click("summary")
    page.mouse.move(0, 0)
    page.evaluate("document.getElementById('log').scrollTop = 0")
    page.wait_for_timeout(300)
    file = pictures / f"chat-page-{name}-{language}.png"
    page.screenshot(path=file)
    assert file.stat().st_size <= 150_000
