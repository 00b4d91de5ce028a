"""Shaping of logits against a slow twin in plain Python, and against itself in other company."""

import math
import random
import time

import numpy as np
import pytest
import torch

from moreseek.engine.logits import Shaper, shape, top_logprobs
from moreseek.engine.sampling import SamplingParams
from moreseek.engine.thinking import ThinkingIds
from moreseek.errors import InputError

STOPS = (3, 7)
IDS = ThinkingIds(open=4, close=5, closing=(6, 5))


class Allows:
    """A grammar that allows the same ids for ever."""

    def __init__(self, ids, vocab_size):
        self.tokens = []
        self.bits = np.zeros(vocab_size, bool)
        self.bits[ids] = True

    def mask(self):
        return self.bits

    def observe(self, token):
        self.tokens.append(token)


def slow_twin(row, params, prompt, output, temperature):
    """One row as a list of floats, one token after the other."""
    row = list(row)
    for id, bias in params.logit_bias.items():
        row[id] += bias
    for id in set(prompt) | set(output):
        row[id] = row[id] / params.repetition_penalty if row[id] > 0 else row[id] * params.repetition_penalty
    for id in set(output):
        row[id] -= params.presence_penalty + params.frequency_penalty * output.count(id)
    if len(output) < params.min_tokens:
        for id in STOPS:
            row[id] = -math.inf
    if temperature == 0:
        return row
    order = sorted(range(len(row)), key=lambda id: -row[id])
    kept = order[: params.top_k] if params.top_k else order
    weights = [math.exp((row[id] - row[order[0]]) / temperature) for id in kept]
    before, end = 0.0, 0
    for place, weight in enumerate(weights):
        if before < params.top_p * sum(weights) or params.top_p == 1:
            end = place + 1
        before += weight
    kept = {id for id, weight in zip(kept[:end], weights, strict=False) if weight >= params.min_p}
    return [value if id in kept else -math.inf for id, value in enumerate(row)]


def random_params(draw):
    return SamplingParams(
        temperature=draw.choice([0, 0.3, 1.0, 2.5]),
        top_k=draw.choice([0, 0, 1, 5, 10_000]),
        top_p=draw.choice([1, 1, 0.9, 0.2, 0.999]),
        min_p=draw.choice([0, 0, 0.05, 1]),
        min_tokens=draw.choice([0, 3, 9]),
        repetition_penalty=draw.choice([1, 1.3, 0.8]),
        presence_penalty=draw.choice([0, 0.7]),
        frequency_penalty=draw.choice([0, 0.4, -0.2]),
        logit_bias=draw.choice([{}, {1: 5.0, 9: -100.0}]),
    )


def random_case(draw, vocab_size):
    params = random_params(draw)
    prompt = [draw.randrange(vocab_size) for _ in range(draw.randrange(1, 90))]
    output = [draw.randrange(vocab_size) for _ in range(draw.randrange(6))]
    shaper = Shaper(params, prompt, vocab_size, STOPS)
    for token in output:
        shaper.observe(token)
    return params, prompt, output, shaper


@pytest.mark.parametrize("vocab_size", [11, 264, 1000])
def test_every_row_is_what_the_slow_twin_says_and_other_rows_stay_untouched(vocab_size):
    draw = random.Random(vocab_size)
    for _ in range(40):
        cases = [random_case(draw, vocab_size) for _ in range(5)]
        raw = torch.randn(7, vocab_size) * 3
        temperature = torch.zeros(7)
        for row, (params, *_) in enumerate(cases):
            temperature[row + 1] = params.temperature
        logits = raw.clone()
        shape(logits, [(row + 1, case[3]) for row, case in enumerate(cases)], temperature)
        assert torch.equal(logits[0], raw[0])
        assert torch.equal(logits[6], raw[6])
        for row, (params, prompt, output, _) in enumerate(cases, 1):
            expected = torch.tensor(slow_twin(raw[row].tolist(), params, prompt, output, params.temperature))
            torch.testing.assert_close(logits[row], expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("vocab_size", [264, 49_152])
def test_a_row_is_bit_identical_whatever_rows_share_the_call(vocab_size):
    draw = random.Random(1)
    cases = [random_case(draw, vocab_size) for _ in range(24)]
    scale = torch.tensor([draw.choice([0.05, 1.0, 4.0]) for _ in cases]).unsqueeze(1)
    raw = torch.randn(24, vocab_size) * scale  # the flat ones need the whole sort
    temperature = torch.tensor([case[0].temperature for case in cases])
    together = raw.clone()
    shape(together, [(row, case[3]) for row, case in enumerate(cases)], temperature)
    for row, case in enumerate(cases):
        alone = raw[row : row + 1].clone()
        shape(alone, [(0, case[3])], temperature[row : row + 1])
        assert torch.equal(alone[0], together[row]), case[0]


def test_grammar_mask_min_tokens_and_thinking_take_turns():
    grammar = Allows([8, 3], 11)
    shaper = Shaper(SamplingParams(thinking_budget=1, min_tokens=6, structured=None), [4], 11, STOPS, IDS, grammar)

    def left():
        logits = torch.zeros(1, 11)
        shape(logits, [(0, shaper)], torch.ones(1))
        return [id for id in range(11) if logits[0, id] == 0]

    assert left() == [0, 1, 2, 4, 5, 6, 8, 9, 10]  # thinking: anything but the end
    shaper.observe(0)
    assert left() == [6]  # the budget is used up: the closing
    shaper.observe(6)
    assert left() == [5]
    shaper.observe(5)
    assert grammar.tokens == []
    assert left() == [8]  # the grammar, without the end while min_tokens asks for more
    shaper.observe(8)
    assert grammar.tokens == [8]
    grammar.bits[8] = False
    assert left() == [3]  # nothing but the end is left


def test_before_any_thinking_a_structured_answer_may_open_it():
    shaper = Shaper(SamplingParams(), [1], 11, STOPS, IDS, Allows([8], 11))
    assert np.flatnonzero(shaper.allowed()).tolist() == [4, 8]


def test_nan_stays_to_be_told():
    for params in (SamplingParams(top_p=0.9), SamplingParams(top_k=3), SamplingParams(min_p=0.2)):
        logits = torch.full((1, 11), math.nan)
        shape(logits, [(0, Shaper(params, [], 11))], torch.ones(1))
        assert logits.isnan().any()


def test_a_bias_outside_the_vocabulary_and_a_budget_without_thinking_are_refused():
    with pytest.raises(InputError, match="logit_bias: id 11"):
        Shaper(SamplingParams(logit_bias={11: 1}), [], 11)
    with pytest.raises(InputError, match="thinking_budget"):
        Shaper(SamplingParams(thinking_budget=1), [], 11)


def test_the_chosen_tokens_logprob_is_bit_equal_to_the_likeliest_one():
    logits = torch.randn(5, 1000)
    ids, values, chosen = top_logprobs(logits, 4, logits.argmax(-1))
    assert torch.equal(values[:, 0], chosen)
    assert torch.equal(ids[:, 0], logits.argmax(-1))
    alone = top_logprobs(logits[2:3], 4, logits[2:3].argmax(-1))
    assert torch.equal(alone[1][0], values[2])
    torch.testing.assert_close(chosen, logits.amax(-1) - logits.logsumexp(-1))


@pytest.mark.slow
def test_top_p_of_a_large_batch_costs_less_than_sorting_it():
    logits = torch.randn(64, 49_152)
    logits[:, :64] += 12  # as peaked as a language model's
    rows = [(row, Shaper(SamplingParams(top_p=0.9), [], 49_152)) for row in range(64)]
    copies = [logits.clone() for _ in range(5)]
    began = time.perf_counter()
    for copy in copies:
        shape(copy, rows, torch.ones(64))
    ours = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(5):
        logits.sort(descending=True)
    assert ours < time.perf_counter() - began
