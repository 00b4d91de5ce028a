"""What an answer tells beside its text: usage, timings, log-probabilities; and how a request shapes it."""

import json
import logging
import math

import pytest
from tests.unit.server.conftest import events

from moreseek.server import logprobs, parsing
from moreseek.text.chat import encode_chat

HELLO = [{"role": "user", "content": "hello"}]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ROUTES = [(CHAT, {"messages": HELLO}), (TEXT, {"prompt": "hello"})]
TIMINGS = {
    "cache_n", "prompt_n", "prompt_ms", "prompt_per_token_ms", "prompt_per_second",
    "predicted_n", "predicted_ms", "predicted_per_token_ms", "predicted_per_second",
}  # fmt: skip


@pytest.mark.parametrize(("path", "more"), ROUTES)
@pytest.mark.parametrize("with_usage", [False, True])
def test_timings_are_llama_cpp_s_and_come_with_the_end(client, path, more, with_usage):
    asked = {"model": "tiny", "max_tokens": 6, "ignore_eos": True, "n": 2} | more
    whole = client("POST", path, json=asked).json()
    stream = {"stream": True, "stream_options": {"include_usage": with_usage}}
    chunks = events(client("POST", path, json=asked | stream))
    assert ["timings" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    for told in (whole["timings"], chunks[-1]["timings"]):
        assert set(told) == TIMINGS
        assert told["prompt_n"] + told["cache_n"] == whole["usage"]["prompt_tokens"]
        assert told["predicted_n"] == whole["usage"]["completion_tokens"] == 12
        assert 0 < told["predicted_ms"] < 60_000
        assert told["predicted_per_second"] == pytest.approx(12e3 / told["predicted_ms"])
        assert told["predicted_per_token_ms"] == pytest.approx(told["predicted_ms"] / 12)
        assert 0 < told["prompt_ms"] < 60_000


def test_the_timings_of_a_single_token_are_numbers(client):
    told = client("POST", TEXT, json={"model": "tiny", "prompt": "hello", "max_tokens": 1}).json()["timings"]
    assert all(math.isfinite(value) for value in told.values())


def test_usage_tells_cached_and_thinking_tokens(roomy, client_of):
    """Ended by a thinking budget, so that both the thinking and the answer have tokens."""
    long = [{"role": "user", "content": "hello world, how are you " * 20}]
    asked = {"model": "tiny", "messages": long, "max_tokens": 30, "thinking_budget": 5, "ignore_eos": True}
    client = client_of(roomy)
    first, again = (client("POST", CHAT, json=asked).json()["usage"] for _ in range(2))
    assert again["prompt_tokens_details"]["cached_tokens"] >= first["prompt_tokens"] - 16
    assert 5 <= first["completion_tokens_details"]["reasoning_tokens"] < first["completion_tokens"] == 30


@pytest.mark.parametrize(
    ("more", "thinks"),
    [
        ({}, True), ({"reasoning_effort": "none"}, False),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"thinking": False}}, False), ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "enabled"}}, True), ({"reasoning_effort": "high"}, True),
        ({"chat_template_kwargs": {"thinking": True}, "reasoning_effort": "none"}, True),
    ],
)  # fmt: skip
def test_every_switch_of_the_thinking_works(client, more, thinks):
    message = client("POST", CHAT, json={"model": "tiny", "messages": HELLO, "max_tokens": 9, "seed": 1} | more).json()
    message = message["choices"][0]["message"]
    assert message["reasoning"] == message["reasoning_content"]
    assert bool(message["reasoning_content"]) == thinks
    assert bool(message["content"]) != thinks
    assert isinstance(message["content"], str)  # never null: lm-eval


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thinking_is_understood_in_messages_under_both_names(client, field):
    def prompt(messages):
        answer = client("POST", CHAT, json={"model": "tiny", "messages": messages, "max_tokens": 1})
        return answer.json()["usage"]["prompt_tokens"]

    called = [*HELLO, {"role": "assistant", "content": "you"}]
    assert prompt([*called[:1], called[1] | {field: "how are you"}]) > prompt(called)


def test_what_json_cannot_say_never_gets_into_it(llm):
    shown = [{5: -math.inf, 6: -0.5}]
    for found in (logprobs.of_chat(llm, [5], shown, 2), logprobs.of_text(llm, [5], shown, 2)):
        assert "-9999.0" in json.dumps(found, allow_nan=False)


def test_tokenizer_info_and_tokenize_tell_what_lm_eval_asks_for(client, llm):
    told = client("GET", "/tokenizer_info").json()
    end = llm.tokenizer.decode([llm.tokenizer.eos_ids[0]])
    assert (told["eos_token"], told["chat_template"]) == (end, llm.tokenizer.chat_template)
    assert "bos_token" in told
    ids = llm.tokenizer.encode("hello")
    found = client("POST", "/tokenize", json={"prompt": "hello"}).json()
    assert found == {"tokens": ids, "count": len(ids), "max_model_len": 256}


def test_unknown_fields_are_ignored_and_logged_once(client, monkeypatch, caplog):
    monkeypatch.setattr(parsing, "_noted", set())
    monkeypatch.setattr(parsing, "MOST_NOTED", 5)
    caplog.set_level(logging.INFO, "moreseek.server")
    asked = {"model": "tiny", "prompt": "hello", "max_tokens": 2, "seed": 3}
    plain = client("POST", TEXT, json=asked).json()["choices"]
    for number in range(3):
        more = {"user": "somebody", "settings": 5, "x" * 500 + "\n": 1, f"made up {number}": {}}
        assert client("POST", TEXT, json=asked | more).json()["choices"] == plain
    notes = [record.getMessage() for record in caplog.records if "is not known here" in record.getMessage()]
    assert sum("'user'" in note for note in notes) == 1
    assert len(notes) == 5
    assert all(len(note) < 150 and "\n" not in note for note in notes)


# ------------------------------------------------------------------------------------------ going on with a message


def test_the_final_message_is_gone_on_with(client, llm, monkeypatch):
    seen, request = [], llm.engine.request
    monkeypatch.setattr(llm.engine, "request", lambda prompt, *rest: seen.append(prompt) or request(prompt, *rest))
    turns = [*HELLO, {"role": "assistant", "content": "you <|end|> are"}]
    asked = {"model": "tiny", "messages": turns, "continue_final_message": True, "max_tokens": 6, "seed": 2}
    whole = client("POST", CHAT, json=asked | {"ignore_eos": True}).json()["choices"][0]["message"]
    assert llm.tokenizer.decode(seen[0]).endswith("<|assistant|><think></think>you <|end|> are")
    assert seen[0][-1] not in llm.tokenizer.special_tokens.values()  # what is typed is text
    assert whole["reasoning_content"] is None
    alone = {"model": "tiny", "prompt": seen[0], "max_tokens": 6, "seed": 2, "ignore_eos": True}
    assert client("POST", TEXT, json=alone).json()["choices"][0]["text"] == whole["content"]


def test_thinking_without_an_answer_is_gone_on_with_as_thinking(client):
    turns = [*HELLO, {"role": "assistant", "content": "", "reasoning_content": "how are"}]
    asked = {"model": "tiny", "messages": turns, "continue_final_message": True, "max_tokens": 6, "ignore_eos": True}
    message = client("POST", CHAT, json=asked).json()["choices"][0]["message"]
    assert message["reasoning_content"]
    assert message["content"] == ""


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "last",
    [HELLO[0], {"role": "assistant", "content": ""}, {"role": "assistant", "content": "a", "tool_calls": [CALL]}],
)
def test_only_an_assistant_s_text_can_be_gone_on_with(client, last):
    asked = {"model": "tiny", "messages": [*HELLO, last], "continue_final_message": True}
    answer = client("POST", CHAT, json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "continue_final_message"


def test_a_template_that_leaves_the_text_out_is_told(make_llm, client_of):
    llm = make_llm(["hello world, how are you"] * 5, 290, 256)
    llm.tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}{% endfor %}"
    turns = [*HELLO, {"role": "assistant", "content": "you"}]
    answer = client_of(llm)("POST", CHAT, json={"model": "tiny", "messages": turns, "continue_final_message": True})
    assert answer.status_code == 400
    assert "cannot be continued" in answer.text
    assert encode_chat(llm.tokenizer, [], add_generation_prompt=True) == []
