"""What goes over the wire while an answer streams: headers, pings, the chunk of usage, errors after the headers."""

import asyncio
import json

import httpx
import pytest
from tests.unit.server.conftest import events
from tests.unit.server.serving import served

from moreseek.server import streams
from moreseek.server.app import build_app

HELLO = [{"role": "user", "content": "hello"}]
ASKED = {"model": "tiny", "max_tokens": 5, "stream": True}
ROUTES = [("/v1/chat/completions", {"messages": HELLO}), ("/v1/completions", {"prompt": "hello"})]


@pytest.mark.parametrize(("path", "more"), [*ROUTES, ("/v1/responses", {"input": "hello"})])
def test_headers_keep_proxies_from_holding_a_stream_back(client, path, more):
    answer = client("POST", path, json=ASKED | more)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert "content-length" not in answer.headers


def test_a_stream_that_waits_is_pinged_and_says_the_same_as_one_that_does_not(llm, client, monkeypatch):
    monkeypatch.setattr(streams, "PING_S", 0.01)
    state = served(llm, running=1, queue=1)
    body = ASKED | {"messages": HELLO, "seed": 4}

    async def go():
        busy = state.models.first.queue.join(0, 1)
        transport = httpx.ASGITransport(build_app(state))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            asked = asyncio.create_task(http.post("/v1/chat/completions", json=body))
            await asyncio.sleep(0.1)
            busy.leave()
            return (await asked).text

    text = asyncio.run(go())
    lines = [line for line in text.split("\n\n") if line]
    assert lines[0] == ": ping"
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert lines[-1] == "data: [DONE]"
    told = [chunk["choices"] for chunk in chunks]
    assert told == [chunk["choices"] for chunk in events(client("POST", "/v1/chat/completions", json=body))]


@pytest.mark.parametrize(("path", "more"), ROUTES)
def test_a_chunk_of_usage_comes_only_where_it_was_asked_for_and_has_no_choices(client, path, more):
    plain = events(client("POST", path, json=ASKED | more))
    assert not any("usage" in chunk for chunk in plain)
    assert all(chunk["choices"] for chunk in plain)
    wanted = events(client("POST", path, json=ASKED | more | {"stream_options": {"include_usage": True}}))
    assert [bool(chunk["choices"]) for chunk in wanted] == [True] * (len(wanted) - 1) + [False]
    assert ["usage" in chunk for chunk in wanted] == [False] * (len(wanted) - 1) + [True]


def test_an_error_after_the_headers_is_an_event_and_the_end(llm, client, monkeypatch):
    whole = llm.engine.runner.logits
    steps = []

    def fail_later(step):
        steps.append(step)
        logits, states = whole(step)
        return (logits * float("nan") if len(steps) == 3 else logits), states

    monkeypatch.setattr(llm.engine.runner, "logits", fail_later)
    slowly = {"frequency_penalty": 0.1}  # whose tokens come one step at a time
    asked = ASKED | {"prompt": "hello", "max_tokens": 50, "ignore_eos": True} | slowly
    answer = client("POST", "/v1/completions", json=asked)
    assert answer.status_code == 200  # it was sent before
    *before, last = [line for line in answer.text.split("\n\n") if line]
    assert all("choices" in json.loads(line.removeprefix("data: ")) for line in before)
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_error"
    monkeypatch.undo()
    assert client("POST", "/v1/completions", json=ASKED | {"prompt": "hello"}).status_code == 200


def test_the_prompt_of_a_client_that_left_is_still_cached(llm):
    app = build_app(served(llm))
    prompt = llm.tokenizer.encode("you are how a world, hello?" * 9)[:80]
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 150, "ignore_eos": True}

    async def go():
        gone, seen = asyncio.Event(), []
        given = [{"type": "http.request", "body": json.dumps(body | {"stream": True}).encode(), "more_body": False}]

        async def receive():
            if given:
                return given.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            seen.append(message)
            if b"data" in message.get("body", b""):
                gone.set()

        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "raw_path": b"/v1/completions",
                 "query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http",
                 "server": ("test", 80)}  # fmt: skip
        await app(scope, receive, send)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            again = (await http.post("/v1/completions", json=body | {"max_tokens": 1})).json()
        return seen, again["usage"]["prompt_tokens_details"]["cached_tokens"]

    seen, cached = asyncio.run(go())
    assert not any(b"[DONE]" in message.get("body", b"") for message in seen)
    assert cached >= 64
    assert llm.engine.scheduler.blocks.free == llm.engine.scheduler.blocks.count - 1
