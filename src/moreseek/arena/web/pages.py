"""Rendering pages, and two of them: battle and audit."""

import json
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from moreseek.arena.web.arena import Arena
from moreseek.arena.web.audit import audit_of
from moreseek.arena.web.safety import COOKIE, is_https, new_session, session_of, token_for
from moreseek.arena.web.words import FOR_SCRIPTS, TAGS_ZH, WORDS, language_for

_YEAR_S = 365 * 24 * 3600


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
    suggestions = {"": list(house.suggestions), **{key: list(some) for key, some in house.category_suggestions.items()}}
    response = render(
        request, "battle.html.jinja", token=token_for(arena.database, session), house=house,
        words=json.dumps({key: WORDS[language][key] for key in FOR_SCRIPTS}, ensure_ascii=False),
        suggestions=suggestions, tag_words=TAGS_ZH if language == "zh" else {},
    )  # fmt: skip
    secure = is_https(request, house.trusted_proxies)
    response.set_cookie(COOKIE, session, max_age=_YEAR_S, httponly=True, samesite="strict", secure=secure)
    return response


async def audit(request: Request) -> Response:
    """GET /audit: what a sceptic wants to see."""
    arena: Arena = request.app.state.arena
    found = await run_in_threadpool(audit_of, arena)
    return render(request, "audit.html.jinja", found=found)


async def audit_json(request: Request) -> Response:
    """GET /audit.json."""
    arena: Arena = request.app.state.arena
    return JSONResponse(await run_in_threadpool(audit_of, arena))
