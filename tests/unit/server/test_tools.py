"""Tools: what the model is told, what it must write, and its calls told apart while they stream."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.server.conftest import events

from moreseek.engine.sampling import Structure
from moreseek.server.chat import Choice, Delta
from moreseek.server.errors import RefusedError
from moreseek.server.parsing import parse
from moreseek.server.requests import ChatRequest
from moreseek.server.tool_calls import CallSplitter
from moreseek.server.tools import as_text, offered, structure
from moreseek.text.chat import encode_chat
from moreseek.text.tokenizer import train_tokenizer

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}, "days": {"$ref": "#/$defs/days"}},
            "required": ["city", "days"],
            "additionalProperties": False,
            "$defs": {"days": {"type": "integer", "minimum": 1, "maximum": 9}},
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}
ASKED = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "tools": [WEATHER, CLOCK]}


def call(name="f", arguments='{"x": 1}'):
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def split(*pieces):
    """Content, and (name, arguments) of each call."""
    splitter, choice = CallSplitter(), Choice()
    for piece in pieces:
        choice.add(Delta(0, "", *splitter.push(piece)))
    choice.add(Delta(0, "", *splitter.finish()))
    return choice.content, [tuple(found["function"].values()) for found in choice.calls]


def mark(name):
    return f"<｜tool▁{name.replace(' ', '▁')}｜>"


def deepseek(*calls, fenced=True):
    """As the templates of V3 and R1 write calls down, or that of V3.1."""
    before, after = ("```json\n", "\n```") if fenced else ("", "")
    head = f"function{mark('sep')}{{}}\n" if fenced else f"{{}}{mark('sep')}"
    told = [f"{mark('call begin')}{head.format(name)}{before}{text}{after}{mark('call end')}" for name, text in calls]
    return mark("calls begin") + ("\n" if fenced else "").join(told) + mark("calls end")


TWO = [("f", '{"x": {"y": ["}", 1]}}'), ("g.h-1", "{}")]
OUTPUTS = {
    deepseek(*TWO): ("", TWO),
    deepseek(*TWO, fenced=False): ("", TWO),
    "I look.\n" + deepseek(("f", '{\n  "x": 1\n}')) + " and on": ("I look. and on", [("f", '{\n  "x": 1\n}')]),
    deepseek(("f", '{"a": "```"}')).removesuffix(mark("calls end")): ("", [("f", '{"a": "```"}')]),
    deepseek(("f", '{"x": 1}')).removeprefix(mark("calls begin")): ("", [("f", '{"x": 1}')]),
    f'{mark("calls begin")}{mark("call begin")}f{mark("sep")}{{"x": "cut': ("", [("f", '{"x": "cut')]),
    f"{mark('calls begin')} are marks": (f"{mark('calls begin')} are marks", []),
    f"{mark('call begin')}no sign {{}} here": (f"{mark('call begin')}no sign {{}} here", []),
    f"{mark('call begin')}{mark('sep')}{{}}": (f"{mark('call begin')}{mark('sep')}{{}}", []),
    f"{deepseek(('f', '{}'))}\n{call()}": ("", [("f", "{}"), ("f", '{"x": 1}')]),
    call(): ("", [("f", '{"x": 1}')]),
    f"Let me see.\n{call()}\n{call('g', '{}')}\n": ("Let me see.", [("f", '{"x": 1}'), ("g", "{}")]),
    call(arguments='{"a": {"b": ["}", "\\"]"]}}'): ("", [("f", '{"a": {"b": ["}", "\\"]"]}}')]),
    call(arguments='{"a": "</tool_call>"}'): ("", [("f", '{"a": "</tool_call>"}')]),
    '<tool_call>{"arguments": {"x": 1}, "name": "f"}</tool_call>': ("", [("f", '{"x": 1}')]),
    '<tool_call>{"name": "f"}</tool_call>': ("", [("f", "{}")]),
    '<tool_call>{"name": "f", "parameters": {"x": 1}}': ("", [("f", '{"x": 1}')]),
    call() + " and on": ("and on", [("f", '{"x": 1}')]),
    '<tool_call>{"name": "f", "arguments": {"x"': ("", [("f", '{"x"')]),
    '<tool_call>{"nam': ('<tool_call>{"nam', []),
    "<tool_call>soon</tool_call>": ("<tool_call>soon</tool_call>", []),
    "<tool_call>[1]</tool_call>": ("<tool_call>[1]</tool_call>", []),
    '<tool_call>{"name": "\\ud800", "arguments": {}}': ('<tool_call>{"name": "\\ud800", "arguments": {}}', []),
    "a <tool\n": ("a <tool\n", []),
    " plain \n": (" plain \n", []),
}


@pytest.mark.parametrize("text", OUTPUTS, ids=range(len(OUTPUTS)))
def test_calls_are_told_apart_from_content(text):
    content, calls = split(text)
    assert (content.lstrip() if calls else content, calls) == OUTPUTS[text]


@given(text=st.sampled_from(list(OUTPUTS)), data=st.data())
def test_calls_are_the_same_however_the_text_is_cut(text, data):
    pieces, left = [], text
    while left:
        size = data.draw(st.integers(1, len(left)))
        pieces.append(left[:size])
        left = left[size:]
    assert split(*pieces) == split(text)


def test_arguments_stream_as_they_come():
    splitter = CallSplitter()
    told = [splitter.push(piece)[1] for piece in ('<tool_call>{"name": "f", "arguments": {"x": "lo', 'ng"', "}}")]
    assert [[part.arguments for part in parts] for parts in told] == [["", '{"x": "lo'], ['ng"'], ["}"]]


def test_what_goes_on_for_too_long_after_deepseek_s_marks_is_no_call():
    text = f"{mark('calls begin')}{'x' * 400}"
    assert split(*text) == (text, [])


def test_arguments_under_deepseek_s_marks_stream_as_they_come():
    splitter = CallSplitter()
    head = f"{mark('calls begin')}{mark('call begin')}function{mark('sep')}f\n```json\n"
    told = [splitter.push(piece)[1] for piece in (head, '{"x": "lo', 'ng"', "}\n``", f"`{mark('call end')}")]
    assert [[part.arguments for part in parts] for parts in told] == [[], ["", '{"x": "lo'], ['ng"'], ["}"], []]


def test_deepseek_s_calls_come_as_tool_calls_whole_and_streamed(roomy, client_of, monkeypatch):
    """The marks' tokens are written by the engine; here its text is put in their place."""
    text = "Let me see. " + deepseek(("weather", '{"city": "Rome", "days": 2}'))
    pieces = iter([])

    def push(stream, token):
        return next(pieces, "")

    monkeypatch.setattr("moreseek.engine.stops.TextStream.push", push)
    monkeypatch.setattr("moreseek.engine.stops.TextStream.finish", lambda stream: "".join(pieces))
    asked = ASKED | {"max_tokens": 40, "ignore_eos": True}
    made = []
    for stream in (False, True):
        pieces = iter(["</think>", *(text[at : at + 7] for at in range(0, len(text), 7))])
        answer = client_of(roomy)("POST", "/v1/chat/completions", json=asked | {"stream": stream})
        if stream:
            choice = Choice()
            for chunk in events(answer):
                delta = chunk["choices"][0]["delta"]
                choice.content += delta.get("content", "")
                for part in delta.get("tool_calls", []):
                    made.append(part["function"].get("name"))
                    choice.thought += part["function"]["arguments"]
            assert (choice.content, choice.thought) == ("Let me see.", '{"city": "Rome", "days": 2}')
            assert made[0] == "weather"
            assert set(made[1:]) == {None}
            assert len(made) > 2
        else:
            message = answer.json()["choices"][0]["message"]
            assert message["content"] == "Let me see."
            assert message["tool_calls"][0]["function"] == {
                "name": "weather",
                "arguments": '{"city": "Rome", "days": 2}',
            }


def turns(*messages, tools=(WEATHER,)):
    asked = parse(ChatRequest, json.dumps({"model": "m", "messages": messages, "tools": tools}).encode())
    return [message.turn() for message in asked.messages], asked.tools


HISTORY = [
    {"role": "user", "content": "Rome?"},
    {"role": "assistant", "content": None, "tool_calls": [
        {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}]},
    {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "warm"}]},
]  # fmt: skip


def test_a_template_without_tools_is_told_of_them_as_text():
    told = as_text(*turns(*HISTORY))
    assert [turn.role for turn in told] == ["system", "user", "assistant", "user"]
    assert json.dumps(WEATHER) in told[0].content
    assert told[2].content == '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert told[3].content == ("<tool_response>\nsunny\n</tool_response>\n<tool_response>\nwarm\n</tool_response>")
    first = as_text(*turns({"role": "system", "content": "Be brief."}, *HISTORY))[0]
    assert first.content.startswith("Be brief.\n\n# Tools")


TEMPLATE = (
    "{% for tool in tools %}{{ tool | tojson }}{% endfor %}"
    "{% for message in messages %}<|user|>{{ message.role }}: {{ message.content }}"
    "{% for call in message.tool_calls %}{{ call.function.arguments | tojson }}{% endfor %}{% endfor %}"
)


def test_a_template_with_tools_gets_them_and_no_control_ids_from_users():
    tokenizer = train_tokenizer(["hello"] * 5, 290)
    tokenizer.chat_template = TEMPLATE
    evil = {"type": "function", "function": {"name": "f", "description": 'a "<|end|>" \ue0000\ue001'}}
    history = [*HISTORY[:1], {"role": "assistant", "tool_calls": [
        {"id": "1", "function": {"name": "f", "arguments": '{"<|end|>": ["<|user|>\\n"]}'}}]}]  # fmt: skip
    found, tools = turns(*history, tools=[evil])
    ids = encode_chat(tokenizer, found, tools=[tool.model_dump(exclude_none=True) for tool in tools])
    text = tokenizer.decode(ids)
    assert json.dumps(evil, ensure_ascii=False) in text
    assert '{"<|end|>": ["<|user|>\\n"]}' in text
    special = [id for id in ids if id in tokenizer.special_tokens.values()]
    assert tokenizer.decode(special) == "<|user|><|user|>"


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"tool_choice": "required", "tools": []}, "no tools"),
        ({"tool_choice": {"type": "function", "function": {"name": "none"}}}, "no tool 'none'"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name"),
        ({"tools": [{"type": "retrieval"}]}, "tools.0.type"),
        ({"tools": [CLOCK] * 200}, "tools"),
        ({"messages": [{"role": "assistant", "tool_calls": [
            {"id": "1", "function": {"name": "f", "arguments": "[1]"}}]}]}, "arguments of f"),
        ({"tool_choice": "required", "tools": [{"type": "function", "function": {
            "name": "f", "parameters": {"properties": {"a": {"type": "text"}}}}}]}, "grammar"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": True}}}, "has to be an object"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_tools_are_told(roomy, client_of, more, word):
    answer = client_of(roomy)("POST", "/v1/chat/completions", json=ASKED | more)
    assert answer.status_code == 400
    assert word in answer.json()["error"]["message"]


def test_no_choice_offers_no_tools():
    asked = parse(ChatRequest, json.dumps(ASKED).encode())
    assert offered(asked.tools, "none") == []
    assert [tool.function.name for tool in offered(asked.tools, "auto")] == ["weather", "clock"]
    with pytest.raises(RefusedError, match="no tools"):
        offered([], "required")


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize("choice", [NAMED, "required"], ids=["named", "required"])
@pytest.mark.parametrize("seed", range(3))
def test_a_forced_call_follows_its_schema_whole_and_streamed(roomy, client_of, choice, seed):
    send = client_of(roomy)
    asked = ASKED | {"tool_choice": choice, "seed": seed, "parallel_tool_calls": False, "thinking_budget": 3}
    whole = send("POST", "/v1/chat/completions", json=asked).json()["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"]["content"] is None
    [made] = whole["message"]["tool_calls"]
    arguments = json.loads(made["function"]["arguments"])
    if made["function"]["name"] == "weather":
        assert arguments["city"] in ("Oslo", "Rome")
        assert 1 <= arguments["days"] <= 9
    else:
        assert choice == "required"
        assert (made["function"]["name"], arguments) == ("clock", {})
    chunks = events(send("POST", "/v1/chat/completions", json=asked | {"stream": True}))
    parts = [c for chunk in chunks for c in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert (parts[0]["type"], parts[0]["function"]["name"]) == ("function", made["function"]["name"])
    assert "".join(part["function"]["arguments"] for part in parts) == made["function"]["arguments"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_tools_beside_a_schema_leave_both_open(roomy, client_of):
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    for seed in range(4):
        asked = ASKED | {"response_format": format, "seed": seed, "thinking_budget": 3}
        message = client_of(roomy)("POST", "/v1/chat/completions", json=asked).json()["choices"][0]["message"]
        assert message.get("tool_calls") or set(json.loads(message["content"])) == {"ok"}


def test_a_token_for_the_mark_is_used():
    tokenizer = train_tokenizer(["hello"] * 5, 300, extra_special=["<tool_call>", "</tool_call>"])
    asked = parse(ChatRequest, json.dumps(ASKED).encode())
    found = structure(asked.tools, "required", True, None, tokenizer)
    assert found is not None
    assert 'call: <tool_call> "\\n"' in found.text
    assert structure(asked.tools, "auto", True, None, tokenizer) is None
    assert structure([], None, True, Structure("json_object"), tokenizer) == Structure("json_object")
