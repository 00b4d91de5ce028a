"""Structured output through LLM: whatever the model would say, what it says has the structure."""

import json
import re

import pytest

from moreseek.engine.sampling import SamplingParams, Structure
from moreseek.errors import InputError

pytest.importorskip("llguidance")
DONE = "<|user|>Who?<|assistant|><think></think>"  # a model with <think> may think first
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "maximum": 99, "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def llm(make_llm):
    return make_llm(['{"name": "Ada"} yes no'] * 5, 270, 512)


def test_random_weights_write_what_the_schema_wants(llm):
    params = SamplingParams(max_tokens=200, n=5, structured=Structure.json_schema(SCHEMA))
    for completion in llm.generate([DONE], params):
        assert completion.finish_reason == "stop"
        value = json.loads(completion.text)
        assert set(value) == {"name", "age"}


def test_the_structure_begins_after_the_thinking(llm):
    params = SamplingParams(max_tokens=200, thinking_budget=7, structured=Structure("regex", "[0-9]{3}-[a-c]{2}"), n=3)
    for completion in llm.generate(["<|user|>?<|assistant|><think>"], params):
        thinking, _, answer = completion.text.partition("</think>")
        assert thinking
        assert re.fullmatch("[0-9]{3}-[a-c]{2}", answer)


def test_streams_and_neighbours_keep_their_own_structure(llm):
    choice = SamplingParams(max_tokens=50, structured=Structure.choice(["yes", "no"]))
    assert [*llm.stream(DONE, choice)][-1].text in ("yes", "no")
    texts = [completion.text for completion in llm.generate([DONE, "b" + DONE, "c" + DONE], choice)]
    assert set(texts) <= {"yes", "no"}


def test_a_bad_structure_is_refused_and_the_engine_goes_on(llm):
    with pytest.raises(InputError, match="regex"):
        llm.generate(["a"], SamplingParams(structured=Structure("regex", "(")))
    assert llm.generate(["a"], SamplingParams(max_tokens=1))


def test_a_grammar_that_goes_no_further_ends_its_own_request_alone(llm, monkeypatch):
    class Broken:
        def mask(self):
            raise InputError("structured: the grammar went no further (test).")

        def observe(self, token):
            raise AssertionError

    params = SamplingParams(max_tokens=5, structured=Structure("json_object"))
    with monkeypatch.context() as patch:
        patch.setattr(llm.engine, "compile", lambda structure: Broken())
        broken = llm.engine.request([1, 2], params)
    fine = llm.engine.request([1, 2], SamplingParams(max_tokens=5, ignore_eos=True))
    ends = []
    for sequence in (broken, fine):
        llm.loop._ends[sequence] = ends.append
        llm.engine.scheduler.add(sequence)
    assert llm.generate(["a"], SamplingParams(max_tokens=9, ignore_eos=True))
    assert broken.fault == "structured: the grammar went no further (test)."
    assert (broken.finish_reason, fine.finish_reason) == ("error", "length")
