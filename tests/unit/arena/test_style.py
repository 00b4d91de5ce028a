"""Style is held equal, and only style."""

import numpy as np
import pytest

from moreseek.arena.ratings import POINTS, bradley_terry
from moreseek.arena.style import style_controlled, style_of
from moreseek.arena.votes import Votes
from moreseek.errors import InputError


def test_style_is_counted_outside_code_blocks():
    text = (
        "# Title\n\nSome **bold** and __more__ text, 2 ** 3.\n\n- one\n* two\n 3. three\n\n"
        "```python\n# no header\n- no item\n**no bold**\n```\n## End"
    )
    assert {key: value for key, value in style_of(text).items() if key != "tokens"} == {
        "headers": 2, "bold": 2, "lists": 3
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("one two", 2),
        ("it's, well", 5),
        ("你好世界", 4),
        ("GPT模型 ok", 4),
        ("カタカナ", 4),
        ("naïve Ünicode", 2),
    ],
)
def test_tokens_are_words_marks_and_characters_of_scripts_without_spaces(text, tokens):
    assert style_of(text)["tokens"] == tokens


def test_hostile_text_is_counted_in_no_time():
    for text in ("*" * 50_000, "`" * 50_000, "# " * 25_000, "- " * 25_000, "**a" * 20_000, "_" * 50_000):
        style_of(text)


def arena(n: int, effect: float, seed: int = 0) -> Votes:
    """Four equal contestants; the fourth writes three times as much; voters like length."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 4, n)
    b = (a + rng.integers(1, 4, n)) % 4
    tokens = rng.gamma(4, 50, (n, 2)) * (1 + 2 * (np.column_stack([a, b]) == 3))
    gap = (tokens[:, 0] - tokens[:, 1]) / (tokens.sum(axis=1) + 1)
    win = rng.random(n) < 1 / (1 + np.exp(-effect * gap / gap.std()))
    outcome = np.where(rng.random(n) < 0.2, 2, np.where(win, 0, 1))
    noise = rng.integers(0, 5, (n, 2)).astype(float)
    return Votes(tuple("wxyz"), a, b, outcome, features={"tokens": tokens, "headers": noise})


def test_a_contestant_that_only_writes_more_falls_back():
    votes = arena(20_000, 0.6)
    plain, controlled = bradley_terry(votes), style_controlled(votes)
    assert plain.rating[3] > plain.rating[:3].max() + 80
    assert controlled.ci_low[3] < 1000 < controlled.ci_high[3]
    tokens, headers = controlled.style["tokens"], controlled.style["headers"]
    assert tokens["ci_low"] < POINTS * 0.6 * 0.8 < tokens["ci_high"]  # a fifth are ties
    assert headers["ci_low"] < 0 < headers["ci_high"]


def test_features_that_say_nothing_leave_the_ratings_as_they_are():
    votes = arena(3000, 0.6)
    flat = votes.with_features({"tokens": np.full((3000, 2), 7.0)})
    found = style_controlled(flat, ["tokens"])
    np.testing.assert_allclose(found.rating, bradley_terry(votes).rating, atol=1e-4)
    assert found.style["tokens"]["value"] == 0


def test_style_intervals_hold_the_truth():
    rng, held = np.random.default_rng(1), []
    for _ in range(150):
        found = style_controlled(arena(1500, 0.0, int(rng.integers(1 << 30))))
        held.append(((found.ci_low <= 1000) & (found.ci_high >= 1000)).mean())
    assert 0.92 <= np.mean(held) <= 0.98


def test_what_style_control_lacks_is_named():
    votes = arena(50, 0.0)
    with pytest.raises(InputError, match=r"style control by cost .* the votes have: tokens, headers"):
        style_controlled(votes, ["cost"])
    with pytest.raises(InputError, match="token counts, or the answers"):
        style_controlled(Votes(votes.names, votes.a, votes.b, votes.outcome))
    with pytest.raises(InputError, match="vote 0: tokens of the two answers"):
        style_controlled(votes.with_features({"tokens": np.full((50, 2), np.nan)}))
