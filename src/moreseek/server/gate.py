"""What every request passes: is the server ending, has it a key, and how did it end."""

from __future__ import annotations

import hmac
import time

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moreseek.server.errors import RefusedError
from moreseek.server.service import Served, Visit

OPEN_PATHS = ("/health", "/")  # a key guards all others but static files


class Gate:
    """Plain ASGI. (By hand: Starlette's base class for middleware holds streams back.)"""

    def __init__(self, app: ASGIApp, served: Served) -> None:
        self.app, self.served = app, served
        self.keys = [key.encode() for key in served.keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or scope["path"].startswith("/static/"):
            await self.app(scope, receive, send)
            return
        visit = Visit(time.perf_counter())
        scope.setdefault("state", {})["visit"] = visit

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status = message["status"]
            await send(message)

        served = self.served
        served.visits += 1
        try:
            error = self._refusal(scope, visit)
            await (self.app if error is None else error.response())(scope, receive, watched)
        except Exception:
            visit.status = 500
            raise
        finally:
            served.visits -= 1
            served.metrics.requests.add(visit.named, str(visit.status))
            if visit.model is not None:
                served.models.leave(visit.model)

    def _refusal(self, scope: Scope, visit: Visit) -> RefusedError | None:
        """Why it may not come in; its visit gets the number of its key."""
        if self.keys:
            given = Request(scope).headers.get("authorization", "").removeprefix("Bearer ").strip().encode()
            matches = [hmac.compare_digest(given, key) for key in self.keys]  # all of them: the time tells nothing
            if True not in matches:
                return RefusedError(401, "The API key is missing or wrong.", "invalid_api_key")
            visit.key = matches.index(True)
        if self.served.draining and scope["path"] != "/metrics":
            return RefusedError(503, "The server is stopping.", "draining", retry_s=5)
        return None
