"""Ranks in plain words: who shares a place, what the votes leave open, who has too few of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
_NAMED = 4


def in_plain_words(rows: Sequence[Row], min_votes: int, language: str) -> list[str]:
    """A sentence about the top, then one for each contestant."""
    ranked = [row for row in rows if row["rank"]]
    sharing = Counter(row["rank"] for row in ranked)
    say = _CHINESE if language == "zh" else _ENGLISH
    top = [say["top"]([row["name"] for row in ranked if row["rank"] == 1])] if ranked else []
    return top + [
        say["row"](row, sharing[row["rank"]] - 1) if row["rank"] else say["provisional"](row, min_votes) for row in rows
    ]


def _english_top(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} is first: its interval lies above all others."
    return f"{_listed(names, 'and', 'others')} share the first place: the votes do not tell them apart."


def _english_row(row: Row, others: int) -> str:
    shared = f" with {others} other{'s' if others > 1 else ''}" if others else ""
    place = f"{row['name']} {'shares' if others else 'has'} rank {row['rank']}{shared}"
    low, high = row["rank_low"], row["rank_high"]
    if low == high:
        return f"{place}, and the votes leave no other rank open."
    return f"{place}; the votes leave open any rank from {low} to {high}."


def _english_provisional(row: Row, least: int) -> str:
    return f"{row['name']} is provisional: {row['battles']} of the {least} votes that a rank needs."


def _chinese_top(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]} 排名第一：它的区间高于其他所有模型。"
    return f"{_listed(names, '和', '个其他模型', '、')} 并列第一：现有投票无法区分它们。"


def _chinese_row(row: Row, others: int) -> str:
    place = f"{row['name']} {f'与另外 {others} 个模型并列' if others else ''}第 {row['rank']} 名"
    low, high = row["rank_low"], row["rank_high"]
    return f"{place}，其他名次均可排除。" if low == high else f"{place}；投票尚不能排除第 {low} 至第 {high} 名。"


def _chinese_provisional(row: Row, least: int) -> str:
    return f"{row['name']} 为暂定：获得名次需要 {least} 票，现有 {row['battles']} 票。"


def _listed(names: Sequence[str], word: str, rest: str, comma: str = ", ") -> str:
    """A few names, and how many more there are."""
    if len(names) <= _NAMED:
        return f"{comma.join(names[:-1])} {word} {names[-1]}"
    return f"{comma.join(names[: _NAMED - 1])} {word} {len(names) - _NAMED + 1} {rest}"


_ENGLISH: Any = {"top": _english_top, "row": _english_row, "provisional": _english_provisional}
_CHINESE: Any = {"top": _chinese_top, "row": _chinese_row, "provisional": _chinese_provisional}
