"""What the routes of a server share: its state, one request's visit, and the steps that most of them begin with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from starlette.requests import Request

from moreseek.engine.llm import LLM
from moreseek.server.documents.library import Documents
from moreseek.server.errors import RefusedError
from moreseek.server.metrics import Meter, Metrics
from moreseek.server.models import Models, ServedModel
from moreseek.server.streams import GONE

MOST_BODY = 8 << 20


@dataclass
class Served:
    """What a server has and allows. ``drain_s``: how long running requests may take to end once it is told to stop."""

    models: Models
    keys: tuple[str, ...] = ()
    drain_s: float = 60.0
    documents: Mapping[str, Documents] = field(default_factory=dict)  # by the name that a model is asked for
    metrics: Metrics = field(default_factory=Metrics, init=False)
    visits: int = field(default=0, init=False)  # requests that are being answered
    leaves_at: float | None = field(default=None, init=False)  # by time.monotonic, once it is told to stop

    def drain(self) -> None:
        """Take no more requests."""
        self.leaves_at = time.monotonic() + self.drain_s

    @property
    def draining(self) -> bool:
        return self.leaves_at is not None

    @property
    def done(self) -> bool:
        """Whether it can stop: the last request has ended, or took too long; or its first model cannot be loaded."""
        if self.leaves_at is not None:
            return not self.visits or time.monotonic() > self.leaves_at
        return not self.models.begun and self.models.first.state == "failed"


@dataclass
class Visit:
    """One request while it is here."""

    begun: float  # by time.perf_counter
    key: int = 0  # which of the server's keys it came with
    named: str = ""  # the model that it wants
    model: ServedModel | None = None  # the same once it is loaded; it stays so until the visit ends
    status: int = GONE


def visit_of(request: Request) -> Visit:
    """The visit behind a request."""
    return request.state.visit


async def body_of(request: Request) -> bytes:
    """What the client sent. Raises RefusedError (413)."""
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > MOST_BODY:
            raise RefusedError(413, f"The request has more than {MOST_BODY >> 20} MiB.", "request_too_large")
    return bytes(raw)


async def model_of(request: Request, name: str | None) -> tuple[str, LLM]:
    """The model by its name, the first one where none is named; it stays loaded until the request has been answered.

    Raises RefusedError: 404; 503 while it loads, or when it cannot.
    """
    models, visit = request.app.state.served.models, visit_of(request)
    model = models.find(name)
    visit.named = model.name
    await models.take(model)
    visit.model = model
    return name or model.name, model.llm


def meter_of(request: Request) -> Callable[[], Meter]:
    """What makes the meter of each completion that the request asks for."""
    visit = visit_of(request)
    assert visit.model is not None
    return partial(Meter, request.app.state.served.metrics, visit.model.name, visit.begun)
