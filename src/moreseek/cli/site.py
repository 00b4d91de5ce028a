"""How a site of ours listens and is run: the server's and the arena's."""

import socket

from starlette.types import ASGIApp


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address; port 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers at once only where the socket says that it is TCP; 40 ms a call hang on it.
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError:
        found.close()
        raise
    return found


def run(app: ASGIApp, listening: socket.socket) -> None:
    """Serve until told to stop; what runs then gets ten seconds to end. Forwarding headers are left to the app."""
    import uvicorn

    config = uvicorn.Config(
        app, log_level="warning", proxy_headers=False, timeout_graceful_shutdown=10, server_header=False,
        access_log=False,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])
