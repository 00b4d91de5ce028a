"""The boards: pages for people, JSON, CSV and pictures for whoever wants them, frames for other sites."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from moreseek.arena.standings import BOARDS
from moreseek.arena.store import vote_list
from moreseek.arena.store.tallies import Tally
from moreseek.arena.store.vote_list import Which
from moreseek.arena.web.arena import Arena
from moreseek.arena.web.figures.figure import Figure, Subject, as_csv, flat
from moreseek.arena.web.figures.frontier import frontier
from moreseek.arena.web.figures.intervals import intervals
from moreseek.arena.web.figures.matrix import matrix
from moreseek.arena.web.figures.trend import trend
from moreseek.arena.web.pages import render
from moreseek.arena.web.plain_words import in_plain_words
from moreseek.arena.web.safety import embeddable, picture_headers
from moreseek.arena.web.words import WORDS, language_for

COLUMNS = ("name", "rating", "ci_low", "ci_high", "se", "rank", "rank_low", "rank_high", "battles", "wins", "ties",
           "provisional", "component", "family", "selected_of", "selected_low")  # fmt: skip
PLOTS = ("intervals", "matrix", "frontier", "trend")
STYLES = ("plain", "equal")
_PAGE = 50


@dataclass(frozen=True)
class Chosen:
    """The board that a request is about."""

    board: str
    category: str
    style: str

    @property
    def query(self) -> str:
        """The same as the query of an address."""
        return urlencode({"board": self.board, "category": self.category, "style": self.style})


def _chosen(request: Request, arena: Arena) -> Chosen | None:
    """None for a board that there is not."""
    asked = request.query_params
    found = Chosen(asked.get("board", "overall"), asked.get("category", ""), asked.get("style", "plain"))
    known = found.board in BOARDS and found.category in ("", *arena.settings.arena.categories)
    return found if known and found.style in STYLES else None


def _unknown(arena: Arena) -> Response:
    said = (
        f"Boards: {', '.join(BOARDS)}. Categories: {', '.join(arena.settings.arena.categories)}. "
        f"Styles: {', '.join(STYLES)}."
    )
    return JSONResponse({"error": {"code": "no_such_board", "message": said}}, 404)


def _found(arena: Arena, chosen: Chosen) -> dict[str, Any]:
    board = arena.boards.board if chosen.style == "plain" else arena.boards.style_board
    return board(chosen.board, chosen.category)


def _figure(
    arena: Arena, name: str, chosen: Chosen, language: str, found: dict[str, Any], took: Mapping[str, Tally]
) -> Figure:
    w = WORDS[language]
    title = w[chosen.board] + (f", {chosen.category}" if chosen.category else "")
    if chosen.style != "plain":
        title += f", {w['style_equal']}"
    subject = Subject(chosen.board, chosen.category, f"{title}, {found['votes']:,} {w['votes']}", w)
    rows = found["rows"]
    if name == "intervals":
        return intervals(rows, subject)
    if name == "frontier":
        return frontier(rows, took, subject)
    if name == "trend":
        points = arena.boards.trend(chosen.board, chosen.category, time.time())
        return trend(rows, points, arena.settings.arena.min_votes, subject)
    return matrix(rows, *arena.boards.table(chosen.board, chosen.category), subject)


async def leaderboard(request: Request) -> Response:
    """GET /leaderboard: a board for people, with its pictures."""
    arena: Arena = request.app.state.arena
    chosen = _chosen(request, arena)
    if chosen is None:
        return RedirectResponse("leaderboard", 303)
    return await run_in_threadpool(_leaderboard, request, arena, chosen)


def _leaderboard(request: Request, arena: Arena, chosen: Chosen) -> Response:
    language, found, known = language_for(request), _found(arena, chosen), arena.boards.contestants()
    took = arena.boards.tallies()
    rated = {row["name"] for row in found["rows"]}
    waiting = [
        one
        for one in known.values()
        if one.name not in rated and (chosen.board not in ("base", "reasoning") or one.kind == chosen.board)
    ]
    plain = arena.boards.board(chosen.board, chosen.category)["rows"] if chosen.style != "plain" else []
    figures = {name: _figure(arena, name, chosen, language, found, took) for name in PLOTS} if found["rows"] else {}
    return render(
        request, "leaderboard.html.jinja", found=found, boards=BOARDS, chosen=chosen, known=known, waiting=waiting,
        categories=arena.settings.arena.categories, spread=_spread(found["rows"]), styles=STYLES, figures=figures,
        plain={row["name"]: row for row in plain}, tallies=took, base=str(request.base_url),
        words=in_plain_words(found["rows"], arena.settings.arena.min_votes, language),
    )  # fmt: skip


def _spread(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Where each interval begins and how wide it is, in hundredths of the board's width, for the picture."""
    if not rows:
        return {}
    low, high = min(row["ci_low"] for row in rows), max(row["ci_high"] for row in rows)
    width = max(high - low, 1e-9)
    part = lambda value: round(100 * (value - low) / width, 2)  # noqa: E731
    return {
        row["name"]: {
            "start": part(row["ci_low"]), "width": max(0.5, round(part(row["ci_high"]) - part(row["ci_low"]), 2)),
            "at": part(row["rating"]),
        }
        for row in rows
    }  # fmt: skip


def _answering(make: Callable[[Request, Arena, Chosen], Response]) -> Callable[[Request], Any]:
    async def answer(request: Request) -> Response:
        arena: Arena = request.app.state.arena
        chosen = _chosen(request, arena)
        return _unknown(arena) if chosen is None else await run_in_threadpool(make, request, arena, chosen)

    return answer


def _json(_: Request, arena: Arena, chosen: Chosen) -> Response:
    return JSONResponse(_found(arena, chosen))


def _csv(_: Request, arena: Arena, chosen: Chosen) -> Response:
    rows = _found(arena, chosen)["rows"]
    return Response(as_csv(COLUMNS, [flat(row) for row in rows]), media_type="text/csv; charset=utf-8")


def _plot(request: Request, arena: Arena, chosen: Chosen) -> Response:
    """GET /plots/{name}.{form}: a picture as SVG, or its numbers as CSV or JSON."""
    name, form = request.path_params["name"], request.path_params["form"]
    if name not in PLOTS or form not in ("svg", "csv", "json"):
        said = f"Pictures: {', '.join(PLOTS)}, each as svg, csv or json."
        return JSONResponse({"error": {"code": "no_such_picture", "message": said}}, 404)
    figure = _figure(arena, name, chosen, language_for(request), _found(arena, chosen), arena.boards.tallies())
    if form == "json":
        rows = [{key: row.get(key) for key in figure.columns} for row in figure.rows]
        return JSONResponse({"plot": name, "board": chosen.board, "category": chosen.category, "style": chosen.style,
                             "rows": rows})  # fmt: skip
    if form == "csv":
        return Response(figure.csv(), media_type="text/csv; charset=utf-8")
    return Response(figure.drawing.alone(), media_type="image/svg+xml", headers=picture_headers())


def _embed(request: Request, arena: Arena, chosen: Chosen) -> Response:
    """GET /embed/{name}: the board, or one of its pictures, for a frame on another site. It sets no cookie."""
    name, found = request.path_params["name"], _found(arena, chosen)
    if name not in (*PLOTS, "board"):
        said = f"Frames: board, {', '.join(PLOTS)}."
        return JSONResponse({"error": {"code": "no_such_frame", "message": said}}, 404)
    figure = None
    if name != "board":
        figure = _figure(arena, name, chosen, language_for(request), found, arena.boards.tallies())
    theme = request.query_params.get("theme", "")
    response = render(
        request, "embed.html.jinja", shown=name, found=found, chosen=chosen, figure=figure,
        theme=theme if theme in ("light", "dark") else "", base=str(request.base_url),
    )  # fmt: skip
    response.headers.update(embeddable())
    return response


def _votes(request: Request, arena: Arena, chosen: Chosen) -> Response:
    """GET /votes: the rated votes behind a figure, page by page."""
    which, before = _which(request, chosen)
    found = _page(arena, which, before)
    older = found[-1]["id"] if len(found) == _PAGE else None
    names = list(arena.boards.contestants())
    query = {"board": which.board, "category": which.category, "a": which.a, "b": which.b}
    return render(
        request, "votes.html.jinja", found=found, which=which, boards=BOARDS, names=names, older=older, before=before,
        categories=arena.settings.arena.categories, query=urlencode(query),
    )  # fmt: skip


def _votes_json(request: Request, arena: Arena, chosen: Chosen) -> Response:
    return JSONResponse({"votes": _page(arena, *_which(request, chosen))})


def _which(request: Request, chosen: Chosen) -> tuple[Which, int | None]:
    asked = request.query_params
    before = asked.get("before", "")
    number = int(before) if before.isascii() and before.isdigit() and len(before) < 16 else None
    return Which(chosen.board, chosen.category, asked.get("a", ""), asked.get("b", "")), number


def _page(arena: Arena, which: Which, before: int | None) -> list[dict[str, Any]]:
    with arena.database.read() as connection:
        return vote_list.page(connection, which, _PAGE, before)


ROUTES = [
    Route("/leaderboard", leaderboard),
    Route("/leaderboard.json", _answering(_json)),
    Route("/leaderboard.csv", _answering(_csv)),
    Route("/plots/{name}.{form}", _answering(_plot)),
    Route("/embed/{name}", _answering(_embed)),
    Route("/votes", _answering(_votes)),
    Route("/votes.json", _answering(_votes_json)),
]
