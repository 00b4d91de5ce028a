"""A whole arena over real HTTP: its server in a thread, and browsers that keep a session."""

import json
import re
import socket
import threading
import time
from contextlib import contextmanager

import httpx
import uvicorn

from moreseek.arena.live.settings import ArenaSettings
from moreseek.arena.web.app import build_app
from moreseek.arena.web.arena import open_arena

# Limits of time are generous: on a busy machine half a second of silence is a contestant that waits for the processor,
# its battle is void, and the vote is refused. Tests of silence set their own.
QUICK = {"characters_per_s": 1e6, "silence_s": 20.0, "answer_timeout_s": 30.0, "battles_a_minute": 1000,
         "battles_a_minute_per_address": 1000}  # fmt: skip


def settings(url, database, models, **house):
    """Settings with one contestant a model: a name, or (name, class)."""
    table = []
    for model in models:
        name, kind = (model, "base") if isinstance(model, str) else model
        table.append({"name": f"{name.title()}-9000", "class": kind, "family": "fam", "url": url, "model": name,
                      "internal": True})  # fmt: skip
    house = {**QUICK, "database": str(database), "categories": ["other", "maths"], **house}
    return ArenaSettings.model_validate({"arena": house, "contestant": table})


class Site:
    """A running arena."""

    def __init__(self, url, arena):
        self.url, self.arena = url, arena

    def browser(self, **options):
        return Browser(self.url, **options)


class Browser:
    """A person: cookies, the page's token, and everything that was received."""

    def __init__(self, url, **options):
        self.http = httpx.Client(base_url=url, timeout=20, trust_env=False, verify=False, **options)  # plain HTTP
        page = _patiently(lambda: self.http.get("/"))
        self.page = page.text
        self.token = re.search(r'data-token="([0-9a-f]+)"', page.text).group(1)

    def post(self, path, body, **headers):
        return self.http.post(path, json=body, headers={"x-arena-token": self.token, **headers})

    def battle(self, prompt="What is 2 + 2?", **body):
        """All events of a battle, and its raw bytes."""
        response = self.post("/api/battles", {"prompt": prompt, **body})
        assert response.status_code == 200, response.text
        return Seen(response)

    def watch(self, prompt):
        """A battle as it happens: a context with the streamed response, which is closed on leaving."""
        body, headers = {"prompt": prompt}, {"x-arena-token": self.token}
        return self.http.stream("POST", "/api/battles", json=body, headers=headers)

    def vote(self, battle, outcome="model_a", **body):
        return self.post(f"/api/battles/{battle}/vote", {"outcome": outcome, **body})

    def battle_and_vote(self, prompt="What is 2 + 2?", outcome="model_a", **body):
        return self.vote(self.battle(prompt, **body).id, outcome)


def _patiently(call):
    """A server that says where it is may still need a moment until it listens."""
    for _ in range(500):
        try:
            return call()
        except httpx.ConnectError:
            time.sleep(0.02)
    return call()


class Seen:
    def __init__(self, response):
        self.response, self.raw = response, response.text
        self.events = [json.loads(line[6:]) for line in self.raw.split("\n\n") if line.startswith("data: ")]
        self.id = self.events[0]["battle"]
        self.error = next((event["error"] for event in self.events if "error" in event), None)
        self.html = next((event["end"] for event in self.events if "end" in event), None)
        self.texts = ["".join(event.get(side, "") for event in self.events) for side in "ab"]


@contextmanager
def running(settings):
    """The arena behind a port of its own."""
    arena = open_arena(settings)
    sock = socket.socket(proto=socket.IPPROTO_TCP)  # so that asyncio sets TCP_NODELAY
    sock.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_app(arena), log_level="error", proxy_headers=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    until = time.monotonic() + 10
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    try:
        yield Site(f"http://127.0.0.1:{sock.getsockname()[1]}", arena)
    finally:
        server.should_exit = True
        thread.join(10)
        sock.close()
