"""How a site of ours listens and is run: the server's and the arena's."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.types import ASGIApp

from moreseek.errors import FaultError

if TYPE_CHECKING:
    import uvicorn


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the address; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once only where the socket says that it is TCP; 40 ms a call hang on it.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # only now is the port surely ours
    except OSError:
        found.close()
        raise
    return found


def run(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until told to stop; what runs then gets ten seconds to end. Forwarding headers are left to the app."""
    _server(app).run(sockets=[listening])


@contextmanager
def background(app: ASGIApp, listening: socket.socket) -> Iterator[None]:
    """Serve in a thread for as long as the block lasts. Raises FaultError where that does not begin."""
    server = _server(app)
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


def _server(app: ASGIApp) -> "uvicorn.Server":
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", proxy_headers=False, timeout_graceful_shutdown=10, server_header=False,
        access_log=False,
    )  # fmt: skip
    return uvicorn.Server(config)
