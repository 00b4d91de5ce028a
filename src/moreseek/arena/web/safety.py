"""What stands between browsers and the arena: sessions, forged requests, addresses, headers."""

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Sequence
from functools import cache
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moreseek.arena.store.database import Database
from moreseek.arena.web.figures.drawing import STYLE

COOKIE = "arena_session"
TOKEN_HEADER = "x-arena-token"
_SESSION = re.compile(r"[A-Za-z0-9_-]{43}")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def embeddable() -> dict[str, str]:
    """Headers of a page that other sites may show in a frame. It is read only: nothing in it can be clicked amiss."""
    policy = _HEADERS["content-security-policy"].replace("frame-ancestors 'none'", "frame-ancestors *")
    return {"content-security-policy": policy, "cross-origin-resource-policy": "cross-origin"}


@cache
def picture_headers() -> dict[str, str]:
    """Headers of an SVG that stands alone: its own colours, known by their hash, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"
    return {"content-security-policy": policy, "cross-origin-resource-policy": "cross-origin"}


class SafeHeaders:
    """Adds the headers of safety to every response, and answers no address with a NUL, which PostgreSQL refuses.

    (Middleware by hand: Starlette's base class holds streams back.)
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                held = {name.lower() for name, _ in message["headers"]}
                more = {"cache-control": "no-store", **_HEADERS}
                added = [(k.encode(), v.encode()) for k, v in more.items() if k.encode() not in held]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        if scope["type"] == "http" and ("\x00" in scope["path"] or b"%00" in scope["query_string"]):
            said = {"error": {"code": "malformed", "message": "This address is malformed."}}
            await JSONResponse(said, 400)(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)


def session_of(request: Request) -> str | None:
    """The session's secret from its cookie, if it has the form of ours."""
    found = request.cookies.get(COOKIE, "")
    return found if _SESSION.fullmatch(found) else None


def new_session() -> str:
    """A secret that nobody guesses."""
    return secrets.token_urlsafe(32)


def token_for(database: Database, session: str) -> str:
    """What a page of ours must send back with every change, so that pages of others cannot vote."""
    return database.keyed("token", session)


def is_forged(request: Request, database: Database, session: str) -> bool:
    """Whether a change was asked for by somebody else's page: a wrong token, or another origin."""
    given = request.headers.get(TOKEN_HEADER, "").encode()
    if not hmac.compare_digest(given, token_for(database, session).encode()):
        return True
    return is_foreign(request)


def is_foreign(request: Request) -> bool:
    """Whether the browser says that another site's page asks."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        return True
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


def address_of(request: Request, proxies: Sequence[str]) -> str:
    """Who is asking. X-Forwarded-For counts only from proxies that the house named, read from the right.

    Addresses of IPv6 stand for their /64, since one household has all of it.
    """
    peer = request.client.host if request.client else ""
    trusted = [ipaddress.ip_network(one, strict=False) for one in proxies]
    forwarded = ",".join(request.headers.getlist("x-forwarded-for")).split(",") if trusted else []
    chain = [part.strip() for part in forwarded if part.strip()]
    while chain and _inside(peer, trusted):
        peer = chain.pop()
    try:
        found = ipaddress.ip_address(peer)
    except ValueError:
        return "unknown"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


def is_https(request: Request, proxies: Sequence[str]) -> bool:
    """Whether the browser speaks HTTPS: to this server, or to a proxy that the house named."""
    if request.url.scheme == "https":
        return True
    trusted = [ipaddress.ip_network(one, strict=False) for one in proxies]
    peer = request.client.host if request.client else ""
    return _inside(peer, trusted) and request.headers.get("x-forwarded-proto") == "https"


def _inside(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found.version == network.version and found in network for network in networks)
