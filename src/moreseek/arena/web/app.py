"""The arena as an ASGI application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from moreseek.arena.store.votes import RefusedError
from moreseek.arena.web import admin, battles, boards, chats, pages, vote_pages
from moreseek.arena.web.arena import Arena
from moreseek.arena.web.safety import SafeHeaders

_STATIC = Path(__file__).parent / "static"


def build_app(arena: Arena) -> Starlette:
    """Every page and call of an arena. The application closes the arena when it ends."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await arena.aclose()

    app = Starlette(
        routes=[
            Route("/", pages.battle),
            Route("/audit", pages.audit),
            Route("/audit.json", pages.audit_json),
            Route("/api/battles", battles.begin, methods=["POST"]),
            Route("/api/battles/{id}/turns", battles.ask_on, methods=["POST"]),
            Route("/api/battles/{id}/vote", battles.vote, methods=["POST"]),
            Route("/api/battles/{id}/undo", battles.undo, methods=["POST"]),
            Route("/api/contestants", chats.contestants),
            Route("/api/chats", chats.talk, methods=["POST"]),
            *boards.ROUTES,
            *vote_pages.ROUTES,
            *admin.ROUTES,
            Route("/health", _health),
            Mount("/static", StaticFiles(directory=_STATIC)),
        ],
        middleware=[Middleware(SafeHeaders)],
        exception_handlers={
            RefusedError: _refused,
            OperationalError: _busy,
            NoConnectionError: _busy,
            HTTPException: _http,
            Exception: _defect,
        },
        lifespan=lifespan,
    )
    app.state.arena = arena
    return app


async def _health(_: Request) -> Response:
    return PlainTextResponse("ok\n")


def _said(code: str, message: str, status: int, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return _said(error.code, str(error), error.status, {"retry-after": "30"} if error.status in (429, 503) else None)


async def _busy(_: Request, error: Exception) -> Response:
    del error  # its text holds SQL
    return _said("busy", "The database is busy. Nothing was changed; please try again.", 503, {"retry-after": "2"})


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _said("http", error.detail, error.status_code, dict(error.headers or {}))


async def _defect(_: Request, error: Exception) -> Response:
    del error  # the server's log has it
    return _said("defect", "Something went wrong here.", 500)
