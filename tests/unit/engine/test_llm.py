"""LLM as a Python user calls it."""

import gc
import multiprocessing
import threading
import weakref

import pytest

from moreseek.engine.llm import LLM
from moreseek.engine.sampling import SamplingParams, Structure
from moreseek.errors import FaultError, InputError

TEXTS = ["hello world, how are you", "other words and 12345"] * 5
WARM = SamplingParams(max_tokens=8, seed=7)


@pytest.fixture
def folder(make_folder):
    return make_folder(TEXTS, 290, 256)


@pytest.fixture
def llm(make_llm):
    return make_llm(TEXTS, 290, 256)


def test_a_prompt_s_texts_follow_from_the_seed_whatever_else_is_asked(llm):
    alone = [one.text for one in llm.generate(["how"], SamplingParams(max_tokens=8, seed=7, n=3))]
    beside = llm.generate(["hello", "how", "world"], SamplingParams(max_tokens=8, seed=7, n=3))
    again = llm.generate(["how", "hello", "how", "how"], WARM)
    assert len(set(alone)) == 3
    assert [one.text for one in beside[3:6]] == alone
    assert [again[place].text for place in (0, 2, 3)] == alone  # one that is asked again counts on


@pytest.mark.parametrize("seed", [0, 1, -1, 2**62])
def test_seeds_half_of_all_apart_are_not_the_same(llm, seed):
    one, other = (llm.generate(["how"], SamplingParams(seed=s, max_tokens=12))[0].text for s in (seed, seed + 2**63))
    assert one != other


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"structured": Structure.choice(["hello"]), "thinking_budget": 0}, "stop"),
        ({"stop": "l"}, "stop"),
        ({"max_tokens": 4, "ignore_eos": True}, "length"),
    ],
)
def test_a_stream_ends_with_the_whole_completion(llm, asked, reason):
    params = SamplingParams(**{"max_tokens": 60, "logprobs": 2, "prompt_logprobs": True, "seed": 3} | asked)
    (whole,) = llm.generate(["hello"], params)
    parts = list(llm.stream("hello", params))
    assert parts[-1] == whole
    assert whole.finish_reason == reason
    assert [len(part.token_ids) for part in parts[:-1]] == list(range(1, len(whole.token_ids) + 1))
    assert all(whole.text.startswith(part.text) for part in parts)


@pytest.mark.parametrize(
    "prompts",
    ["hello", [5, 6], [None], 3, [[float("nan")]], [[1.0, 2.0]], [[True]], [["a"]], [[5, [6]]], [[None]], [[-1]]],
    ids=repr,
)
def test_what_is_no_prompt_is_said_and_nobody_else_is_hurt(llm, prompts):
    long = SamplingParams(max_tokens=200, ignore_eos=True, temperature=0)
    others = []
    beside = threading.Thread(target=lambda: others.extend(llm.generate(["how are"], long)))
    beside.start()
    with pytest.raises(InputError, match="prompt"):
        llm.generate(prompts, WARM)
    beside.join()
    assert len(others[0].token_ids) == 200


def test_params_of_another_kind_are_refused(llm):
    with pytest.raises(InputError, match="SamplingParams, not dict"):
        llm.generate(["how"], {"temperature": 0})


@pytest.mark.parametrize(
    ("asked", "same"),
    [
        ({"temperature": 1e-39}, {"temperature": 0}),
        ({"temperature": 9e-6}, {"temperature": 0}),
        ({"temperature": 1e-5}, {"temperature": 0}),
    ],
)
def test_hardly_any_temperature_is_none(llm, asked, same):
    one, other = (llm.generate(["how"], SamplingParams(max_tokens=20, **params))[0] for params in (asked, same))
    assert one.token_ids == other.token_ids


def test_a_penalty_of_nearly_nothing_is_refused():
    with pytest.raises(InputError, match="repetition_penalty 1e-39 must be between"):
        SamplingParams(repetition_penalty=1e-39)
    assert SamplingParams(repetition_penalty=0.01).repetition_penalty == 0.01


def test_a_structure_that_is_done_ends_the_text_before_min_tokens(llm):
    params = SamplingParams(max_tokens=30, min_tokens=20, structured=Structure("regex", "[0-9]{3}"), temperature=0)
    (done,) = llm.generate(["how"], params)
    assert done.finish_reason == "stop"
    assert len(done.text) == 3
    assert done.token_ids[-1] in llm.tokenizer.eos_ids
    assert done.token_ids[-2] not in llm.tokenizer.eos_ids


def test_min_tokens_holds_where_no_grammar_says_otherwise(llm):
    stops = tuple(range(llm.model.config.vocab_size // 2))
    params = SamplingParams(max_tokens=30, min_tokens=12, stop_token_ids=stops, seed=1)
    (written,) = llm.generate(["how"], params)
    assert len(written.token_ids) >= 12
    assert not set(written.token_ids[:12]) & set(stops)


def test_the_end_of_thinking_may_be_a_stop_and_come_before_min_tokens(llm):
    ids = llm.engine.thinking
    if ids is None:
        pytest.skip("this tokenizer has no thinking marks")
    params = SamplingParams(temperature=0, thinking_budget=2, stop_token_ids=[ids.close], min_tokens=20, max_tokens=40)
    (ended,) = llm.generate([[ids.open]], params)
    assert ended.finish_reason == "stop"
    assert ended.token_ids[-1] == ids.close


@pytest.mark.parametrize("schema", [True, {}])
def test_a_schema_that_allows_everything(llm, schema):
    structured = Structure.json_schema(schema)
    assert llm.generate(["how"], SamplingParams(max_tokens=3, structured=structured, seed=1))[0].token_ids


# --- a model that is no longer wanted ----------------------------------------------------------------------------


def test_it_is_given_back_when_nobody_has_it(folder):
    llm = LLM(folder)
    llm.generate(["how"], SamplingParams(max_tokens=2, structured=Structure.choice(["a", "b"])))
    engine, thread = weakref.ref(llm.engine), llm.loop._thread
    del llm
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    gc.collect()
    assert engine() is None


def test_it_can_be_closed(folder):
    with LLM(folder) as llm:
        assert llm.generate(["how"], WARM)
    assert not llm.loop.alive
    with pytest.raises(FaultError, match="closed"):
        llm.generate(["how"], WARM)


def test_one_thread_steps_an_engine_however_many_ask_first(folder):
    llm = LLM(folder)
    loops, start = [], threading.Barrier(8)

    def ask():
        start.wait()
        loops.append(llm.loop)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(loops)) == 1
    llm.close()


def _ask_after_fork(llm, answers):
    try:
        llm.generate(["how"], WARM)
    except FaultError as error:
        answers.put(str(error))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_after_a_fork_the_child_is_told_and_does_not_wait_for_ever(llm):
    llm.generate(["how"], WARM)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_ask_after_fork, args=(llm, answers))
    child.start()
    child.join(20)
    hung = child.is_alive()
    child.kill()
    assert not hung
    assert "before the process forked" in answers.get()
    assert llm.generate(["how"], WARM)
