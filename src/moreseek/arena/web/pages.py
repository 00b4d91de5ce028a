"""The pages: battle, leaderboard, audit; and the leaderboard as JSON and CSV."""

import csv
import io
import json
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from moreseek.arena.standings import BOARDS
from moreseek.arena.web.arena import Arena
from moreseek.arena.web.audit import audit_of
from moreseek.arena.web.safety import COOKIE, is_https, new_session, session_of, token_for
from moreseek.arena.web.words import FOR_SCRIPTS, WORDS, language_for

_YEAR_S = 365 * 24 * 3600
COLUMNS = ("name", "rating", "ci_low", "ci_high", "se", "rank", "rank_low", "rank_high", "battles", "wins", "ties",
           "provisional", "component")  # fmt: skip


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("moreseek.arena.web", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters["day"] = lambda seconds: _written(seconds, "%Y-%m-%d")
    found.filters["moment"] = lambda seconds: _written(seconds, "%Y-%m-%d %H:%M")
    return found


def _written(seconds: float, form: str) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def render(request: Request, name: str, **values: Any) -> HTMLResponse:
    """A page in the language of the request."""
    arena: Arena = request.app.state.arena
    language = language_for(request)
    other = "zh" if language == "en" else "en"
    query = {**dict(request.query_params), "lang": other}
    html = _environment().get_template(name).render(
        w=WORDS[language], lang=language, title=arena.settings.arena.title, page=name.partition(".")[0],
        other_url="?" + urlencode(query), **values,
    )  # fmt: skip
    return HTMLResponse(html)


async def battle(request: Request) -> Response:
    """GET /: the page where people battle."""
    arena: Arena = request.app.state.arena
    session = session_of(request) or new_session()
    language = language_for(request)
    house = arena.settings.arena
    response = render(
        request, "battle.html.jinja", token=token_for(arena.database, session), house=house,
        words=json.dumps({key: WORDS[language][key] for key in FOR_SCRIPTS}, ensure_ascii=False),
    )  # fmt: skip
    secure = is_https(request, house.trusted_proxies)
    response.set_cookie(COOKIE, session, max_age=_YEAR_S, httponly=True, samesite="strict", secure=secure)
    return response


def _chosen(request: Request) -> tuple[str, str]:
    return request.query_params.get("board", "overall"), request.query_params.get("category", "")


def _is_board(arena: Arena, board: str, category: str) -> bool:
    return board in BOARDS and category in ("", *arena.settings.arena.categories)


def _known_boards(arena: Arena) -> str:
    return f"Boards: {', '.join(BOARDS)}. Categories: {', '.join(arena.settings.arena.categories)}."


async def leaderboard(request: Request) -> Response:
    """GET /leaderboard: a board for people."""
    arena: Arena = request.app.state.arena
    board, category = _chosen(request)
    if not _is_board(arena, board, category):
        return RedirectResponse("leaderboard", 303)
    found = await run_in_threadpool(arena.boards.board, board, category)
    known = await run_in_threadpool(arena.boards.contestants)
    rated = {row["name"] for row in found["rows"]}
    waiting = [
        one
        for one in known.values()
        if one.name not in rated and (board not in ("base", "reasoning") or one.kind == board)
    ]
    query = urlencode({"board": board, "category": category})
    return render(
        request, "leaderboard.html.jinja", found=found, boards=BOARDS, board=board, category=category, known=known,
        categories=arena.settings.arena.categories, waiting=waiting, query=query, spread=_spread(found["rows"]),
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


async def leaderboard_json(request: Request) -> Response:
    """GET /leaderboard.json."""
    arena: Arena = request.app.state.arena
    board, category = _chosen(request)
    if not _is_board(arena, board, category):
        return JSONResponse({"error": {"code": "no_such_board", "message": _known_boards(arena)}}, 404)
    return JSONResponse(await run_in_threadpool(arena.boards.board, board, category))


async def leaderboard_csv(request: Request) -> Response:
    """GET /leaderboard.csv."""
    arena: Arena = request.app.state.arena
    board, category = _chosen(request)
    if not _is_board(arena, board, category):
        return Response(_known_boards(arena) + "\n", 404, media_type="text/plain")
    found = await run_in_threadpool(arena.boards.board, board, category)
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    # A spreadsheet takes a cell that begins like this for a formula.
    guarded = [{**row, "name": "'" + row["name"] if row["name"][0] in "=+-@" else row["name"]} for row in found["rows"]]
    writer.writerows(guarded)
    return Response(out.getvalue(), media_type="text/csv; charset=utf-8")


async def audit(request: Request) -> Response:
    """GET /audit: what a sceptic wants to see."""
    arena: Arena = request.app.state.arena
    found = await run_in_threadpool(audit_of, arena)
    return render(request, "audit.html.jinja", found=found)


async def audit_json(request: Request) -> Response:
    """GET /audit.json."""
    arena: Arena = request.app.state.arena
    return JSONResponse(await run_in_threadpool(audit_of, arena))
