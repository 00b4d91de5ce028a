"""What settings do to a text, through the engine, against a plain loop over the whole text."""

import pytest
import torch

from moreseek.engine.engine import Drafting, Engine
from moreseek.engine.sampling import SamplingParams
from moreseek.engine.thinking import ThinkingIds
from moreseek.errors import InputError

pytestmark = pytest.mark.usefixtures("both_paths")
PROMPT = [5, 4, 5, 7, 9, 1]
COUNT = 12


@torch.no_grad()
def by_hand(model, change, count=COUNT, prompt=PROMPT):
    """Greedy, the logits changed by ``change(logits, prompt, output)``; tokens and the model's log-probabilities."""
    output, raw = [], []
    for _ in range(count):
        logits = model(torch.tensor([[*prompt, *output]]))[0, -1]
        raw.append(torch.log_softmax(logits, -1))
        output.append(int(change(logits.clone(), prompt, output).argmax()))
    return output, raw


def greedy(model, **settings):
    params = SamplingParams(temperature=0, max_tokens=COUNT, ignore_eos=True, **settings)
    [found] = Engine(model).generate([PROMPT], params)
    return found


def repeated(penalty):
    def change(logits, prompt, output):
        for token in {*prompt, *output}:
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        return logits

    return change


def counted(presence, frequency):
    def change(logits, prompt, output):
        for token in set(output):
            logits[token] -= presence + frequency * output.count(token)
        return logits

    return change


def biased(biases):
    def change(logits, prompt, output):
        for token, bias in biases.items():
            logits[token] += bias
        return logits

    return change


CHANGES = {
    "repetition": ({"repetition_penalty": 1.4}, repeated(1.4)),
    "presence": ({"presence_penalty": 3.0}, counted(3.0, 0)),
    "frequency": ({"frequency_penalty": 2.0}, counted(0, 2.0)),
    "both": ({"presence_penalty": -1.0, "frequency_penalty": 1.5}, counted(-1.0, 1.5)),
    "bias": ({"logit_bias": {3: 100.0, 4: -100.0}}, biased({3: 100.0, 4: -100.0})),
}


@pytest.mark.parametrize(("settings", "change"), CHANGES.values(), ids=CHANGES)
def test_penalties_and_biases_are_those_of_a_plain_loop(any_model, settings, change):
    assert greedy(any_model, **settings).token_ids == by_hand(any_model, change)[0]
    assert greedy(any_model, **settings).logprobs != greedy(any_model).logprobs


def test_shown_logprobs_are_the_model_s_own(any_model):
    output, raw = by_hand(any_model, biased({3: 2.0}))
    found = greedy(any_model, logit_bias={3: 2.0}, logprobs=4)
    for token, row, shown in zip(output, raw, found.top_logprobs, strict=True):
        best = row.topk(4)
        assert set(shown) == {*best.indices.tolist(), token}
        assert shown == pytest.approx({i: float(row[i]) for i in shown}, abs=5e-5)


def test_prompt_logprobs_are_those_of_the_text_in_whatever_chunks(any_model, both_paths):
    text = torch.randint(89, (70,), generator=torch.Generator().manual_seed(1)).tolist()
    with torch.no_grad():
        rows = torch.log_softmax(any_model(torch.tensor([text]))[0], -1)
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=True, logprobs=2)
    results = []
    for budget, rows_at_once in ((2048, 64), (7, 3)):
        engine = Engine(any_model, rows_at_once, frozen=True, budget=budget)
        engine.generate([text], SamplingParams(max_tokens=1))  # a cached prefix must not hide what is asked for
        first, second = engine.generate([text, text], params)
        if both_paths == "native":
            assert first.prompt_logprobs == second.prompt_logprobs
        results.append(first.prompt_logprobs)
    assert results[0][0] is None
    assert len(results[0]) == len(text)
    for at, shown in enumerate(results[0][1:], 1):
        assert shown == pytest.approx({i: float(rows[at - 1, i]) for i in shown}, abs=5e-5)
        assert text[at] in shown
    for one, other in zip(results[0][1:], results[1][1:], strict=True):
        assert one == pytest.approx(other, abs=5e-5)


def test_a_scored_text_and_a_sampled_one_have_the_same_bits(make_model, both_paths):
    if both_paths == "torch":
        pytest.skip("the model's own code rounds by the shape of its batch")
    model = make_model("v3")
    engine = Engine(model, frozen=True)
    [sampled] = engine.generate([PROMPT], SamplingParams(max_tokens=20, ignore_eos=True, logprobs=1))
    text = PROMPT + sampled.token_ids
    [scored] = engine.generate([text], SamplingParams(max_tokens=1, prompt_logprobs=True, logprobs=1))
    assert scored.prompt_logprobs[len(PROMPT) :] == sampled.top_logprobs


def test_a_prompt_of_one_token_has_nothing_to_score(make_model):
    [found] = Engine(make_model("llama")).generate([[3]], SamplingParams(max_tokens=1, prompt_logprobs=True))
    assert found.prompt_logprobs == [None]


def test_no_end_comes_before_min_tokens(make_model):
    model = make_model("llama")
    ends = greedy(model).token_ids[:3]
    model.config = model.config.model_copy(update={"eos_token_id": ends})
    [early] = Engine(model).generate([PROMPT], SamplingParams(temperature=0, max_tokens=COUNT))
    assert len(early.token_ids) == 1
    [late] = Engine(model).generate([PROMPT], SamplingParams(temperature=0, max_tokens=COUNT, min_tokens=6))
    assert len(late.token_ids) >= 6
    assert set(late.token_ids[:6]).isdisjoint(ends)


def test_a_thinking_budget_closes_the_thinking(make_model):
    model = make_model("v3")
    engine = Engine(model)
    engine.thinking = ThinkingIds(80, 81, (82, 81))
    for prompt, settings in (([*PROMPT, 80], {}), (PROMPT, {"logit_bias": {80: 100.0}})):
        params = SamplingParams(temperature=1, max_tokens=20, thinking_budget=5, ignore_eos=True, **settings)
        [found] = engine.generate([prompt], params)
        opened = 0 if prompt[-1] == 80 else found.token_ids.index(80) + 1
        if not settings:
            assert found.token_ids[opened + 5 : opened + 7] == [82, 81]
            assert 81 not in found.token_ids[opened : opened + 5]
    with pytest.raises(InputError, match="thinking_budget"):
        Engine(model).generate([PROMPT], SamplingParams(thinking_budget=5))


def test_settings_of_one_request_leave_its_neighbours_alone(make_model):
    model = make_model("v3")
    plain, odd = SamplingParams(max_tokens=30), SamplingParams(
        max_tokens=30, top_p=0.7, min_p=0.05, repetition_penalty=1.3, logit_bias={3: 5.0}, logprobs=3, seed=4
    )  # fmt: skip
    [alone] = Engine(model).generate([PROMPT], plain, [7])
    [odd_alone] = Engine(model).generate([PROMPT], odd, [4])
    engine = Engine(model, drafting=Drafting("mtp", 2))
    both = [engine.add(PROMPT, plain, 7), engine.add(PROMPT, odd, 4), engine.add(PROMPT[:3], odd, 9)]
    while engine.scheduler.busy:
        engine.step()
    assert both[0].output == alone.token_ids
    assert both[1].output == odd_alone.token_ids


def test_ids_outside_the_vocabulary_are_refused(make_model):
    engine = Engine(make_model("llama"))
    for settings in ({"logit_bias": {89: 1.0}}, {"stop_token_ids": (89,)}):
        with pytest.raises(InputError, match="vocabulary"):
            engine.generate([PROMPT], SamplingParams(**settings))
