"""Settings of a request: what is refused, and with which words."""

import math

import pytest

from moreseek.engine.sampling import SamplingParams, Structure
from moreseek.errors import InputError

BAD = {
    "temperature": [10**400, math.nan, math.inf, -0.1, "1", True, None],
    "top_p": [0, 1.01, math.nan],
    "top_k": [-1, 1.5, 2**40],
    "min_p": [-0.1, 1.1],
    "max_tokens": [0, 10**30, "5"],
    "min_tokens": [-1, 300],
    "repetition_penalty": [0, math.inf],
    "presence_penalty": [math.nan, 101],
    "frequency_penalty": ["x"],
    "seed": [2**65, 1.0],
    "n": [0, 10**9, True],
    "logprobs": [-1, 10**6],
    "thinking_budget": [-1, 0.5],
    "stop": ["", [""], ["x"] * 1000, "x" * 10_000, 5, [5], iter("ab")],
    "stop_token_ids": [[-1], ["1"], [True], 5],
    "logit_bias": [{-1: 1}, {1: math.nan}, {1: 101}, {"1": 1}, [1]],
    "ignore_eos": [1],
    "structured": ["{}"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_refused_by_the_name_of_its_setting(name, value):
    with pytest.raises(InputError, match=name) as error:
        SamplingParams(**{"max_tokens": 256, name: value})
    assert len(str(error.value)) < 300


def test_the_defaults_are_plain_and_every_edit_of_logits_is_not():
    assert SamplingParams().plain
    assert SamplingParams(temperature=0, top_k=5, top_p=0.5, min_p=0.1).plain  # greedy: nothing to leave out
    assert SamplingParams(stop="x", logprobs=3, n=4, stop_token_ids=[1]).plain
    for edit in (
        {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}, {"min_tokens": 1}, {"logit_bias": {1: 2}},
        {"repetition_penalty": 1.1}, {"presence_penalty": 1}, {"frequency_penalty": -1}, {"thinking_budget": 5},
        {"structured": Structure("json_object")},
    ):  # fmt: skip
        assert not SamplingParams(**edit).plain, edit


def test_params_are_values_equal_hashable_and_copied():
    biases, stops = {1: 2}, ["a", "b", "a"]
    params = SamplingParams(logit_bias=biases, stop=stops)
    biases[1], stops[0] = 5, "c"
    assert params == SamplingParams(logit_bias={1: 2.0}, stop=("a", "b"))
    assert hash(params) == hash(SamplingParams(logit_bias={1: 2.0}, stop=("a", "b")))
    assert SamplingParams(stop="a").stop_strings == ("a",)


def test_a_structure_of_an_unknown_kind_of_no_json_or_too_long_is_refused():
    for make in (
        lambda: Structure("xml"),
        lambda: Structure("regex", "a" * 10**6),
        lambda: Structure.json_schema({"a": object()}),
    ):
        with pytest.raises(InputError, match="structured"):
            make()
