"""How a site of ours listens and is run: the server's and the arena's."""

import errno
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

import uvicorn
from starlette.types import ASGIApp

from moreseek.errors import FaultError

# So long at most a thread that comes back from a step of the engine, or from the database with a lock in its hands,
# waits for a busy event loop; Python's own is 5 ms.
_SWITCH_S = 5e-4


class Drains(Protocol):
    """A service that is asked to stop, and says when it has."""

    def drain(self) -> None: ...

    @property
    def done(self) -> bool: ...


def listen(host: str, port: int) -> socket.socket:
    """A socket at the address, whose clients wait until it is served; port 0 takes a free one. Raises FaultError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once only where the socket says that it is TCP; 40 ms a call hang on it.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(2048)  # only now is the port surely ours
    except OSError as error:
        found.close()
        which = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise FaultError(f"{host}:{port} cannot be listened on ({error.strerror}). Choose another {which}.") from error
    return found


def run(app: ASGIApp, listening: socket.socket, service: Drains | None = None) -> None:
    """Serve until told to stop; what runs then gets ten seconds to end. Forwarding headers are left to the app.

    A ``service`` goes on answering after the first signal until it is ``done``; a second signal ends it sooner.
    """
    sys.setswitchinterval(_SWITCH_S)
    server = uvicorn.Server(_config(app)) if service is None else _Draining(_config(app), service)
    server.run(sockets=[listening])


@contextmanager
def background(app: ASGIApp, listening: socket.socket) -> Iterator[None]:
    """Serve in a thread for as long as the block lasts. Raises FaultError where that does not begin."""
    server = uvicorn.Server(_config(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="moreseek-site", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise FaultError("the local server did not start; the lines above say why.")
            time.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        thread.join()


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app, log_level="warning", proxy_headers=False, timeout_graceful_shutdown=10, server_header=False,
        access_log=False,
    )  # fmt: skip


class _Draining(uvicorn.Server):
    """Leaves the port open while a service drains, so that clients are told to go elsewhere and not just cut off."""

    def __init__(self, config: uvicorn.Config, service: Drains) -> None:
        super().__init__(config)
        self.service, self._told = service, False

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._told:
            super().handle_exit(sig, frame)
        self._told = True
        self.service.drain()

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self.service.done
