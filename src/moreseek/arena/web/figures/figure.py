"""A picture and the numbers behind it."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote_plus, urlencode

from moreseek.arena.store.vote_list import Which
from moreseek.arena.web.figures.drawing import Drawing


@dataclass(frozen=True)
class Subject:
    """Which board is drawn, and in whose words."""

    which: Which
    title: str  # the board's name as people read it
    words: Mapping[str, str]

    def votes(self, a: str = "", b: str = "") -> str:
        """Where the votes behind a figure are."""
        more = "".join(f"&{key}={quote_plus(value)}" for key, value in (("a", a), ("b", b)) if value)
        return self._board + more

    @cached_property
    def _board(self) -> str:  # a matrix has hundreds of links
        named = {**vars(self.which), "lang": self.words["lang_code"]}
        return "votes?" + urlencode({key: value for key, value in named.items() if value})


@dataclass(frozen=True)
class Figure:
    """What is shown and what is downloaded."""

    drawing: Drawing
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""  # what this one leaves out

    def csv(self) -> str:
        """The numbers as CSV."""
        return as_csv(self.columns, self.rows)


def as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; a text that a spreadsheet would take for a formula is quoted."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({key: _guarded(value) for key, value in row.items()} for row in rows)
    return out.getvalue()


def flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A board's row with the interval of the best of several variants in columns of its own."""
    selected = row["selected"] or {}
    return {**row, "selected_of": selected.get("of"), "selected_low": selected.get("ci_low")}


def _guarded(value: Any) -> Any:
    return "'" + value if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
