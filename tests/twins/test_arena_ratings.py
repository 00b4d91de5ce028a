"""Our ratings equal those of evalica and arena-rank, and the figures known of the real votes."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import moreseek
from moreseek.arena import significance
from moreseek.arena.ratings import POINTS, bradley_terry
from moreseek.arena.resampling import cluster_bootstrap
from moreseek.arena.style import style_controlled
from moreseek.arena.ties import fit_ties
from moreseek.arena.vote_formats import read_votes
from moreseek.arena.votes import OUTCOMES, Votes
from moreseek.errors import InputError

GOLDEN = json.loads((Path(__file__).parent / "golden" / "arena.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def votes():
    table = np.array(GOLDEN["votes"])
    features = {"tokens": table[:, 3:5].astype(float), "headers": table[:, 5:7].astype(float)}
    return Votes(tuple(GOLDEN["names"]), table[:, 0], table[:, 1], table[:, 2], features=features)


@pytest.fixture(scope="module")
def crowd(real_votes):
    return read_votes(real_votes / "crowd-comparisons.csv")


def centred(values):
    values = np.asarray(values)
    return values - values.mean()


def test_ratings_equal_evalicas_to_a_millionth_of_a_point(votes):
    theirs = POINTS * centred(np.log(GOLDEN["evalica"]["bradley_terry"]))
    assert np.abs(bradley_terry(votes).rating - 1000 - theirs).max() < 1e-6


def test_ratings_and_intervals_equal_arena_ranks(votes):
    ours, theirs = bradley_terry(votes), GOLDEN["arena_rank"]["half"]
    assert np.abs(ours.rating - 1000 - centred(theirs["ratings"])).max() < 1e-3
    half = (np.array(theirs["rating_upper"]) - np.array(theirs["rating_lower"])) / 2
    np.testing.assert_allclose(1.959963985 * ours.se, half, rtol=1e-3)  # its Hessian has a ridge


def test_davidson_equals_newmans_algorithm(votes):
    found = fit_ties(votes, "davidson")
    assert POINTS * np.abs(found.theta - centred(np.log(GOLDEN["evalica"]["newman"]))).max() < 1e-4
    assert math.exp(found.tau) / 2 == pytest.approx(GOLDEN["evalica"]["newman_v"], abs=1e-6)


def test_style_control_equals_arena_ranks(votes):
    ours, theirs = style_controlled(votes, ridge=1.0), GOLDEN["arena_rank"]["style"]
    assert np.abs(ours.rating - 1000 - centred(theirs["ratings"])).max() < 1e-3
    half = (np.array(theirs["rating_upper"]) - np.array(theirs["rating_lower"])) / 2
    np.testing.assert_allclose(1.959963985 * ours.se, half, rtol=2e-3)  # it leaves the ridge out of its Hessian
    for name, value in GOLDEN["arena_rank"]["coefficients"].items():
        assert ours.style[name]["value"] / POINTS == pytest.approx(value, abs=1e-6)


def test_ratings_equal_evalica_itself_where_it_is_installed(votes):
    evalica = pytest.importorskip("evalica", reason="evalica is not installed")
    kinds = (evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw, evalica.Winner.Draw)
    names, winners = GOLDEN["names"], [kinds[code] for code in votes.outcome]
    found = evalica.bradley_terry(
        [names[i] for i in votes.a], [names[i] for i in votes.b], winners, tolerance=1e-15, limit=100_000
    )
    theirs = POINTS * centred(np.log([found.scores[name] for name in names]))
    assert np.abs(bradley_terry(votes).rating - 1000 - theirs).max() < 1e-6


@pytest.mark.slow
def test_ratings_equal_arena_rank_itself_where_it_is_installed(votes):
    pytest.importorskip("arena_rank", reason="arena-rank is not installed")
    pandas = pytest.importorskip("pandas")
    from arena_rank.models.bradley_terry import BradleyTerry
    from arena_rank.utils.data_utils import PairDataset

    names = GOLDEN["names"]
    table = pandas.DataFrame(
        {
            "model_a": [names[i] for i in votes.a],
            "model_b": [names[i] for i in votes.b],
            "winner": [OUTCOMES[code] for code in votes.outcome],
        }
    )
    data = PairDataset.from_pandas(table)
    found = BradleyTerry(len(data.competitors)).compute_ratings_and_cis(data)
    theirs = centred([float(found["ratings"][data.competitors.index(name)]) for name in names])
    assert np.abs(bradley_terry(votes).rating - 1000 - theirs).max() < 1e-3


# ------------------------------------------------------------------------------------------------------ real votes


@pytest.mark.parametrize(("algorithm", "closest"), [("bradley_terry", 1e-6), ("newman", 1e-3)])
def test_real_votes_get_evalicas_golden_ratings(crowd, real_votes, algorithm, closest):
    with (real_votes / "evalica-llmfao-golden.csv").open(encoding="utf-8") as file:
        golden = {row["item"]: float(row["score"]) for row in csv.DictReader(file) if row["algorithm"] == algorithm}
    theta = bradley_terry(crowd).theta if algorithm == "bradley_terry" else fit_ties(crowd, "davidson").theta
    assert POINTS * np.abs(theta - centred(np.log([golden[name] for name in crowd.names]))).max() < closest


@pytest.mark.parametrize(
    ("cluster", "median_se", "tied_first"), [((), 20.1, 12), (("prompt",), 32.2, 20), (("voter",), 20.6, 18)]
)
def test_real_votes_have_the_known_standard_errors(crowd, cluster, median_se, tied_first):
    found = bradley_terry(crowd, cluster=cluster)
    assert np.median(found.se) == pytest.approx(median_se, abs=0.1)
    # The reference counts ties with 1.96 standard errors; ours are Student's where clusters are few.
    reach = 1.959963985 * found.se
    assert (significance.tied_ranks(found.rating - reach, found.rating + reach) == 1).sum() == tied_first


def test_the_inverse_hessian_is_a_third_too_wide_on_real_votes(crowd):
    assert np.median(bradley_terry(crowd, interval="model").se) == pytest.approx(27.2, abs=0.1)


def test_two_ways_are_no_surer_than_the_wider_of_one(crowd):
    two = np.median(bradley_terry(crowd).se)
    one = [np.median(bradley_terry(crowd, cluster=[name]).se) for name in ("voter", "prompt")]
    assert max(one) < two < math.hypot(*one)


def test_the_left_side_is_worth_15_8_points_on_real_votes(crowd):
    side = bradley_terry(crowd, cluster=None).side_effect()
    assert side["value"] == pytest.approx(15.8, abs=0.05)
    assert (side["ci_high"] - side["ci_low"]) / 2 == pytest.approx(5.8, abs=0.05)


@pytest.mark.parametrize("cluster", [(), ("voter",), ("prompt",)])
def test_the_sandwich_equals_the_bootstrap_on_real_votes(crowd, cluster):
    found, drawn = bradley_terry(crowd, cluster=cluster), bradley_terry(crowd, cluster=cluster, interval="bootstrap")
    assert np.median(drawn.se / found.se) == pytest.approx(1, abs=0.03)
    with pytest.raises(InputError, match="clusters of one sort"):
        bradley_terry(crowd, interval="bootstrap")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["voter", "prompt"])
def test_the_clustered_sandwich_equals_the_cluster_bootstrap_on_real_votes(crowd, name):
    found = bradley_terry(crowd, cluster=[name])
    drawn = POINTS * cluster_bootstrap(crowd, found.fitted, crowd.labels[name], 1000).std(axis=0)
    assert np.median(drawn / found.se) == pytest.approx(1, abs=0.03)


def test_the_public_name_rates_without_torch():
    code = (
        "import sys, moreseek\n"
        "moreseek.arena.ratings.bradley_terry([('a', 'b', 'tie')])\n"
        "assert not {'torch', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == 0
    assert moreseek.arena.ratings.bradley_terry is bradley_terry
