"""A small OpenAI-compatible endpoint over real HTTP. What a model does is in its name: ok, think, fail, hang, …"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

XSS = (
    "# Hi\n\n<script>fetch('/steal')</script><img src=x onerror=alert(1)> ![p](http://evil.example/p.png) "
    "[go](javascript:alert(1)) **bold**\n\n```html\n<script>alert(2)</script>\n```\n"
)
STORY = " ".join(f"word{i}" for i in range(60))
ANSWERS = {"ok": STORY, "second": STORY, "xss": XSS, "leaky": "I am Leaky-9000, made by nobody. " + STORY}


@dataclass(frozen=True)
class Pace:
    """How a model writes: when it begins, how fast, in pieces of which size, after what thinking; and when it fails."""

    first_s: float = 0.0
    every_s: float = 0.0
    characters: int = 25
    thinking: str = ""
    fails: Callable[[str], bool] = lambda question: False
    fails_after: int = 0
    error: str = ""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append({"body": body, "key": self.headers.get("authorization")})
        kind = body["model"]
        if kind == "echo":  # as some providers do, with the key that was wrong
            self._whole(401, f"Incorrect API key provided: {self.headers.get('authorization')}".encode())
        elif kind == "fail":
            self._whole(500, b'{"error": {"message": "secret-name-fail exploded"}}')
        elif kind == "html":
            self._whole(200, b"<html>not an event stream</html>")
        elif kind == "redirect":
            self.send_response(302)
            self.send_header("location", "http://127.0.0.1:1/")
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            self._stream(kind, body)

    def _whole(self, status, text):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _stream(self, kind, body):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        try:
            for event in self._events(kind, body):
                self.wfile.write(event)
                self.wfile.flush()
        except OSError:
            self.server.left.append(kind)

    def _events(self, kind, body):
        say = lambda **delta: _event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})  # noqa: E731
        yield say(role="assistant", content="")
        yield b": ping\n\n"
        if kind == "hang":
            self.server.release.wait(20)
        if kind == "garbage":
            yield b"data: {nonsense\n\n"
        if kind == "flood":
            for _ in range(200):
                yield say(content="x" * 50_000)
        if kind == "endless line":
            yield b"data: " + b"x" * 10_000_000
        if kind == "thinks for ever":
            for _ in range(200):
                yield say(reasoning_content="x" * 50_000)
        if kind == "error":
            yield _event({"error": {"message": "secret-name-error"}})
        if kind == "broken":
            yield say(content="half an ans")
            return
        if kind == "think":
            yield say(reasoning_content="Let me think about it. ")
            time.sleep(0.3)
            yield say(reasoning_content="Done.")
        if kind == "tags":
            yield say(content="<thi")
            yield say(content="nk>hidden thoughts</think>\n\n")
        text = "" if kind == "empty" else ANSWERS.get(kind, STORY)
        if kind in self.server.say:
            text = self.server.say[kind](body["messages"][-1]["content"])
        pace = self.server.pace.get(kind, Pace())
        time.sleep(pace.first_s)
        for start in range(0, len(pace.thinking), 50):
            yield say(reasoning_content=pace.thinking[start : start + 50])
            time.sleep(pace.every_s)
        size = pace.characters
        parts = [text[start : start + size] for start in range(0, len(text), size)] if isinstance(text, str) else text
        for number, part in enumerate(parts):
            yield say(reasoning_content=part["think"]) if isinstance(part, dict) else say(content=part)
            if number * size > pace.fails_after and pace.fails(body["messages"][-1]["content"]):
                yield _event({"error": {"message": pace.error}})
            time.sleep(0.03 if kind == "slow" else pace.every_s)
        yield _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        yield _event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 60}})
        yield b"data: [DONE]\n\n"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # judges ask many questions at once


def _event(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


@contextmanager
def endpoint():
    """The endpoint: its ``url``, who ``asked``, who ``left`` early; what further models ``say``, at what ``pace``.

    What they say is a text, or parts of one, {"think": text} among them, which may come slowly.
    """
    server = _Server(("127.0.0.1", 0), _Handler)
    server.asked, server.left, server.release = [], [], threading.Event()
    server.say, server.pace = {}, {}
    server.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()
