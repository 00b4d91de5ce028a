"""What a model, a person, a server or a file writes runs nothing, loads nothing, and looks like what it is."""

import json
from pathlib import Path

import pytest
from tests.page.conftest import ask, texts, until

CORPUS = json.loads(Path(__file__).with_name("xss.json").read_text(encoding="utf-8"))
NO_HARM = """(() => {
  const turns = document.getElementById("turns"), bad = [];
  if (typeof pwned !== "undefined") bad.push("a script ran");
  const never = "script img iframe style form object embed link meta base noscript marquee audio video".split(" ");
  for (const node of turns.querySelectorAll("*")) {
    const drawn = node.closest(".katex, button, summary");
    const name = node.localName;
    if (never.includes(name)) bad.push(name);
    if (/^(svg|math)$/.test(name) && !drawn) bad.push(name);
    for (const { name: attribute, value } of node.attributes) {
      if (attribute.startsWith("on")) bad.push(attribute);
      if (/^(href|src|action)$/.test(attribute) && !/^(https?|mailto):/.test(value)) bad.push(value);
      if (attribute === "id") bad.push("id " + value);
      if (attribute === "style" && !drawn) bad.push("style " + value);
    }
    if (name === "a" && (node.rel !== "noopener noreferrer" || node.target !== "_blank")) bad.push(node.outerHTML);
  }
  const wide = [...turns.querySelectorAll(".katex *")].filter((node) => node.getBoundingClientRect().height > 2000);
  if (wide.length) bad.push("a formula fills the page");
  return bad;
})()"""


@pytest.fixture
def guarded(visit, stub):
    """A page whose requests to anywhere but the stub are noted."""
    page = visit()
    page.elsewhere = []
    page.on("request", lambda request: page.elsewhere.append(request.url) if stub.url not in request.url else None)
    yield page
    assert [address for address in page.elsewhere if not address.startswith("blob:")] == []


def test_nothing_that_a_model_writes_runs_or_loads(guarded, stub):
    whole = "\n\n".join(CORPUS)
    stub.answers["whole"] = [{"think": whole}, whole]
    stub.answers["slow"] = [{"think": sign} for sign in whole[:400]] + [
        whole[at : at + 3] for at in range(0, len(whole), 3)
    ]
    stub.answers["each"] = [f"{one}\n\n---\n\n" for one in CORPUS]
    for question in stub.answers:
        ask(guarded, question)
        guarded.locator("summary").last.click() if question != "each" else None
        guarded.wait_for_timeout(300)
        assert guarded.evaluate(NO_HARM) == []
    for link in guarded.locator("#turns a").all():
        assert link.get_attribute("href").startswith("https://")
    assert guarded.locator("pre code").filter(has_text="<script>pwned=1</script>").count()


@pytest.mark.parametrize("number", range(0, len(CORPUS), 12))
def test_each_alone_is_harmless(guarded, stub, number):
    for one in CORPUS[number : number + 12]:
        stub.answers["q"] = [one]
        ask(guarded, "q")
    assert guarded.evaluate(NO_HARM) == []


@pytest.mark.parametrize("sign", ["$", "\\(", "\\[", "**", "[", "`", "> ", "<", "| a ", "* ", "_", "$x$", "&#"])
def test_a_page_of_openings_does_not_hold_the_page_up(visit, stub, sign):
    stub.answers["q"] = [sign * (12_000 // len(sign)), "\n\nThe end."]
    page = visit()
    ask(page, "q")
    assert page.locator(".text").inner_text().endswith("The end.")


def test_questions_names_and_errors_are_text(visit, stub):
    stub.models = ["<img src=x onerror=pwned=1>"]
    page = visit()
    stub.answers[CORPUS[0]] = [400, CORPUS[1]]
    ask(page, CORPUS[0])
    assert page.locator(".bubble").inner_text() == CORPUS[0]
    assert CORPUS[1] in page.locator(".note").inner_text()
    assert page.locator(".model").inner_text() == CORPUS[1]
    assert page.locator("#list .open").inner_text() == CORPUS[0]
    assert page.evaluate("typeof pwned") == "undefined"
    page.complaints[:] = [one for one in page.complaints if "400" not in one]


def test_the_policy_stops_what_would_get_through(visit):
    page = visit()
    refused = page.evaluate("""(() => {
      try { document.getElementById("turns").innerHTML = "<img src=x onerror=pwned=1>"; }
      catch (error) { return error.name; }
    })()""")
    assert refused == "TypeError"
    page.evaluate("""(() => {
      const style = document.createElement("style"), image = new Image();
      style.textContent = "body { display: none }";
      image.src = "https://evil.example/x.png";
      document.head.append(style, image);
    })()""")
    page.wait_for_timeout(100)
    assert page.locator("#form").is_visible()
    assert len(page.complaints) >= 2
    page.complaints.clear()


def hostile(**changes):
    message = {"id": "a", "parent": None, "role": "user", "content": "hi", "shown": None}
    return {"id": "c1", "title": "t", "messages": [message], "shown": "a"} | changes


def exported(*conversations, version=1):
    return json.dumps({"format": "moreseek-conversations", "version": version, "conversations": conversations})


CIRCLE = [{"id": "a", "parent": "b", "role": "user", "content": ""}, {"id": "b", "parent": "a", "role": "user"}]


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", "{}", exported(version=2), exported(None), exported(hostile(messages=[{"id": 3}])),
        exported(hostile(id={"a": 1})), exported(hostile(messages=CIRCLE)),
    ],
)  # fmt: skip
def test_a_file_that_is_none_of_ours_is_refused(visit, text):
    page = visit()
    page.set_input_files("#file", {"name": "x.json", "mimeType": "application/json", "buffer": text.encode()})
    until(page, "document.getElementById('notice').innerText.startsWith('This file holds no conversations')")
    assert page.locator("#list li").count() == 0


def test_a_hostile_file_is_text_too(visit):
    page = visit()
    messages = [
        {"id": "__proto__", "parent": None, "role": "user", "content": CORPUS[1], "shown": "b", "evil": 1},
        {"id": "b", "parent": "__proto__", "role": "assistant", "content": "\n\n".join(CORPUS), "model": CORPUS[1],
         "thinking": CORPUS[0], "state": "failed", "error": CORPUS[1], "tokens": "<b>", "pair": ["b", "b"],
         "shown": "b"},
    ]  # fmt: skip
    data = exported(hostile(messages=messages, shown="__proto__", title=CORPUS[1]))
    page.set_input_files("#file", {"name": "x", "mimeType": "text/plain", "buffer": data.encode()})
    page.locator("#list .open").click()
    until(page, "document.querySelectorAll('.turn').length === 2")
    assert page.evaluate(NO_HARM) == []
    assert texts(page)[0] == CORPUS[1]
