"""Refusals as OpenAI's clients know them."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse


class RefusedError(Exception):
    """A request that is not answered: HTTP's status, and OpenAI's type and code."""

    def __init__(
        self, status: int, message: str, code: str | None = None, param: str | None = None, retry_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.param, self.retry_s = status, code, param, retry_s

    def body(self) -> dict[str, Any]:
        """The JSON of the answer."""
        kind = "invalid_request_error" if self.status < 500 and self.status != 429 else "server_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        """The answer."""
        headers = {"retry-after": str(self.retry_s)} if self.retry_s else {}
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers)
