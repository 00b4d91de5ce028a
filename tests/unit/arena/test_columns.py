"""Whatever holds the columns, the same votes come out; what is wrong is named."""

import math

import numpy as np
import pytest

from moreseek.arena.cells import count_cells
from moreseek.arena.columns import as_votes
from moreseek.arena.ratings import bradley_terry
from moreseek.errors import InputError

ROWS = [("x", "y", "model_a"), ("y", "z", "model_b"), ("z", "x", "tie"), ("x", "z", "both_bad"), ("y", "x", "model_a")]
COLUMNS = {name: [row[i] for row in ROWS] for i, name in enumerate(("a", "b", "outcome"))}
CODES = {"x": 0, "y": 1, "z": 2, "model_a": 0, "model_b": 1, "tie": 2, "both_bad": 3}


class Frame(dict):
    """As much of a DataFrame as counts: columns that can become numpy arrays."""

    class Column(list):
        def to_numpy(self):
            return np.array(list(self), dtype=object)

    def __getitem__(self, name):
        return self.Column(super().__getitem__(name))


def coded(dtype):
    return {name: np.array([CODES[value] for value in column], dtype) for name, column in COLUMNS.items()}


@pytest.mark.parametrize(
    "battles",
    [
        ROWS,
        [dict(zip(("a", "b", "outcome"), row, strict=True)) for row in ROWS],
        {name: np.array(column) for name, column in COLUMNS.items()},
        {name: np.array(column, dtype=object) for name, column in COLUMNS.items()},
        Frame(COLUMNS),
        np.array(ROWS, dtype=[("a", "U9"), ("b", "U9"), ("outcome", "U9")]),
        {**COLUMNS, "outcome": [CODES[value] for value in COLUMNS["outcome"]]},
        {"a": COLUMNS["a"], "b": COLUMNS["b"], "score": [1, 0, 0.5, 0.5, 1.0]},
        coded(np.int8),
        coded(np.uint16),
        coded(np.int64),
        {**COLUMNS, "outcome": ["left", "RIGHT", " draw ", "tie (bothbad)", "A"]},
    ],
    ids=["tuples", "records", "text arrays", "object arrays", "frame", "structured", "codes of outcomes", "scores",
         "int8", "uint16", "int64", "synonyms"],
)  # fmt: skip
def test_the_same_votes_come_from_every_kind_of_columns(battles):
    wanted = bradley_terry(COLUMNS)
    found = bradley_terry(battles)
    np.testing.assert_allclose(found.rating, wanted.rating)
    np.testing.assert_allclose(found.se, wanted.se)


def test_codes_can_be_given_names():
    found = bradley_terry(coded(np.int32), names=["x", "y", "z", "nobody yet"])
    assert found.names == ("x", "y", "z", "nobody yet")
    assert found.battles.tolist() == [4, 3, 3, 0]


@pytest.mark.parametrize("places", [[3, 8, 11], [5, 5000, 40_000_000], [-4, 0, 9]])
def test_codes_that_nobody_has_are_no_contestants(places):
    columns = coded(np.int64)
    spread = {name: np.array(places)[columns[name]] for name in ("a", "b")} | {"outcome": columns["outcome"]}
    found = bradley_terry(spread)
    assert set(found.names) == set(map(str, places))
    np.testing.assert_allclose(np.sort(found.rating), np.sort(bradley_terry(COLUMNS).rating))


@pytest.mark.parametrize(
    ("battles", "said"),
    [
        ({"a": ["x"], "b": ["y"]}, "column 'outcome' is missing"),
        ({"a": ["x"], "B": ["y"], "outcome": ["tie"]}, "column 'b' is missing"),
        ({"a": ["x"], "b": ["y"], "outcome": ["won"]}, "row 0: outcome 'won' is none of model_a"),
        ({"a": ["x", "y"], "b": ["y", "x"], "outcome": ["tie", None]}, "row 1: outcome None"),
        ({"a": ["x"], "b": ["y"], "outcome": [4]}, "row 0: outcome 4 is not a code"),
        ({"a": ["x"], "b": ["y"], "outcome": [-1]}, "row 0: outcome -1 is not a code"),
        ({"a": ["x"], "b": ["y"], "outcome": [0.5]}, "belongs in a column 'score'"),
        ({"a": ["x"], "b": ["y"], "score": [0.4]}, "row 0: score 0.4"),
        ({"a": ["x"], "b": ["y"], "score": [math.nan]}, "row 0: score nan"),
        ({"a": ["x", "x"], "b": ["y", None], "outcome": ["tie", "tie"]}, "row 1: column 'b' needs a contestant's name"),
        ({"a": ["x"], "b": [""], "outcome": ["tie"]}, "needs a contestant's name, found ''"),
        ({"a": np.array([0.0, math.nan]), "b": np.array([1.0, 2.0]), "outcome": [0, 1]}, "names or integer codes"),
        ({"a": ["x", "y"], "b": ["y"], "outcome": ["tie", "tie"]}, "column 'b' has 1 rows, 'a' has 2"),
        ({"a": np.zeros((2, 2), int), "b": [1, 1], "outcome": [0, 1]}, "a plain column is needed"),
        ({"a": ["x"], "b": ["y"], "outcome": ["tie"], "weight": [-1.0]}, "row 0: weight -1.0"),
        ({"a": ["x"], "b": ["y"], "outcome": ["tie"], "weight": [math.inf]}, "row 0: weight inf"),
        ([("x", "y")], "row 0: a record with a, b and outcome"),
        ([{"a": "x", "b": "y", "outcome": "tie"}, {"a": "x"}], "row 1: its keys"),
        ({"a": ["x"], "b": [["y"]], "outcome": ["tie"]}, "row 0: column 'b' needs a contestant's name"),
        (7, "columns a, b and outcome are needed"),
    ],
)  # fmt: skip
def test_wrong_columns_are_named(battles, said):
    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        as_votes(battles)


def test_a_code_beyond_the_names_is_refused():
    with pytest.raises(InputError, match="code 2 is no place in the 2 names"):
        as_votes(coded(np.int32), ["x", "y"])
    with pytest.raises(InputError, match="'z' is not a contestant"):
        as_votes(COLUMNS, ["x", "y"])


def test_a_list_of_contestants_restricts_the_board():
    votes = as_votes(COLUMNS).among(["z", "x"])
    assert votes.names == ("z", "x")
    assert len(votes) == 2
    with pytest.raises(InputError, match=r"no contestant 'zz'\. Did you mean 'z'"):
        votes.among(["zz"])


def test_weights_count_a_vote_so_many_times():
    times = np.array([1, 2, 3, 1, 2])
    weighted = bradley_terry({**COLUMNS, "weight": times})
    repeated = bradley_terry([row for row, count in zip(ROWS, times, strict=True) for _ in range(count)])
    np.testing.assert_allclose(weighted.rating, repeated.rating)
    assert (weighted.se > repeated.se).any()  # a vote that counts twice is not two votes


@pytest.mark.parametrize("dense", [True, False])
def test_both_ways_of_counting_cells_agree(dense, monkeypatch):
    import moreseek.arena.cells as module

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 40, (2, 5000))
    battles = {"a": a, "b": b, "outcome": rng.integers(0, 4, 5000), "weight": rng.random(5000)}
    monkeypatch.setattr(module, "_DENSE", 1 << 24 if dense else 0)
    monkeypatch.setattr(module, "_CHUNK", 999)
    cells = count_cells(as_votes(battles))
    table = np.zeros((40, 40, 4))
    np.add.at(table, (a, b, battles["outcome"]), battles["weight"])
    assert cells.self_battles == pytest.approx(np.einsum("iik->", table))
    np.testing.assert_allclose(cells.counts, table[cells.left, cells.right])
    assert cells.votes + cells.self_battles == pytest.approx(table.sum())
