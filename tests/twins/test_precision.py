"""The choice of a precision by measurement."""

import json

import pytest

from moreseek.engine import precision
from moreseek.engine.precision import Measured, Trial, choose_precision, known, measure
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
    ("seconds", "losses", "expected"),
    [
        ((1.0, 0.5, 0.1), (2.0, 2.0, 2.0), "int8"),  # the fastest
        ((1.0, 0.1, 0.5), (2.0, 2.0, 2.0), "bf16"),
        ((1.0, 0.5, 0.1), (2.0, 2.0, 2.02), "bf16"),  # of those that do not spoil it: 2 % of perplexity
        ((1.0, 1.2, 0.1), (2.0, None, 2.02), "fp32"),
        ((1.0, 1.2, 0.1), (2.0, None, 2.0), "int8"),
        ((1.0, 1.0, 1.0), (None, None, None), "fp32"),
        ((1.0, 0.1, 0.1), (2.0, 2.02, 2.02), "fp32"),
    ],
)
def test_the_fastest_that_loses_little_is_chosen(make_model, tiles, monkeypatch, seconds, losses, expected):
    names = ("fp32", "bf16", "int8")
    times, loss = dict(zip(names, seconds, strict=True)), dict(zip(names, losses, strict=True))
    scored = []

    def score(engine, texts):
        scored.append(engine.precision)
        return loss[engine.precision]

    monkeypatch.setattr(precision, "_mean_loss", score)
    monkeypatch.setattr(precision, "_seconds", lambda engine, texts: times[engine.precision])
    assert measure(make_model("llama")).precision == expected
    assert scored == [name for name in names if loss[name] is not None]  # nobody asks what is not faster


def test_what_was_found_is_said_in_words():
    assert str(FOUND) == (
        "int8: bf16 is 1.50 times as fast as fp32 for one request and 1.00 times for 8; int8 is 2.00 times as fast as "
        "fp32 for one request and 3.00 times for 8, perplexity changes by +0.10%"
    )
