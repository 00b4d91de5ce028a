"""The engine against a loop that reads the whole text again for every token, and against probabilities."""

import math
import time

import numpy as np
import pytest
import torch

from moreseek.engine.choice import choose
from moreseek.engine.engine import Drafting, Engine
from moreseek.engine.logits import Shaper, shape
from moreseek.engine.native_runner import NativeRunner
from moreseek.engine.sampling import SamplingParams
from moreseek.engine.scheduler import Scheduler
from moreseek.errors import FaultError, InputError
from moreseek.native import step as native

GREEDY = SamplingParams(temperature=0, max_tokens=9)
WARM = SamplingParams(temperature=0.8, max_tokens=9)

pytestmark = pytest.mark.usefixtures("both_paths")


@pytest.fixture
def prompts():
    """Ragged, some equal, as groups of rollouts are."""
    generator = torch.Generator().manual_seed(3)
    made = [torch.randint(89, (length,), generator=generator).tolist() for length in (5, 1, 11, 3, 8)]
    return [made[0], made[1], made[0], made[2], made[3], made[3], made[4], made[1], made[0]]


@torch.no_grad()
def slow_greedy(model, prompt, count, stops=()):
    ids, logprobs = list(prompt), []
    for _ in range(count):
        row = torch.log_softmax(model(torch.tensor([ids]))[0, -1], -1)
        ids.append(int(row.argmax()))
        logprobs.append(float(row.max()))
        if ids[-1] in stops:
            break
    return ids[len(prompt) :], logprobs


def full_logprobs(model, prompt, completion, temperature=1.0):
    logits = model(torch.tensor([[*prompt, *completion]]))[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits / temperature, -1).gather(1, torch.tensor(completion).unsqueeze(1)).squeeze(1)


# --- the same tokens ---------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("max_rows", [256, 4, 1])
def test_greedy_equals_the_loop_without_a_cache(any_model, prompts, max_rows):
    found = Engine(any_model, max_rows).generate(prompts, GREEDY)
    for prompt, completion in zip(prompts, found, strict=True):
        tokens, logprobs = slow_greedy(any_model, prompt, GREEDY.max_tokens)
        assert completion.token_ids == tokens
        assert completion.logprobs == pytest.approx(logprobs, abs=5e-5)


@torch.no_grad()
@pytest.mark.parametrize("max_rows", [256, 4, 3])
def test_a_request_s_tokens_depend_on_its_seed_alone(any_model, prompts, max_rows):
    any_model.config = any_model.config.model_copy(update={"eos_token_id": list(range(0, 89, 7))})  # many stop early
    hot = SamplingParams(temperature=4.0, max_tokens=9)
    seeds = [17 * i + 5 for i in range(len(prompts))]
    together = Engine(any_model, max_rows).generate(prompts, hot, seeds)
    for prompt, seed, completion in zip(prompts, seeds, together, strict=True):
        [alone] = Engine(any_model).generate([prompt], hot, [seed])
        assert (alone.token_ids, alone.finish_reason) == (completion.token_ids, completion.finish_reason)
        assert alone.logprobs == pytest.approx(completion.logprobs, abs=5e-5)
    assert len({len(completion.token_ids) for completion in together}) > 2, "rows must leave at different times"


@torch.no_grad()
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_those_of_a_full_forward(any_model, prompts, temperature):
    params = SamplingParams(temperature=temperature, max_tokens=12)
    for prompt, completion in zip(prompts, Engine(any_model, 4).generate(prompts, params), strict=True):
        expected = full_logprobs(any_model, prompt, completion.token_ids, temperature)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=5e-5, rtol=1e-4)


def test_the_seed_of_the_settings_counts_up_over_the_prompts(make_model):
    engine = Engine(make_model("llama"))
    params = SamplingParams(max_tokens=6, seed=40)
    together = engine.generate([[1, 2]] * 3, params)
    explicit = engine.generate([[1, 2]] * 3, params, seeds=[40, 41, 42])
    assert [c.token_ids for c in together] == [c.token_ids for c in explicit]
    assert len({tuple(c.token_ids) for c in together}) == 3


def test_a_training_step_is_seen_at_once(make_model):
    model = make_model("llama")
    engine = Engine(model)
    engine.generate([[1, 2, 3]] * 20, GREEDY)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[77] = model.norm.weight
        for parameter in model.layers.parameters():
            parameter.mul_(1.1)
    tokens, _ = slow_greedy(model, [1, 2, 3], GREEDY.max_tokens)
    assert engine.generate([[1, 2, 3]] * 20, GREEDY)[0].token_ids == tokens


def test_what_ran_when_the_weights_changed_is_no_prefix_for_others(make_model):
    """Its cache is half of the old weights; what it goes on to fill must not be taken for the new ones'."""
    model = make_model("llama")
    engine, params = Engine(model), SamplingParams(temperature=0, max_tokens=20, ignore_eos=True, logprobs=0)
    request = engine.add(range(10), params)
    engine.step()  # one: log-probabilities are asked for
    with torch.no_grad():
        model.layers[0].self_attn.qkv_proj.weight.mul_(1.5)
    engine.refresh()
    while engine.scheduler.busy:
        engine.step()
    later = engine.add([*range(10), *request.output], params)
    while engine.scheduler.busy:
        engine.step()
    assert later.output == Engine(model).generate([later.prompt], params)[0].token_ids
    assert later.reused == 0


def test_sampling_leaves_the_model_as_it_was(any_model):
    any_model.train()
    before = {name: tensor.clone() for name, tensor in any_model.state_dict().items()}
    Engine(any_model).generate([[1, 2]] * 10, WARM)
    assert any_model.training
    assert all(p.grad is None and p.requires_grad for p in any_model.parameters())
    after = any_model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before if before[name].numel())


# --- the right distribution --------------------------------------------------------------------------------------

CHI_SQUARE_999 = {2: 13.8, 3: 16.3, 7: 24.3}  # by degrees of freedom


def counts(model, params, draws=4000):
    found = Engine(model, max_rows=draws).generate([[1, 2, 3]] * draws, params)
    return np.bincount([completion.token_ids[0] for completion in found], minlength=model.config.vocab_size)


def chi_square(observed, probabilities):
    expected = probabilities * observed.sum()
    possible = expected > 0
    assert not observed[~possible].any()
    return float(((observed - expected)[possible] ** 2 / expected[possible]).sum()), int(possible.sum()) - 1


@pytest.fixture
def tiny_vocabulary(make_model):
    model = make_model("llama", vocab_size=8)
    with torch.no_grad():
        model.lm_head.weight.mul_(0.5)  # every token is likely enough to count
        logits = model(torch.tensor([[1, 2, 3]]))[0, -1].double().numpy()
    return model, logits


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
def test_samples_follow_the_softmax(tiny_vocabulary, temperature):
    model, logits = tiny_vocabulary
    probabilities = softmax(logits / temperature)
    value, freedom = chi_square(counts(model, SamplingParams(temperature=temperature, max_tokens=1)), probabilities)
    assert value < CHI_SQUARE_999[freedom]
    other = softmax(logits / (temperature * 1.3))
    assert chi_square(counts(model, SamplingParams(temperature=temperature, max_tokens=1)), other)[0] > value


def test_top_k_keeps_the_k_most_likely(tiny_vocabulary):
    model, logits = tiny_vocabulary
    kept = np.where(logits >= np.sort(logits)[-3], logits, -np.inf)
    value, freedom = chi_square(counts(model, SamplingParams(top_k=3, max_tokens=1)), softmax(kept))
    assert freedom == 2
    assert value < CHI_SQUARE_999[freedom]


def test_top_p_keeps_the_smallest_set_that_reaches_p(tiny_vocabulary):
    model, logits = tiny_vocabulary
    order = np.argsort(-logits)
    reached = np.cumsum(softmax(logits)[order])
    top_p = float((reached[2] + reached[3]) / 2)  # inside the fourth token
    kept = np.full(8, -np.inf)
    kept[order[:4]] = logits[order[:4]]
    value, freedom = chi_square(counts(model, SamplingParams(top_p=top_p, max_tokens=1)), softmax(kept))
    assert freedom == 3
    assert value < CHI_SQUARE_999[freedom]


def draw(logits, params, uniforms):
    kept, heat = logits.clone(), torch.full((len(logits),), params.temperature)
    shape(kept, [(row, Shaper(params, [1], logits.shape[1])) for row in range(len(logits))], heat)
    inverse = np.full(len(logits), 1 / params.temperature, np.float32)
    tokens, logprobs = choose(kept, inverse, uniforms.numpy())
    return torch.from_numpy(tokens), torch.from_numpy(logprobs)


def test_the_most_likely_token_always_stays():
    logits = torch.tensor([[0.0, 2.0, 1.0]]).repeat(50, 1)
    uniforms = torch.linspace(0, 1, 51, dtype=torch.float64)[:-1]
    for params in (SamplingParams(top_p=1e-9), SamplingParams(top_k=1), SamplingParams(temperature=1e-4)):
        tokens, logprobs = draw(logits, params, uniforms)
        assert (tokens == 1).all()
        assert logprobs.abs().max() < 1e-6


def test_a_uniform_at_the_very_end_still_picks_a_possible_token():
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    almost_one = torch.tensor([math.nextafter(1.0, 0.0)], dtype=torch.float64)
    tokens, logprobs = draw(logits, SamplingParams(top_k=2), almost_one)
    assert tokens.item() in (1, 2)
    assert math.isfinite(logprobs.item())
    first, _ = draw(torch.tensor([[-math.inf, 0.0]]), SamplingParams(), torch.zeros(1, dtype=torch.float64))
    assert first.item() == 1


def test_logprobs_are_of_the_truncated_distribution():
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    tokens, logprobs = draw(logits, SamplingParams(top_k=2, temperature=0.5), torch.tensor([0.99]).double())
    assert tokens.item() == 2
    assert logprobs.item() == pytest.approx(math.log(math.exp(4) / (math.exp(4) + math.exp(6))), abs=1e-5)


def softmax(values):
    shifted = np.exp(values - values.max())
    return shifted / shifted.sum()


# --- ends, callbacks and errors ----------------------------------------------------------------------------------


@torch.no_grad()
def test_a_completion_ends_with_the_end_token_or_at_its_limit(make_model):
    model = make_model("qwen3")
    tokens, _ = slow_greedy(model, [4, 5], 6)
    third = tokens[2]
    assert third not in tokens[:2]

    def run(**settings):
        [completion] = Engine(model).generate([[4, 5]], SamplingParams(temperature=0, max_tokens=6, **settings))
        return completion.token_ids, completion.finish_reason

    assert run() == (tokens, "length")
    assert run(stop_token_ids=(third,)) == (tokens[:3], "stop")
    model.config = model.config.model_copy(update={"eos_token_id": [third, 88]})
    assert run() == (tokens[:3], "stop")
    assert run(ignore_eos=True) == (tokens, "length")
    assert run(ignore_eos=True, stop_token_ids=(tokens[0],)) == (tokens[:1], "stop")
    [last] = Engine(model).generate([[4, 5]], SamplingParams(temperature=0, max_tokens=3))
    assert last.finish_reason == "stop"  # the end token came at the limit: not truncated


@pytest.mark.parametrize("rows", [1, 3, 20])
def test_several_steps_in_one_call_give_the_bits_of_single_ones(make_model, monkeypatch, rows):
    """Long enough for blocks, pieces of draws and rows that end in the middle of a call."""
    model = make_model("v3", max_position_embeddings=256)
    model.config = model.config.model_copy(update={"eos_token_id": [3]})
    prompts, calls = [[5 + row, 7, 11] for row in range(rows)], []
    many = Scheduler.several
    monkeypatch.setattr(Scheduler, "several", lambda self: calls.append(many(self)) or calls[-1])

    def run(temperature):
        made = Engine(model).generate(prompts, SamplingParams(temperature=temperature, max_tokens=150))
        return [(completion.token_ids, completion.logprobs, completion.finish_reason) for completion in made]

    found = [run(temperature) for temperature in (0, 1.3)]
    if isinstance(Engine(model).runner, NativeRunner):
        assert max(calls) > 2
        assert {len(tokens) for tokens, _, _ in found[1]} - {150}
    monkeypatch.setattr(Scheduler, "several", lambda self: 0)
    assert [run(temperature) for temperature in (0, 1.3)] == found


def test_a_request_that_comes_while_several_steps_run_waits_for_milliseconds(make_model, monkeypatch):
    """However long the others' texts will be, and whatever a step takes."""
    engine = Engine(make_model("llama", max_position_embeddings=2048))
    if not isinstance(engine.runner, NativeRunner):
        pytest.skip("only the native runner makes several steps in one call")
    steps, make = [], NativeRunner.multi_step
    monkeypatch.setattr(
        NativeRunner, "multi_step", lambda self, rows, most, _: steps.append(make(self, rows, most, 0.0)) or steps[-1]
    )
    engine.generate([[5, 6]], SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))
    assert set(steps) == {1}, "with no time left a step is made, and no other is begun"


def test_small_steps_leave_spare_threads_to_others(make_model, monkeypatch):
    """And large ones, which read prompts or decode many rows, take them all."""
    engine = Engine(make_model("llama"))
    engine.runner.spare = 1
    if not isinstance(engine.runner, NativeRunner):
        pytest.skip("only the native runner counts threads")
    seen = []
    for name in ("run", "multi_step"):
        make = getattr(native, name)
        monkeypatch.setattr(
            native,
            name,
            lambda model, step, threads, make=make: seen.append((step.rows, threads)) or make(model, step, 1),
        )
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    engine.generate([[5, 6, 7]], SamplingParams(temperature=0, max_tokens=5, ignore_eos=True))
    assert [threads for _, threads in seen] == [4, *[3] * (len(seen) - 1)], (
        "three tokens of a prompt, then one at a time"
    )
    seen.clear()
    engine.generate([[5], [6], [7]], SamplingParams(temperature=0, max_tokens=5, ignore_eos=True))
    assert {threads for _, threads in seen} == {4}


def test_callbacks_hear_every_token_and_every_end(make_model, prompts):
    heard, progress = {}, []
    found = Engine(make_model("llama"), max_rows=3).generate(
        prompts,
        WARM,
        on_token=lambda request, token: heard.setdefault(request, []).append(token),
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert [heard[i] for i in range(len(prompts))] == [completion.token_ids for completion in found]
    assert progress == sorted(set(progress))
    assert progress[-1] == (len(prompts), len(prompts))


def test_a_callback_that_raises_leaves_the_model_usable(make_model):
    model = make_model("llama").train()
    engine = Engine(model)

    def stop(request, token):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.generate([[1, 2]] * 20, WARM, on_token=stop)
    assert model.training
    model(torch.tensor([[1, 2]])).sum().backward()
    assert model.lm_head.weight.grad.any()


def test_no_prompts_give_no_completions(make_model):
    assert Engine(make_model("llama")).generate([], GREEDY) == []


@pytest.mark.parametrize(
    ("prompts", "max_tokens", "message"),
    [
        ([[1], []], 4, "prompt 1: the prompt is empty"),
        ([[1, 89]], 4, "prompt 0: the prompt holds a token id outside"),
        ([[1, -1]], 4, "prompt 0: the prompt holds a token id outside"),
        ([[1] * 250], 7, "250 tokens; with max_tokens 7 that passes the context of 256"),
    ],
)
def test_a_prompt_that_cannot_be_continued_is_refused(make_model, prompts, max_tokens, message):
    with pytest.raises(InputError, match=message):
        Engine(make_model("llama")).generate(prompts, SamplingParams(max_tokens=max_tokens))


def test_the_context_can_be_filled_to_its_last_token(make_model):
    model = make_model("llama", max_position_embeddings=20)
    [completion] = Engine(model).generate([[1] * 15], SamplingParams(temperature=0, max_tokens=5))
    assert completion.token_ids == slow_greedy(model, [1] * 15, 5)[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -0.1}, {"temperature": math.nan}, {"temperature": math.inf}, {"top_p": 0.0}, {"top_p": 1.1},
        {"top_p": math.nan}, {"top_k": -1}, {"max_tokens": 0},
    ],
    ids=str,
)  # fmt: skip
def test_settings_outside_their_range_are_refused(settings):
    [name] = settings
    with pytest.raises(InputError, match=name):
        SamplingParams(**settings)


# --- faults ------------------------------------------------------------------------------------------------------


def run_all(engine, requests):
    while engine.scheduler.busy:
        engine.step()
    return [(r.output, r.logprobs, r.finish_reason) for r in requests]


def test_a_long_prompt_is_read_in_pieces_that_others_can_wait_for(make_model, both_paths, monkeypatch):
    model = make_model("llama", max_position_embeddings=1024)
    prompt = torch.randint(89, (900,), generator=torch.Generator().manual_seed(1)).tolist()
    (expected,) = Engine(model, 4).generate([prompt], GREEDY)
    monkeypatch.setattr("moreseek.engine.engine.STEP_S", 0.02)
    engine = Engine(model, 4)
    plain, read = engine.runner.logits, []

    def slow(step):
        read.append(len(step.ids))
        time.sleep(len(step.ids) * 2e-4)
        return plain(step)

    monkeypatch.setattr(engine.runner, "logits", slow)
    assert engine.generate([prompt], GREEDY) == [expected]
    if both_paths == "native":
        assert read[0] == 900  # so small a model was thought to be fast
        for turn in range(1, 4):
            read.clear()
            engine.generate([[turn, *prompt]], GREEDY)
        chunks = [tokens for tokens in read if tokens > 1]
        assert sum(chunks) == 901
        assert max(chunks) <= 200  # 100 would take as long as they should
    else:
        assert [tokens for tokens in read if tokens > 1] == [900]  # there sums depend on how it is cut


def test_others_that_were_added_before_do_not_count(make_model, prompts):
    """Among what ends while generate waits for its own."""
    model = make_model("llama")
    expected = Engine(model).generate(prompts, GREEDY)
    engine = Engine(model)
    others = [engine.add([3, count], SamplingParams(max_tokens=count)) for count in range(1, 6)]
    assert engine.generate(prompts, GREEDY) == expected
    assert all(other.finish_reason for other in others)


def test_a_request_of_thousands_of_stop_ids_slows_none_that_come_after_it(make_model):
    engine = Engine(make_model("llama"), 4)
    engine.generate([[1]], SamplingParams(max_tokens=2, stop_token_ids=range(89)))
    engine.generate([[1]], SamplingParams(max_tokens=2))
    assert engine.scheduler.stops.shape[1] <= 64


def test_prompts_that_are_scored_share_what_a_step_may_score(make_model):
    engine = Engine(make_model("llama", max_position_embeddings=512), 16)
    scored = []
    plain = engine.scheduler._scored
    engine.scheduler._scored = lambda *rest: scored.append(plain(*rest)) or scored[-1]
    prompts = [[row, *range(80)] for row in range(8)]
    asked = SamplingParams(max_tokens=1, prompt_logprobs=True)
    together = engine.generate(prompts, asked)
    assert 200 < max(len(places) for places, _ in scored) <= 256
    assert sum(len(places) for places, _ in scored) == 8 * 80
    for prompt, found in zip(prompts, together, strict=True):
        (alone,) = Engine(engine.model).generate([prompt], asked)
        assert [
            list(one or {}) == list(other or {})
            and [*(one or {}).values()] == pytest.approx([*(other or {}).values()], abs=1e-5)
            for one, other in zip(found.prompt_logprobs, alone.prompt_logprobs, strict=True)
        ] == [True] * len(prompt)


def test_what_cannot_be_looked_for_ends_one_request_and_no_other(make_model, monkeypatch):
    def fails(model, tokens):
        raise OSError("no room for the weights")

    model = make_model("llama")
    engine = Engine(model)
    good = engine.add([1, 2], GREEDY)
    bad = engine.add([4, 5], SamplingParams(max_tokens=3, logit_bias={1: 1.0}))
    monkeypatch.setattr("moreseek.engine.engine.first_not_finite", fails)
    monkeypatch.setattr(Engine, "_shape", lambda self, logits, asked, temperature: [
        logits[place].fill_(float("nan")) for place, sequence in asked if sequence is bad
    ])  # fmt: skip
    while engine.scheduler.busy:
        engine.step()
    assert bad.fault == "the model's result is not a number. Its weights may be damaged."
    assert good.output == Engine(model).generate([[1, 2]], GREEDY)[0].token_ids


def test_a_request_with_nan_ends_with_the_layer_named_and_the_others_go_on(any_model, monkeypatch):
    healthy = [[1, 2, 3] * 6, [4, 5], [8] * 20]
    expected = [Engine(any_model).generate([prompt], GREEDY)[0].token_ids for prompt in healthy]
    bad = next(token for token in range(9, 89) if not any(token in tokens for tokens in expected))
    head = any_model.head.clone()  # apart from the embeddings, which some families share with it
    with torch.no_grad():
        any_model.embed_tokens.weight[bad] = math.nan
    monkeypatch.setattr(type(any_model), "head", head)
    engine, heard = Engine(any_model, frozen=True, drafting=Drafting()), []  # guesses could hold the token

    def hear(token, logprob):
        heard.append(token)

    for turn in range(3):  # blocks that a broken text leaves behind are used again
        broken = [engine.add([1, 2, 3] * 5 + [bad], GREEDY, on_token=hear) for _ in "ab"]
        fine = [engine.add(prompt, GREEDY) for prompt in healthy]
        found = run_all(engine, fine)
        assert [tokens for tokens, _, _ in found] == expected, turn
        assert not heard
        assert all(request.finish_reason == "error" and "embed_tokens" in request.fault for request in broken)
        assert not any(request.output for request in broken)
    assert engine.scheduler.blocks.free == engine.scheduler.blocks.count - 1


def test_nan_in_the_midst_of_a_text_ends_that_request_where_it_stands(make_model, monkeypatch):
    model = make_model("llama")
    long = SamplingParams(temperature=0, max_tokens=30)
    prompts = [[number, 7] for number in range(20, 28)]
    texts = [completion.token_ids for completion in Engine(model).generate(prompts, long)]
    victim, bad = next(  # a token that comes late in one text, and in no other
        (row, token)
        for row, text in enumerate(texts)
        for token in text[4:-1]
        if token not in text[:4] and not any(token in other for other in texts if other is not text)
    )
    monkeypatch.setattr(type(model), "head", model.head.clone())
    with torch.no_grad():
        model.embed_tokens.weight[bad] = math.nan
    engine = Engine(model, frozen=True)
    requests = [engine.add(prompt, long) for prompt in prompts]
    run_all(engine, requests)
    for row, (request, text) in enumerate(zip(requests, texts, strict=True)):
        whole = text[: text.index(bad) + 1] if row == victim else text
        assert (request.output, request.finish_reason == "error") == (whole, row == victim)
    assert engine.scheduler.blocks.free == engine.scheduler.blocks.count - 1


def test_what_a_broken_request_was_padded_with_reaches_nobody(make_model, both_paths):
    """Beside a longer prompt a short one is padded; what that leaves in the cache is read, behind a mask, by others."""
    for kind in ("llama", "v3"):
        model = make_model(kind)
        with torch.no_grad():
            model.embed_tokens.weight[7] = math.nan
        engine, longer = Engine(model, frozen=True), [number % 6 for number in range(40)]
        params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
        beside, broken = engine.add(longer, params), engine.add([7], params)
        run_all(engine, [])
        later = [engine.add(longer, params)]
        engine.step()
        later.append(engine.add([1, 2, 3], params))
        run_all(engine, [])
        assert broken.finish_reason == "error"
        assert [one.finish_reason for one in (beside, *later)] == ["length"] * 3


def test_generate_names_the_layer_that_broke(make_model):
    model = make_model("v3")
    with torch.no_grad():
        model.layers[1].mlp.experts.down_proj.fill_(math.nan)
    with pytest.raises(FaultError, match=r"layers\.1\.mlp"):
        Engine(model).generate([[1, 2, 3]], GREEDY)


def test_an_exception_ends_all_requests_and_new_ones_are_served(make_model, monkeypatch):
    model = make_model("llama")
    engine = Engine(model, frozen=True)
    [expected] = engine.generate([[1, 2]], GREEDY)
    request = engine.add([1, 2], GREEDY)
    engine.step()
    with monkeypatch.context() as patch:
        for way in ("logits", "multi_step"):
            patch.setattr(engine.runner, way, lambda *_: 1 / 0, raising=False)
        with pytest.raises(ZeroDivisionError):
            engine.step()
    assert request.finish_reason == "error"
    assert "ZeroDivisionError" in request.fault
    assert engine.generate([[1, 2]], GREEDY) == [expected]


# --- guesses -----------------------------------------------------------------------------------------------------

DRAFTINGS = [Drafting("mtp", 1, 99), Drafting("mtp", 3, 99), Drafting("text", 4, 99), Drafting("mtp", 2, 3)]


@pytest.fixture(scope="module")
def without_guesses():
    """without_guesses(model, path, kind, prompts, params): what comes without them, computed once for all draftings."""
    known = {}

    def completions(model, path, kind, prompts, params):
        if (path, kind, params) not in known:
            known[path, kind, params] = Engine(model, drafting=Drafting()).generate(prompts, params)
        return known[path, kind, params]

    return completions


@pytest.mark.parametrize("drafting", DRAFTINGS, ids=lambda one: f"{one.by}-{one.tokens}-{one.most_rows}")
@pytest.mark.parametrize(
    "params", [SamplingParams(temperature=0, max_tokens=90), SamplingParams(max_tokens=90)], ids=["greedy", "sampled"]
)
def test_guesses_change_no_token(make_model, both_paths, without_guesses, drafting, params):
    kinds = ["v3", "v3-q-lora-groups-yarn"] if drafting.by == "mtp" else ["v3", "llama"]
    for kind in kinds:
        model = make_model(kind, num_nextn_predict_layers=1) if kind.startswith("v3") else make_model(kind)
        model.config = model.config.model_copy(update={"eos_token_id": [3, 50, 71]})
        generator = torch.Generator().manual_seed(3)
        prompts = [torch.randint(89, (length,), generator=generator).tolist() for length in (5, 16, 1, 32, 17, 3)]
        prompts += prompts[:3]
        plain = without_guesses(model, both_paths, kind, prompts, params)
        for rows, budget in ((256, 2048), (4, 20)):
            engine = Engine(model, rows, budget=budget, drafting=drafting)
            found = engine.generate(prompts, params)
            assert engine.scheduler.guesses > 0
            assert engine.scheduler.blocks.free == engine.scheduler.blocks.count - 1
            for one, other in zip(plain, found, strict=True):
                assert (one.token_ids, one.finish_reason) == (other.token_ids, other.finish_reason)
                same = pytest.approx(one.logprobs, abs=5e-5) if both_paths == "torch" else one.logprobs
                assert other.logprobs == same


def test_a_listener_that_has_heard_enough_gets_none_of_the_guesses_behind(make_model):
    model, prompt = make_model("llama"), [5, 6, 7, 8] * 8
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    [whole] = Engine(model).generate([prompt], params)
    guesses = 0
    for enough in range(1, 30, 2):
        engine, heard = Engine(model, drafting=Drafting("text", 4)), []
        request = engine.add(
            prompt, params, on_token=lambda token, _, h=heard, n=enough: h.append(token) or len(h) >= n
        )
        while engine.scheduler.busy:
            engine.step()
        guesses += engine.scheduler.guessed_right
        assert heard == request.output == whole.token_ids[:enough]
        assert request.finish_reason == "stop"
    assert guesses


def test_the_mtp_module_guesses_what_it_says_on_the_whole_text(make_model, both_paths):
    """The first guess after each token, from the cache, against the module on the whole text without one."""
    model = make_model("v3")
    engine = Engine(model, drafting=Drafting("mtp", 1))
    request = engine.add([5, 4, 3, 2, 1] * 5, SamplingParams(temperature=0, max_tokens=40, ignore_eos=True))
    scheduler, right = engine.scheduler, 0
    while True:
        engine.step()
        if request.finish_reason is not None:
            break
        known = int(scheduler.known[0])
        if scheduler.drafted[0]:
            ids = torch.from_numpy(scheduler.tokens[0, :known].copy()).unsqueeze(0)
            with torch.no_grad():
                shared = model.start_pass(ids, None)
                ahead = model.mtp_hidden_states(model.hidden_states(ids, shared=shared), ids, shared)
                expected = int(model.logits(ahead)[0, -2].argmax())
            assert scheduler.tokens[0, known] == expected
            right += 1
    assert right > 20


def test_a_right_guess_saves_a_step(make_model):
    model = make_model("v3")
    with torch.no_grad():  # all tokens are equally likely, and the first of equals is taken
        model.lm_head.weight.zero_()
    for drafting, steps in ((Drafting("mtp", 1), 15), (Drafting("mtp", 2), 10)):  # of 30 tokens
        engine = Engine(model, drafting=drafting)
        engine.add([0, 0, 0], SamplingParams(temperature=0, max_tokens=30, ignore_eos=True))
        taken = 0
        while engine.scheduler.busy:
            engine.step()
            taken += 1
        assert steps <= taken <= steps + 2, drafting
