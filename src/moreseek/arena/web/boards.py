"""The boards: pages for people, JSON, CSV and pictures for whoever wants them, frames for other sites."""

import time
from collections.abc import Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from moreseek.arena.cautions import Caution
from moreseek.arena.latex import latex_of
from moreseek.arena.standings import BOARDS
from moreseek.arena.store.tallies import Tally
from moreseek.arena.web.arena import Arena
from moreseek.arena.web.chosen import STYLES, Chosen, answering, chosen_by
from moreseek.arena.web.figures.figure import Figure, Subject, as_csv, flat
from moreseek.arena.web.figures.frontier import frontier
from moreseek.arena.web.figures.intervals import intervals
from moreseek.arena.web.figures.matrix import matrix
from moreseek.arena.web.figures.png import png_of
from moreseek.arena.web.figures.trend import trend
from moreseek.arena.web.pages import render
from moreseek.arena.web.plain_words import in_plain_words
from moreseek.arena.web.safety import embeddable, picture_headers
from moreseek.arena.web.words import WORDS, language_for

COLUMNS = ("name", "rating", "ci_low", "ci_high", "se", "rank", "rank_low", "rank_high", "battles", "wins", "ties",
           "provisional", "component", "family", "selected_of", "selected_low")  # fmt: skip
FORMS = ("svg", "png", "csv", "json")


def _found(arena: Arena, chosen: Chosen) -> dict[str, Any]:
    if chosen.style == "plain":
        return _plain(arena, chosen)
    if chosen.judge:
        return arena.judged.style_board(chosen.which, STYLES[chosen.style])
    return arena.boards.style_board(chosen.board, chosen.category, STYLES[chosen.style])


def _plain(arena: Arena, chosen: Chosen) -> dict[str, Any]:
    if chosen.judge:
        return arena.judged.board(chosen.which)
    return arena.boards.board(chosen.board, chosen.category)


def _took(arena: Arena, chosen: Chosen) -> Mapping[str, Tally]:
    """What the contestants' answers took."""
    return arena.judged.tallies(chosen.judge) if chosen.judge else arena.boards.tallies()


def _figure(
    arena: Arena, name: str, chosen: Chosen, language: str, found: dict[str, Any], took: Mapping[str, Tally]
) -> Figure:
    w = WORDS[language]
    counted = w["judgements" if chosen.judge else "votes"]
    subject = Subject(chosen.which, f"{chosen.titled(w)}, {found['votes']:,} {counted}", w)
    rows = found["rows"]
    if name == "intervals":
        return intervals(rows, subject)
    if name == "frontier":
        return frontier(rows, took, subject)
    if name == "trend":
        points = arena.boards.trend(chosen.board, chosen.category, time.time())
        return trend(rows, points, arena.settings.arena.min_votes, subject)
    if chosen.judge:
        return matrix(rows, *arena.judged.table(chosen.which), subject)
    return matrix(rows, *arena.boards.table(chosen.board, chosen.category), subject)


async def leaderboard(request: Request) -> Response:
    """GET /leaderboard: a board for people; its pictures are requests of their own, so that nobody waits for them."""
    arena: Arena = request.app.state.arena
    chosen = await run_in_threadpool(chosen_by, request, arena)
    if chosen is None:
        return RedirectResponse("leaderboard", 303)
    return await run_in_threadpool(_leaderboard, request, arena, chosen)


def _leaderboard(request: Request, arena: Arena, chosen: Chosen) -> Response:
    language, found, known = language_for(request), _found(arena, chosen), arena.boards.contestants()
    took = _took(arena, chosen)
    rated = {row["name"] for row in found["rows"]}
    waiting = [
        one
        for one in known.values()
        if one.name not in rated and (chosen.board not in ("base", "reasoning") or one.kind == chosen.board)
    ]
    plain = _plain(arena, chosen)["rows"] if chosen.style != "plain" else []
    return render(
        request, "leaderboard.html.jinja", found=found, boards=BOARDS, chosen=chosen, known=known, waiting=waiting,
        heading=chosen.titled(WORDS[language]), judges=arena.judged.names(), styles=STYLES,
        categories=arena.settings.arena.categories, spread=_spread(found["rows"]), tallies=took, plots=chosen.plots,
        cautions=[_caution(WORDS[language], one) for one in found["warnings"]],
        plain={row["name"]: row for row in plain}, base=str(request.base_url),
        words=in_plain_words(found["rows"], arena.settings.arena.min_votes, language),
    )  # fmt: skip


def _caution(w: Mapping[str, str], caution: Caution) -> str:
    by = caution.parts.get("by", "")
    return w[f"caution_{caution.code}"].format(**{**caution.parts, "by": w.get(f"cluster_{by}", by)})


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


def _download(request: Request, arena: Arena, chosen: Chosen) -> Response:
    """GET /leaderboard.{form}: the board as JSON, CSV, a table for LaTeX, or a picture."""
    found, form = _found(arena, chosen), request.path_params["form"]
    if form == "json":
        return JSONResponse(found)
    if form == "csv":
        return Response(as_csv(COLUMNS, [flat(row) for row in found["rows"]]), media_type="text/csv; charset=utf-8")
    if form == "tex":
        return Response(latex_of(found), media_type="application/x-tex; charset=utf-8")
    if form == "png":
        return _png(_figure(arena, "intervals", chosen, language_for(request), found, {}))
    said = "A board comes as json, csv, tex or png."
    return JSONResponse({"error": {"code": "no_such_form", "message": said}}, 404)


def _png(figure: Figure) -> Response:
    return Response(png_of(figure.drawing), media_type="image/png", headers=picture_headers())


def _plot(request: Request, arena: Arena, chosen: Chosen) -> Response:
    """GET /plots/{name}.{form}: a picture as SVG or PNG, or its numbers as CSV or JSON."""
    name, form = request.path_params["name"], request.path_params["form"]
    if name not in chosen.plots or form not in FORMS:
        said = f"Pictures of this board: {', '.join(chosen.plots)}, each as {', '.join(FORMS)}."
        return JSONResponse({"error": {"code": "no_such_picture", "message": said}}, 404)
    figure = _figure(arena, name, chosen, language_for(request), _found(arena, chosen), _took(arena, chosen))
    if form == "json":
        rows = [{key: row.get(key) for key in figure.columns} for row in figure.rows]
        return JSONResponse({"plot": name, **vars(chosen), "rows": rows})
    if form == "csv":
        return Response(figure.csv(), media_type="text/csv; charset=utf-8")
    if form == "png":
        return _png(figure)
    return Response(figure.drawing.alone(), media_type="image/svg+xml", headers=picture_headers())


def _embed(request: Request, arena: Arena, chosen: Chosen) -> Response:
    """GET /embed/{name}: the board, or one of its pictures, for a frame on another site. It sets no cookie."""
    name, found = request.path_params["name"], _found(arena, chosen)
    if name not in (*chosen.plots, "board"):
        said = f"Frames of this board: board, {', '.join(chosen.plots)}."
        return JSONResponse({"error": {"code": "no_such_frame", "message": said}}, 404)
    figure = None
    if name != "board":
        figure = _figure(arena, name, chosen, language_for(request), found, _took(arena, chosen))
    theme = request.query_params.get("theme", "")
    response = render(
        request, "embed.html.jinja", shown=name, found=found, chosen=chosen, figure=figure,
        heading=chosen.titled(WORDS[language_for(request)]),
        theme=theme if theme in ("light", "dark") else "", base=str(request.base_url),
    )  # fmt: skip
    response.headers.update(embeddable())
    return response


ROUTES = [
    Route("/leaderboard", leaderboard),
    Route("/leaderboard.{form}", answering(_download)),
    Route("/plots/{name}.{form}", answering(_plot)),
    Route("/embed/{name}", answering(_embed)),
]
