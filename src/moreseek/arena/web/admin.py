"""The admin page, behind a key: contestants, quotas, flags, bans; each action in the ledger, and most taken back."""

import hmac
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from moreseek.arena.live.roster import entry_of, new_contestant
from moreseek.arena.store import actions, admin_view
from moreseek.arena.store.votes import RefusedError
from moreseek.arena.web.arena import Arena
from moreseek.arena.web.asked import cleaned, raw_body
from moreseek.arena.web.pages import render
from moreseek.arena.web.safety import address_of, is_foreign, is_https
from moreseek.arena.web.words import language_for
from moreseek.errors import InputError

COOKIE = "arena_admin"
_HOURS_S = 8 * 3600.0
_TRIES, _TRIES_S = 5, 60.0  # wrong keys from one address, and how long they are remembered
_ALL_TRIES = 30  # from everywhere
_NUMBERS = ("quota", "max_tokens")
_FRACTIONS = ("temperature", "price_in", "price_out")
_CONTESTANT = ("name", "class", "family", "url", "model", "api_key_env", "system", *_NUMBERS, *_FRACTIONS)


def _arena(request: Request) -> Arena:
    arena: Arena = request.app.state.arena
    if arena.admin_key is None:
        raise RefusedError("no_admin", 404, "This arena has no admin page.")
    return arena


def _signed(arena: Arena, until: str) -> str:
    return arena.database.keyed("admin", f"{until}\0{arena.admin_key}")


def _pass_of(request: Request, arena: Arena) -> str | None:
    """The cookie, if this server signed it with today's key and it has not run out."""
    found = request.cookies.get(COOKIE, "")
    until, _, mark = found.partition(".")
    if not until.isdigit() or not hmac.compare_digest(mark.encode(), _signed(arena, until).encode()):
        return None
    return found if float(until) > time.time() else None


async def page(request: Request) -> Response:
    """GET /admin: the page, or the field for its key."""
    arena = _arena(request)
    found = _pass_of(request, arena)
    if found is None:
        return _own(render(request, "admin_login.html.jinja", wrong="wrong" in request.query_params))
    return await _shown(request, arena, found, "done" if request.query_params.get("said") == "done" else "")


async def _shown(request: Request, arena: Arena, found: str, said: str, status: int = 200) -> Response:
    pseudonym = request.query_params.get("voter", "")
    view = await run_in_threadpool(_view, arena, pseudonym)
    token = arena.database.keyed("admin form", found)
    response = render(
        request, "admin.html.jinja", view=view, token=token, said=said, wrong=status != 200, asked=pseudonym,
        final=actions.FINAL,
    )  # fmt: skip
    response.status_code = status
    return _own(response)


def _own(response: Response) -> Response:
    """Without a referrer a browser would send the forms' origin as null, as it does for other sites' frames."""
    response.headers["referrer-policy"] = "same-origin"
    return response


def _view(arena: Arena, pseudonym: str) -> Any:
    with arena.database.read() as connection:
        return admin_view.view(connection, pseudonym, time.time())


async def log_in(request: Request) -> Response:
    """POST /admin/login: the key for a cookie of eight hours."""
    arena = _arena(request)
    if is_foreign(request):
        raise RefusedError("forged", 403, "This request does not come from the arena's own page.")
    now, proxies = time.time(), arena.settings.arena.trusted_proxies
    address = arena.database.keyed("address", address_of(request, proxies))
    arena.wrong_keys = [one for one in arena.wrong_keys if one[0] > now - _TRIES_S]
    if len(arena.wrong_keys) >= _ALL_TRIES or sum(who == address for _, who in arena.wrong_keys) >= _TRIES:
        raise RefusedError("too_fast", 429, "Too many wrong keys. Please wait a minute.")
    given = dict(await _form(request)).get("key", "")
    if not hmac.compare_digest(given.encode(), (arena.admin_key or "").encode()):
        arena.wrong_keys.append((now, address))
        return RedirectResponse(f"../admin?wrong=1&lang={language_for(request)}", 303)
    until = str(int(now + _HOURS_S))
    response = RedirectResponse(f"../admin?lang={language_for(request)}", 303)
    response.set_cookie(
        COOKIE, f"{until}.{_signed(arena, until)}", max_age=int(_HOURS_S), path="/", httponly=True,
        samesite="strict", secure=is_https(request, proxies),
    )  # fmt: skip
    return response


async def log_out(request: Request) -> Response:
    """POST /admin/logout."""
    _arena(request)
    response = RedirectResponse("../admin", 303)
    response.delete_cookie(COOKIE, path="/")
    return response


async def act(request: Request) -> Response:
    """POST /admin/act: do what a form says, in one transaction with its line in the ledger."""
    arena = _arena(request)
    found = _pass_of(request, arena)
    if found is None:
        return RedirectResponse("../admin", 303)
    form = dict(await _form(request))
    token = arena.database.keyed("admin form", found)
    if is_foreign(request) or not hmac.compare_digest(form.pop("token", "").encode(), token.encode()):
        raise RefusedError("forged", 403, "This request does not come from the arena's own page. Load it again.")
    do = _ACTIONS.get(form.pop("do", ""))
    if do is None:
        raise RefusedError("malformed", 400, "The request is malformed.")
    try:
        await run_in_threadpool(_do, arena, do, form)
    except (InputError, RefusedError) as error:
        return await _shown(request, arena, found, str(error), 400)
    arena.audited = None  # the audit page shows it at once
    return RedirectResponse(f"../admin?said=done&lang={language_for(request)}", 303)


def _do(arena: Arena, do: Callable[..., None], form: dict[str, str]) -> None:
    with arena.database.write() as connection:
        do(connection, arena, form, cleaned(form.get("reason", ""))[:300], time.time())


def _enter(connection: Connection, arena: Arena, form: dict[str, str], reason: str, now: float) -> None:
    given: dict[str, object] = {key: form[key].strip() for key in _CONTESTANT if form.get(key, "").strip()}
    for keys, kind in ((_NUMBERS, int), (_FRACTIONS, float)):
        for key in keys:
            if key in given:
                given[key] = _number(key, str(given[key]), kind)
    if form.get("opens_thinking"):
        given["opens_thinking"] = True
    one = new_contestant(given, arena.settings.arena)
    config = one.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    actions.enter(connection, entry_of(one), config, reason, now)


def _number(key: str, text: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise InputError(f"{key}: a number is needed, found '{text}'.") from None


def _quota(connection: Connection, _: Arena, form: dict[str, str], reason: str, now: float) -> None:
    text = form.get("quota", "").strip()
    quota = _number("quota", text, int) if text else None
    if quota is not None and not 1 <= quota <= 1_000_000_000:
        raise InputError("quota: at least 1, or nothing for none.")
    actions.set_quota(connection, form.get("name", ""), quota, reason, now)


def _retire(connection: Connection, _: Arena, form: dict[str, str], reason: str, now: float) -> None:
    name = form.get("name", "")
    if form.get("again", "").strip() != name:
        raise InputError("this is final: write the contestant's name once more.")
    actions.retire(connection, name, reason, now)


def _ban(connection: Connection, _: Arena, form: dict[str, str], reason: str, now: float) -> None:
    actions.ban(connection, form.get("voter", ""), reason, bool(form.get("addresses")), now)


def _undo(connection: Connection, _: Arena, form: dict[str, str], reason: str, now: float) -> None:
    actions.undo(connection, _number("action", form.get("action", ""), int), reason, now)


_ACTIONS: dict[str, Callable[..., None]] = {
    "enter": _enter, "quota": _quota, "retire": _retire, "ban": _ban, "undo": _undo,
    "pause": lambda connection, _, form, *rest: actions.pause(connection, form.get("name", ""), *rest),
    "flag": lambda connection, _, form, *rest: actions.flag(connection, form.get("voter", ""), *rest),
    "restore": lambda connection, _, form, *rest: actions.restore(connection, form.get("voter", ""), *rest),
}  # fmt: skip


async def _form(request: Request) -> list[tuple[str, str]]:
    raw = await raw_body(request)
    found = parse_qsl(raw.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=50)
    return [(key, value.replace("\x00", "")) for key, value in found]  # which PostgreSQL refuses


ROUTES = [
    Route("/admin", page),
    Route("/admin/login", log_in, methods=["POST"]),
    Route("/admin/logout", log_out, methods=["POST"]),
    Route("/admin/act", act, methods=["POST"]),
]
