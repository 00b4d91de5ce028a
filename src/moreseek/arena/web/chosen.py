"""Which board a request is about."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from moreseek.arena.standings import BOARDS
from moreseek.arena.store.vote_list import Which
from moreseek.arena.vote_lines import STYLE
from moreseek.arena.web.arena import Arena

PLOTS = ("intervals", "matrix", "frontier", "trend")
STYLES: dict[str, tuple[str, ...]] = {
    "plain": (), "equal": STYLE, "latency": (*STYLE, "latency"), "cost": (*STYLE, "latency", "cost"),
}  # fmt: skip
"""What of the answers a board holds equal."""


@dataclass(frozen=True)
class Chosen:
    """The board that a request is about; without a judge it is people's."""

    board: str
    category: str
    style: str
    judge: str

    @property
    def query(self) -> str:
        """The same as the query of an address."""
        given = {"board": self.board, "category": self.category, "style": self.style, "judge": self.judge}
        return urlencode({key: value for key, value in given.items() if value or key != "judge"})

    @property
    def which(self) -> Which:
        """The votes, or judgements, that it is made of."""
        return Which(self.board, self.category, judge=self.judge)

    def titled(self, w: Mapping[str, str]) -> str:
        """The board's name as people read it."""
        parts = [w[self.board], self.category, "" if self.style == "plain" else w[f"style_{self.style}"]]
        return w["comma"].join(filter(None, [*parts, w["judged_by"].format(self.judge) if self.judge else ""]))

    @property
    def plots(self) -> Sequence[str]:
        """The pictures that there are of it: what a judge says belongs to no day."""
        return [name for name in PLOTS if name != "trend" or not self.judge]


def chosen_by(request: Request, arena: Arena) -> Chosen | None:
    """None for a board that there is not."""
    asked = request.query_params
    found = Chosen(
        asked.get("board", "overall"), asked.get("category", ""), asked.get("style", "plain"), asked.get("judge", "")
    )
    known = found.board in BOARDS and found.category in ("", *arena.settings.arena.categories)
    known = known and found.style in STYLES
    return found if known and (not found.judge or found.judge in arena.judged.names()) else None


def _unknown(arena: Arena) -> Response:
    said = (
        f"Boards: {', '.join(BOARDS)}. Categories: {', '.join(arena.settings.arena.categories)}. "
        f"Styles: {', '.join(STYLES)}. Judges: {', '.join(arena.judged.names()) or 'none'}."
    )
    return JSONResponse({"error": {"code": "no_such_board", "message": said}}, 404)


def answering(make: Callable[[Request, Arena, Chosen], Response]) -> Callable[[Request], Any]:
    """A route that is about one board, made in a thread; 404 for a board that there is not."""

    async def answer(request: Request) -> Response:
        arena: Arena = request.app.state.arena
        chosen = await run_in_threadpool(chosen_by, request, arena)
        if chosen is None:
            return await run_in_threadpool(_unknown, arena)
        return await run_in_threadpool(make, request, arena, chosen)

    return answer
