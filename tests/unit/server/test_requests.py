"""Requests into settings, and thinking told apart while it streams."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moreseek.server.errors import RefusedError
from moreseek.server.parsing import parse
from moreseek.server.reasoning import Splitter
from moreseek.server.requests import ChatRequest

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def chat(**more):
    return parse(ChatRequest, json.dumps(ASKED | more).encode())


def test_settings_are_the_engine_s():
    asked = chat(
        temperature=0.3, top_p=0.9, top_k=-1, stop="x", seed=7, logit_bias={"5": -2}, n=2, max_tokens=9, user="someone"
    )
    params = asked.settings(100, 50)
    assert (params.temperature, params.top_p, params.top_k, params.stop_strings) == (0.3, 0.9, 0, ("x",))
    assert (params.seed, params.logit_bias, params.n, params.max_tokens) == (7, {5: -2.0}, 2, 9)
    assert chat().settings(100, 50).max_tokens == 50


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"temperature": -1}, "temperature"), ({"n": 1000}, "n:"), ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "role"), ({"logit_bias": {"a": 1}}, "integers"),
        ({"stop": [""]}, "empty string"), ({"max_tokens": 101}, "101 is more than the 100"),
        ({"response_format": {"type": "json_schema"}}, "schema is missing"), ({"top_logprobs": 99}, "top_logprobs"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "content"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_name(more, message):
    def settings():
        asked = chat(**more)
        return asked.settings(100, 50, structured=asked.structure())

    with pytest.raises(RefusedError, match=message):
        settings()


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", b"null", b'{"model": "m"}', b"[" * 100_000])
def test_what_is_no_request_is_refused(raw):
    with pytest.raises(RefusedError) as refused:
        parse(ChatRequest, raw)
    assert refused.value.status == 400


TEXTS = st.sampled_from(["<think>a<b</think>c<d", "no thinking", "<think>never ends", "<thin air", "a</think>b", ""])


@given(text=TEXTS, thinking=st.booleans(), data=st.data())
def test_thinking_is_told_apart_however_the_text_is_cut(text, thinking, data):
    whole = Splitter(thinking)
    expected = ["".join(parts) for parts in zip(whole.push(text), whole.finish(), strict=True)]
    cut, thought, answer, left = Splitter(thinking), "", "", text
    while left:
        size = data.draw(st.integers(1, len(left)))
        more = cut.push(left[:size])
        thought, answer, left = thought + more[0], answer + more[1], left[size:]
    more = cut.finish()
    assert [thought + more[0], answer + more[1]] == expected


def test_thinking_and_answer():
    for pieces, opened in ((["<thi", "nk>ab", "</th", "ink>cd"], False), (["ab</think", ">cd"], True)):
        splitter = Splitter(opened)
        parts = [*map(splitter.push, pieces), splitter.finish()]
        assert ("".join(p[0] for p in parts), "".join(p[1] for p in parts)) == ("ab", "cd")
