import numpy as np
import pytest

from moreseek.arena.significance import better_than, critical, holm, holm_adjusted, rank_ranges, tied_ranks, two_sided_p


@pytest.mark.parametrize(
    ("df", "wanted"),
    # scipy 1.17: stats.t.ppf(0.975, df)
    [(1, 12.706204736432095), (2, 4.302652729911275), (5, 2.570581835636314), (12, 2.1788128296634177),
     (123, 1.9794386850933035), (200, 1.9718962236339088), (500, 1.9647198374673676), (np.inf, 1.959963984540054)],
)  # fmt: skip
def test_quantiles_are_students(df, wanted):
    assert critical(0.95, df) == pytest.approx(wanted, abs=2e-6)


@pytest.mark.parametrize(
    ("t", "df", "wanted"),
    # scipy 1.17: 2 * stats.t.sf(t, df)
    [(0.0, 3, 1.0), (1.0, 1, 0.5), (2.0, 7, 0.0856193286), (3.5, 12, 0.0043818694), (2.0, 1000, 0.0457703465),
     (4.0, np.inf, 6.3342483666e-5)],
)  # fmt: skip
def test_p_values_are_students(t, df, wanted):
    assert two_sided_p(np.array([t, -t]), df) == pytest.approx(np.full(2, wanted), rel=1e-6)


def test_holm_equals_a_worked_example():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert holm(p).tolist() == [True, False, False, True]
    assert holm_adjusted(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([])).tolist() == []


def test_ranks_are_shared_by_intervals_that_touch():
    low, high = np.array([10.0, 8.0, 1.0, 0.0]), np.array([14.0, 12.0, 7.9, 1.0])
    assert tied_ranks(low, high).tolist() == [1, 1, 3, 3]


def test_a_difference_uses_the_covariance_and_not_two_intervals():
    values = np.array([0.3, 0.0])
    apart = better_than(values, np.array([[0.02, 0.0], [0.0, 0.02]]))
    paired = better_than(values, np.array([[0.02, 0.015], [0.015, 0.02]]))
    assert not apart.any()
    assert paired.tolist() == [[False, True], [False, False]]
    assert [part.tolist() for part in rank_ranges(paired)] == [[1, 2], [1, 2]]


def test_no_spread_is_no_significance():
    assert not better_than(np.array([1.0, 0.0]), np.zeros((2, 2))).any()
