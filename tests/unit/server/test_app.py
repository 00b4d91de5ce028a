"""The API over a real engine with random weights, by a plain HTTP client and a real server."""

import asyncio
import json

import httpx
import pytest
from tests.unit.server.conftest import events
from tests.unit.server.serving import served

from moreseek.engine.sampling import SamplingParams
from moreseek.records import Message
from moreseek.server.app import build_app
from moreseek.text.chat import encode_chat

HELLO = [{"role": "user", "content": "hello"}]


def chat(client, **more):
    return client("POST", "/v1/chat/completions", json={"model": "tiny", "messages": HELLO} | more)


def test_models_health_and_page(client):
    assert [model["id"] for model in client("GET", "/v1/models").json()["data"]] == ["tiny"]
    assert client("GET", "/health").json() == {"status": "ok", "models": {"ready": 1}}
    page = client("GET", "/")
    assert "static/chat.js" in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert client("GET", "/static/chat.js").status_code == 200


def test_a_chat_is_what_the_engine_writes(client, llm):
    answer = chat(client, temperature=0, max_tokens=20).json()
    prompt = encode_chat(llm.tokenizer, [Message(role="user", content="hello")], add_generation_prompt=True)
    [expected] = llm.generate([prompt], SamplingParams(temperature=0, max_tokens=20))
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"] or "") + message["content"] in expected.text
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    assert answer["usage"]["completion_tokens"] == len(expected.token_ids)
    assert answer["choices"][0]["finish_reason"] == expected.finish_reason


def test_a_stream_adds_up_to_the_whole_answer(client):
    settings = {"temperature": 1, "seed": 5, "max_tokens": 40, "n": 2}
    whole = chat(client, **settings).json()
    chunks = events(chat(client, stream=True, stream_options={"include_usage": True}, **settings))
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    for index, choice in enumerate(whole["choices"]):
        parts = [c["choices"][0] for c in chunks if c["choices"] and c["choices"][0]["index"] == index]
        assert "".join(part["delta"].get("content", "") for part in parts) == choice["message"]["content"]
        thought = "".join(part["delta"].get("reasoning_content", "") for part in parts)
        assert thought == (choice["message"]["reasoning_content"] or "")
        assert parts[-1]["finish_reason"] == choice["finish_reason"]
    assert all("usage" not in chunk for chunk in events(chat(client, stream=True, max_tokens=3)))


def test_without_a_seed_every_answer_is_another_and_a_seed_brings_one_back(client):
    def texts(**more):
        answers = [chat(client, temperature=1, max_tokens=20, **more).json() for _ in range(3)]
        return {json.dumps(answer["choices"][0]["message"]) for answer in answers}

    assert len(texts()) == 3
    assert len(texts(seed=0)) == 1


def test_echoed_logprobs_are_exact(client, llm):
    ids = llm.tokenizer.encode("hello world")
    asked = {"model": "tiny", "prompt": [ids], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
    choice = client("POST", "/v1/completions", json=asked).json()["choices"][0]
    found = choice["logprobs"]
    assert found["tokens"][: len(ids)] == [llm.tokenizer.decode([token]) for token in ids]
    assert found["token_logprobs"][0] is None
    assert len(found["token_logprobs"]) == len(ids) + 1
    assert found["token_logprobs"][-1] == max(found["top_logprobs"][-1].values())
    [scored] = llm.generate([ids], SamplingParams(max_tokens=1, prompt_logprobs=True, logprobs=1, temperature=0))
    expected = [shown[token] for shown, token in zip(scored.prompt_logprobs[1:], ids[1:], strict=True)]
    assert found["token_logprobs"][1 : len(ids)] == expected


def joined(logs):
    """The parts of a stream's log-probabilities as those of one answer."""
    return {name: [value for log in logs for value in log[name]] for name in logs[0]}


@pytest.mark.parametrize("stop", [None, "o"])
def test_streamed_logprobs_of_a_chat_are_those_of_the_whole_answer(client, stop):
    settings = {"seed": 5, "max_tokens": 40, "n": 2, "logprobs": True, "top_logprobs": 3, "stop": stop}
    whole = chat(client, **settings).json()
    chunks = events(chat(client, stream=True, **settings))
    parts = [chunk["choices"][0] for chunk in chunks]
    for choice in whole["choices"]:
        logs = [part["logprobs"] for part in parts if part["index"] == choice["index"] and part["logprobs"]]
        assert joined(logs) == choice["logprobs"]
        assert all(len(place["top_logprobs"]) == 3 for place in choice["logprobs"]["content"])
    assert sum(len(choice["logprobs"]["content"]) for choice in whole["choices"]) == whole["usage"]["completion_tokens"]
    assert chat(client, max_tokens=3).json()["choices"][0]["logprobs"] is None


@pytest.mark.parametrize("echo", [False, True])
def test_streamed_logprobs_of_a_text_are_those_of_the_whole_answer(client, echo):
    asked = {"model": "tiny", "prompt": ["hello", "how are you"], "logprobs": 2, "echo": echo, "seed": 5}
    whole = client("POST", "/v1/completions", json=asked).json()
    parts = [c["choices"][0] for c in events(client("POST", "/v1/completions", json=asked | {"stream": True}))]
    for choice in whole["choices"]:
        mine = [part for part in parts if part["index"] == choice["index"]]
        assert joined([part["logprobs"] for part in mine]) == choice["logprobs"]
        assert "".join(part["text"] for part in mine) == choice["text"]


def test_tokens_there_and_back(client):
    ids = client("POST", "/tokenize", json={"prompt": "hello"}).json()
    assert client("POST", "/detokenize", json={"tokens": ids["tokens"]}).json() == {"prompt": "hello"}
    assert client("GET", "/tokenizer_info").json()["eos_token"]


BAD = [
    ("/v1/chat/completions", {"model": "other", "messages": HELLO}, 404, "model_not_found"),
    ("/v1/chat/completions", {"model": "tiny", "messages": []}, 400, "messages"),
    ("/v1/chat/completions", {"model": "tiny", "messages": HELLO, "temperature": 9999}, 400, "temperature"),
    ("/v1/chat/completions", {"model": "tiny", "messages": HELLO, "tools": [{}]}, 400, "tools"),
    ("/v1/chat/completions", {"model": "tiny", "messages": [{"role": "user", "content": "x" * 9000}]}, 400, "context"),
    ("/v1/completions", {"model": "tiny", "prompt": ""}, 400, "at least 1"),
    ("/v1/completions", {"model": "tiny", "prompt": [999999]}, 400, "vocabulary"),
    ("/v1/completions", {"model": "tiny", "prompt": "a", "logit_bias": {"99999": 1}}, 400, "vocabulary"),
    ("/v1/completions", {"model": "tiny", "prompt": "\ud800"}, 400, "invalid_request_error"),
    ("/v1/completions", {"model": "tiny", "prompt": []}, 400, "at least 1"),
    ("/v1/completions", {"model": "tiny", "prompt": [[]]}, 400, "empty"),
    ("/detokenize", {"tokens": [-1]}, 400, "greater than or equal to 0"),
    ("/detokenize", {"tokens": [99999]}, 400, "ids run"),
]


@pytest.mark.parametrize(("path", "body", "status", "word"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_requests_are_told_what_is_wrong(client, path, body, status, word):
    answer = client("POST", path, content=json.dumps(body))
    assert answer.status_code == status
    assert word in answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_body_without_end_is_refused(client):
    assert client("POST", "/v1/completions", content=b"x" * (9 << 20)).status_code == 413
    assert client("GET", "/v1/chat/completions").status_code == 405
    assert client("GET", "/nothing").json()["error"]["message"] == "Not Found"


def test_a_key_guards_all_but_health_and_the_page(llm):
    app = build_app(served(llm, keys=("secret", "other")))

    async def go():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            right, wrong = ({"authorization": f"Bearer {key}"} for key in ("other", "secre"))
            return [
                (await http.get(path, headers=headers)).status_code
                for path, headers in [("/v1/models", {}), ("/v1/models", wrong), ("/v1/models", right), ("/health", {})]
            ]

    assert asyncio.run(go()) == [401, 401, 200, 200]


def test_a_full_queue_says_when_to_come_back(llm):
    state = served(llm, running=1, queue=0)

    async def go():
        busy = state.models.first.queue.join(0, 1)
        transport = httpx.ASGITransport(build_app(state))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            body = {"model": "tiny", "messages": HELLO}
            answers = [await http.post("/v1/chat/completions", json=body | more) for more in ({}, {"stream": True})]
            busy.leave()
            return answers, await http.post("/v1/chat/completions", json=body | {"max_tokens": 1})

    refused, later = asyncio.run(go())
    for answer in refused:
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
        assert answer.json()["error"]["type"] == "rate_limit_error"
    assert later.status_code == 200
    assert not llm.engine.scheduler.busy


def test_a_hundred_clients_get_what_one_gets(llm):
    app = build_app(served(llm))

    def body(i):
        messages = [{"role": "user", "content": f"hello {i % 7}"}]
        return {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 30}

    asked = [body(i) for i in range(100)]

    async def go(bodies):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as http:
            answers = await asyncio.gather(*(http.post("/v1/chat/completions", json=body) for body in bodies))
            return [answer.json()["choices"][0]["message"] for answer in answers]

    alone = [asyncio.run(go([body]))[0] for body in asked[:7]]
    assert asyncio.run(go(asked)) == [alone[i % 7] for i in range(100)]
    assert llm.engine.scheduler.blocks.free == llm.engine.scheduler.blocks.count - 1
