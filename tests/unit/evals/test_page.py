import numpy as np
import pytest

from moreseek.evals.ledger import StageRecord
from moreseek.evals.page import on_the_way
from moreseek.evals.plots import running_mean, thin
from moreseek.evals.wording import count, duration, flops, usd, visible


def test_durations_have_two_units():
    seconds = (0.42, 21.3, 59.6, 184, 7384)
    assert [duration(s) for s in seconds] == ["0.4 s", "21 s", "1 min 0 s", "3 min 4 s", "2 h 3 min"]


def test_counts_have_their_unit():
    numbers = (None, 0, 999, 4_096_000, 470_000, 999_999)
    assert [count(n) for n in numbers] == ["–", "–", "999", "4.1 M", "470 K", "1.0 M"]


def test_flops_and_dollars_have_units():
    assert flops(1.62e13) == "16.2 TFLOP"
    assert flops(3.3e24) == "3300 ZFLOP"
    assert (usd(0.0051), usd(5_576_000), usd(0)) == ("$0.0051", "$5,576,000.00", "$0.00")


def test_controls_are_drawn_and_newlines_kept():
    assert visible("a\n\tb\x00\x1b\u202e") == "a\n\tb␀␛\N{REPLACEMENT CHARACTER}"


def test_samples_on_the_way_run_from_the_first_step_to_the_last():
    samples = [{"step": step, "prompt": "?", "completion": "!"} for step in range(40)] + [{"step": 41}]
    steps = [row["step"] for row in on_the_way([StageRecord("zero", "grpo", "running", {}, samples=samples)])]
    assert (len(steps), steps[0], steps[-1]) == (6, 0, 39)
    assert on_the_way([]) == []


def test_a_long_curve_is_thinned_without_moving_its_mean():
    x, y = np.arange(100_000), np.random.default_rng(0).random(100_000)
    xs, ys = thin(x, y)
    assert len(xs) == len(ys) == 600
    assert ys.mean() == pytest.approx(y.mean(), abs=1e-3)


def test_a_running_mean_keeps_a_constant():
    assert np.allclose(running_mean(np.full(100, 0.3)), 0.3)
    assert len(running_mean(np.ones(2))) == 2
