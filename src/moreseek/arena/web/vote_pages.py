"""The votes, or judgements, behind a figure, page by page."""

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from moreseek.arena.standings import BOARDS
from moreseek.arena.store import vote_list
from moreseek.arena.store.vote_list import Which
from moreseek.arena.web.arena import Arena
from moreseek.arena.web.asked import cleaned
from moreseek.arena.web.chosen import Chosen, answering
from moreseek.arena.web.pages import render

_PAGE = 50


def _votes(request: Request, arena: Arena, chosen: Chosen) -> Response:
    """GET /votes: the rated votes behind a figure, without texts."""
    which, before = _which(request, chosen)
    found = _page(arena, which, before)
    older = found[-1]["battle"] if len(found) == _PAGE else None
    return render(
        request, "votes.html.jinja", found=found, which=which, boards=BOARDS, judges=arena.judged.names(),
        names=list(arena.boards.contestants()), older=older, before=before, query=urlencode(vars(which)),
        categories=arena.settings.arena.categories,
    )  # fmt: skip


def _votes_json(request: Request, arena: Arena, chosen: Chosen) -> Response:
    return JSONResponse({"votes": _page(arena, *_which(request, chosen))})


def _which(request: Request, chosen: Chosen) -> tuple[Which, str]:
    asked = {key: cleaned(request.query_params.get(key, "")) for key in ("a", "b", "before")}
    return replace(chosen.which, a=asked["a"], b=asked["b"]), asked["before"]


def _page(arena: Arena, which: Which, before: str) -> list[dict[str, Any]]:
    with arena.database.read() as connection:
        return vote_list.page(connection, which, _PAGE, before)


ROUTES = [Route("/votes", answering(_votes)), Route("/votes.json", answering(_votes_json))]
