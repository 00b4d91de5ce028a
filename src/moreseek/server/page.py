"""The chat page and its files: what it may load and run is said in one place."""

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
# Scripts and styles come from our files alone; strings become HTML only through DOMPurify; no image from elsewhere
# is loaded, so that an answer cannot tell anybody that it was read.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types dompurify"
)
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


class _Files(StaticFiles):
    """Asked for again at every visit: modules of two versions must not meet in one browser."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response


async def _page(_: Request) -> Response:
    text = (STATIC / "chat.html").read_text(encoding="utf-8")
    return Response(text, headers=HEADERS, media_type="text/html")


def page_routes() -> list[BaseRoute]:
    """The page at ``/`` and its files under ``/static``."""
    return [Route("/", _page), Mount("/static", _Files(directory=STATIC))]
