"""/v1/responses: text, thinking and calls as items, whole and streamed; earlier turns."""

import json

import pytest
from tests.unit.server.test_tools import WEATHER

from moreseek.server.parsing import parse
from moreseek.server.requests import ChatMessage
from moreseek.server.response_requests import ResponseRequest
from moreseek.server.responses import Kept, KeptResponses

FLAT = {"type": "function", **WEATHER["function"]}


def asked(send, path="", method="POST", **more):
    if method != "POST":
        return send(method, f"/v1/responses{path}")
    return send("POST", "/v1/responses", json={"model": "tiny", "input": "hello", "temperature": 0} | more)


def events(answer):
    """The events of a stream, each named for its type."""
    found = []
    for block in answer.text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def texts(response):
    return {item["type"]: item["content"][0]["text"] for item in response["output"] if "content" in item}


def test_a_response_is_the_chat_s_answer(client):
    chat = client("POST", "/v1/chat/completions", json={
        "model": "tiny", "temperature": 0, "max_tokens": 40,
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}],
    }).json()  # fmt: skip
    response = asked(client, instructions="be brief", max_output_tokens=40).json()
    message = chat["choices"][0]["message"]
    assert texts(response).get("reasoning") == message["reasoning_content"]
    assert texts(response).get("message", "") == message["content"]
    assert response["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]
    assert response["usage"]["output_tokens_details"] == chat["usage"]["completion_tokens_details"]
    ended = chat["choices"][0]["finish_reason"]
    assert response["status"] == {"length": "incomplete", "stop": "completed"}[ended]


@pytest.mark.parametrize("budget", [None, {"effort": "none"}])
def test_a_stream_ends_with_the_whole_response(client, budget):
    more = {"max_output_tokens": 30, "reasoning": budget, "include": ["message.output_text.logprobs"]}
    whole = asked(client, **more).json()
    told = events(asked(client, stream=True, **more))
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert [event["type"] for event in told[:2]] == ["response.created", "response.in_progress"]
    last = told[-1]["response"]
    assert told[-1]["type"] == f"response.{whole['status']}"
    assert texts(last) == texts(whole)
    assert set(texts(last)) == ({"message"} if budget else {"reasoning"})
    for kind, name in (("reasoning_text", "reasoning"), ("output_text", "message")):
        deltas = [event for event in told if event["type"] == f"response.{kind}.delta"]
        assert "".join(event["delta"] for event in deltas) == texts(whole).get(name, "")
    if budget:
        assert whole["output"][0]["content"][0]["logprobs"]
        assert whole["usage"]["output_tokens_details"] == {"reasoning_tokens": 0}
    opened = [event for event in told if event["type"] == "response.output_item.added"]
    closed = [event for event in told if event["type"] == "response.output_item.done"]
    assert [event["item"]["id"] for event in opened] == [event["item"]["id"] for event in closed]


def test_a_forced_call_is_an_item(roomy, client_of):
    send = client_of(roomy)
    more = {"tools": [FLAT], "tool_choice": {"type": "function", "name": "weather"}, "reasoning": {"effort": "none"}}
    [call] = asked(send, **more).json()["output"]
    assert (call["type"], call["name"], call["status"]) == ("function_call", "weather", "completed")
    assert json.loads(call["arguments"])["city"] in ("Oslo", "Rome")
    told = events(asked(send, stream=True, **more))
    deltas = [event["delta"] for event in told if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(deltas) == call["arguments"]
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sunny"}
    history = [{"role": "user", "content": "hello"}, call, result]
    assert asked(send, input=history, tools=[FLAT], max_output_tokens=2).status_code == 200


def test_a_schema_is_followed(client):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    schema["additionalProperties"] = False
    format = {"type": "json_schema", "name": "answer", "schema": schema}
    response = asked(client, text={"format": format}, reasoning={"effort": "none"}).json()
    assert set(json.loads(texts(response)["message"])) == {"ok"}
    assert response["text"]["format"]["schema"] == schema


def test_a_response_is_gone_on_from_by_its_id(client):
    more = {"max_output_tokens": 5, "reasoning": {"effort": "none"}}
    first = asked(client, instructions="be brief", **more).json()
    assert asked(client, f"/{first['id']}", "GET").json() == first
    second = asked(client, input="and then?", previous_response_id=first["id"], **more).json()
    turns = [{"role": "user", "content": "hello"}, *first["output"], {"role": "user", "content": "and then?"}]
    same = asked(client, input=turns, store=False, **more).json()
    assert second["usage"]["input_tokens"] == same["usage"]["input_tokens"]
    assert texts(second) == texts(same)
    assert asked(client, f"/{same['id']}", "GET").status_code == 404
    assert asked(client, f"/{first['id']}", "DELETE").json()["deleted"]
    gone = asked(client, previous_response_id=first["id"])
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "previous_response_id")


def test_kept_responses_are_bounded(monkeypatch):
    monkeypatch.setattr("moreseek.server.responses.MOST_CHARACTERS", 10_000)
    kept = KeptResponses()
    for i in range(30):
        kept.add(Kept({"id": str(i)}, [ChatMessage(role="user", content="x" * 800)]))
    assert kept.find("29")
    assert len(kept._kept) == 10


def test_items_that_belong_to_one_turn_become_one():
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "c", "annotations": []}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "d"},
        {"role": "assistant", "content": "e"},
        {"role": "assistant", "content": "f"},
    ]
    turns = parse(ResponseRequest, json.dumps({"model": "m", "input": items}).encode()).messages()
    assert [(turn.role, turn.text) for turn in turns] == [
        ("user", "ab"), ("assistant", "c"), ("tool", "d"), ("assistant", "e"), ("assistant", "f")
    ]  # fmt: skip
    assert turns[1].reasoning_content == "hm"
    assert [call.function.name for call in turns[1].tool_calls or []] == ["f", "g"]


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({"input": []}, "input"), ({"input": [{"type": "image"}]}, "input"), ({"max_output_tokens": 0}, "max_output"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"), ({"temperature": -1}, "temperature"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "content.0.type"),
        ({"text": {"format": {"type": "json_schema"}}}, "schema is missing"),
        ({"input": [{"type": "function_call", "call_id": "1", "name": "f", "arguments": "["}]}, "arguments of f"),
        ({"tool_choice": {"type": "function", "name": "f"}}, "no tool 'f'"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_requests_are_told(client, more, word):
    answer = asked(client, **more)
    assert answer.status_code == 400, answer.text
    assert word in answer.json()["error"]["message"]
