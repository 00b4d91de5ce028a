"""The choice of a precision by measurement."""

import json
import math

import pytest

from moreseek.engine import precision
from moreseek.engine.engine import Engine
from moreseek.engine.precision import Measured, Trial, choose_precision, known, measure
from moreseek.engine.sampling import SamplingParams
from moreseek.native.bindings import kernels, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason="no native kernels here")

FOUND = Measured("int8", "llama, 1M parameters", {"bf16": Trial(1.5, 1.0), "int8": Trial(2.0, 3.0, 1.001)})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and a model of any size is worth measuring."""
    monkeypatch.setattr(precision, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(precision, "SMALLEST", 0)
    return tmp_path


@pytest.fixture
def asked(monkeypatch):
    """How often something was measured; the answer is int8."""
    calls = []

    def answer(model):
        calls.append(model)
        return FOUND

    monkeypatch.setattr(precision, "measure", answer)
    return calls


def test_it_is_measured_once_and_known_from_then_on(make_model, cache, asked, capsys):
    model = make_model("llama")
    assert [choose_precision(model) for _ in range(3)] == ["int8"] * 3
    assert len(asked) == 1
    assert [str(found) for found in known()] == [str(FOUND)]
    assert "int8 is 2.00 times as fast" in capsys.readouterr().err


def test_other_weights_are_measured_anew(make_model, cache, asked):
    choose_precision(make_model("llama", seed=1))
    choose_precision(make_model("llama", seed=2))
    assert len(asked) == 2


def test_a_damaged_record_is_measured_anew(make_model, cache, asked):
    model = make_model("llama")
    choose_precision(model)
    (record,) = cache.iterdir()
    record.write_text("{", encoding="utf-8")
    assert choose_precision(model) == "int8"
    assert len(asked) == 2
    assert json.loads(record.read_text(encoding="utf-8"))["precision"] == "int8"


def test_a_wish_is_granted_without_measuring(make_model, cache, asked):
    assert choose_precision(make_model("llama"), "fp32") == "fp32"
    assert choose_precision(make_model("llama"), "int8") == "int8"
    assert not asked


def test_a_small_model_is_not_measured(make_model, cache, asked, monkeypatch):
    monkeypatch.setattr(precision, "SMALLEST", 10**9)
    assert choose_precision(make_model("llama")) == "fp32"
    assert not asked


@pytest.fixture
def tiles(monkeypatch):
    """As on a CPU with AMX."""
    monkeypatch.setattr(precision, "candidates", lambda: ["bf16", "int8"])


def test_the_measurement_has_speeds_and_the_loss(make_model, tiles, monkeypatch):
    monkeypatch.setattr(precision, "LEAST_GAIN", 0)
    monkeypatch.setattr(precision, "MOST_SLOWER", 0)
    measured = measure(make_model("llama"))
    assert list(measured.trials) == ["bf16", "int8"]
    for trial in measured.trials.values():
        assert trial.alone > 0
        assert trial.together > 0
        assert trial.perplexity == pytest.approx(1, abs=0.05)
    assert measured.precision in ("fp32", "bf16", "int8")


def test_bf16_is_tried_where_there_are_tiles():
    assert precision.candidates() == (["bf16", "int8"] if kernels().native_tiles() else ["int8"])


@pytest.mark.parametrize(
    ("bf16", "int8", "expected"),
    [  # tokens a second over fp32 for one request and for eight, and nats a token that are missed
        ((2.0, 2.0, 0.0), (5.0, 5.0, 0.0), "int8"),  # the fastest
        ((5.0, 5.0, 0.0), (2.0, 2.0, 0.0), "bf16"),
        ((2.0, 2.0, 0.0), (5.0, 5.0, 0.02), "bf16"),  # of those that do not spoil it
        ((0.8, 0.8, None), (5.0, 5.0, 0.02), "fp32"),
        ((0.8, 0.8, None), (5.0, 5.0, 0.0), "int8"),
        ((1.0, 1.0, None), (1.0, 1.0, None), "fp32"),
        ((5.0, 5.0, 0.02), (5.0, 5.0, 0.02), "fp32"),
        ((1.05, 1.05, None), (1.7, 1.0, 0.0), "int8"),  # much for one request is worth as much as some for both,
        ((2.0, 0.9, None), (0.9, 5.0, None), "fp32"),  # where the other loses nothing
    ],
)
def test_the_fastest_that_loses_little_is_chosen(make_model, tiles, monkeypatch, bf16, int8, expected):
    found = {"fp32": (1.0, 1.0, None), "bf16": bf16, "int8": int8}
    scored = []

    def divergence(exact, engine, texts):
        assert exact.precision == "fp32"
        scored.append(engine.precision)
        return found[engine.precision][2]

    monkeypatch.setattr(precision, "_divergence", divergence)
    monkeypatch.setattr(precision, "_seconds", lambda engine, texts: 1 / found[engine.precision][len(texts) > 1])
    assert measure(make_model("llama")).precision == expected
    assert scored == [name for name in found if found[name][2] is not None]  # nobody asks what is not faster


def test_the_loss_is_the_divergence_of_all_that_could_be_said(make_model):
    model = make_model("llama")
    exact, rough = (Engine(model, 2, frozen=True, precision=name) for name in ("fp32", "int8"))
    texts = [[1, 5, 9, 3, 7], [2, 4, 8]]
    everything = SamplingParams(max_tokens=1, prompt_logprobs=True, logprobs=model.config.vocab_size)
    missed = [
        sum(math.exp(p) * (p - theirs[token]) for token, p in ours.items())
        for mine, other in zip(*(engine.generate(texts, everything) for engine in (exact, rough)), strict=True)
        for ours, theirs in zip(mine.prompt_logprobs[1:], other.prompt_logprobs[1:], strict=True)
    ]
    assert precision._divergence(exact, rough, texts) == pytest.approx(sum(missed) / len(missed), rel=1e-3)
    assert precision._divergence(exact, exact, texts) == 0


def test_only_what_holds_here_is_listed(make_model, cache, asked):
    choose_precision(make_model("llama"))
    (record,) = cache.iterdir()
    record.with_name("precision-00000000-0000000000000000.json").write_bytes(record.read_bytes())  # of other kernels
    assert len(known()) == 1


def test_what_was_found_is_said_in_words():
    assert str(FOUND) == (
        "int8: bf16 is 1.50 times as fast as fp32 for one request and 1.00 times for 8; int8 is 2.00 times as fast as "
        "fp32 for one request and 3.00 times for 8, perplexity changes by +0.10%"
    )
