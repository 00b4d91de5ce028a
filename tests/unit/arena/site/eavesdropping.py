"""Everything that a browser receives of a battle before its vote, as numbers, and a classifier that guesses sides."""

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from moreseek.arena.store.tables import battles

_FOLDS = 5


@dataclass(frozen=True)
class Heard:
    """A battle's raw answer: what came when."""

    asked: float
    parts: tuple[tuple[float, bytes], ...]  # as the socket gave them
    page: bytes

    @property
    def raw(self) -> bytes:
        return b"".join(part for _, part in self.parts)

    @property
    def headers(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def events(self):
        """Each event's moment (when its last byte was there) and JSON."""
        out, rest, body = [], b"", False
        for at, part in self.parts:
            rest += part
            if not body and b"\r\n\r\n" in rest:
                rest, body = rest.partition(b"\r\n\r\n")[2], True
            while body and (found := re.search(rb"data: (.*?)\n\n", rest, re.DOTALL)):
                out.append((at - self.asked, json.loads(re.sub(rb"\r\n[0-9a-f]+\r\n", b"", found.group(1)))))
                rest = rest[found.end() :]
        return out

    @property
    def battle(self) -> str:
        return self.events[0][1]["battle"]


def listen(browser, prompt: str) -> Heard:
    """One battle through a bare socket: no library between us and the bytes."""
    address = urlsplit(str(browser.http.base_url))
    body = json.dumps({"prompt": prompt}).encode()
    cookies = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
    head = (
        f"POST /api/battles HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-arena-token: {browser.token}\r\ncookie: {cookies}\r\n"
        "connection: close\r\n\r\n"
    )
    parts = []
    with socket.create_connection((address.hostname, address.port), timeout=20) as there:
        there.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = time.perf_counter()
        there.sendall(head.encode() + body)
        while part := there.recv(1 << 16):
            parts.append((time.perf_counter(), part))
    return Heard(asked, tuple(parts), browser.page.encode())


def overhear(site, count: int, at_once: int = 4):
    """So many battles: what was heard, and for each whether the first contestant stood on the left."""

    def one(number):
        browser = site.browser()
        return listen(browser, f"question {number}")

    with ThreadPoolExecutor(at_once) as pool:
        heard = list(pool.map(one, range(count)))
    with site.arena.database.read() as connection:
        left = {row.id: row.left_id for row in connection.execute(battles.select())}
    return heard, np.array([left[one.battle] == 1 for one in heard])


def features(heard: Heard) -> list[float]:
    """Bytes, headers, order, times and sizes; of the two sides also who leads whom, and who was there first."""
    events, raw = heard.events, heard.raw
    shown = [(at, event) for at, event in events if "a" in event or "b" in event]
    texts = {side: [len(event.get(side, "")) for _, event in shown] for side in "ab"}
    sums = {side: np.cumsum(texts[side]) if shown else np.zeros(1) for side in "ab"}
    first = {side: next((at for at, event in shown if event.get(side)), 0.0) for side in "ab"}
    last = {side: next((at for at, event in reversed(shown) if event.get(side)), 0.0) for side in "ab"}
    lead = sums["a"] - sums["b"]
    times = np.array([at for at, _ in heard.parts]) - heard.asked
    gaps = np.diff(times) if len(times) > 1 else np.zeros(1)
    sizes = np.array([len(part) for _, part in heard.parts], float)
    end = next((event["end"] for _, event in events if "end" in event), ["", ""])
    said = next((event["error"] for _, event in events if "error" in event), "")
    name = heard.battle.encode()
    orders = [list(event).index("a") < list(event).index("b") for _, event in shown if {"a", "b"} <= set(event)]
    return [
        len(raw), len(heard.headers), heard.headers.count(b"\r\n"), sum(heard.headers) % 997, len(heard.page),
        len(sizes), sizes.mean(), sizes.std(), sizes.max(), sizes[-1], times[0], times[-1], gaps.mean(), gaps.std(),
        gaps.max(), gaps[-1], len(events), len(shown), raw.count(b": waiting"), np.mean(orders or [0.5]),
        first["a"], first["b"], first["a"] - first["b"], last["a"], last["b"], last["a"] - last["b"],
        lead.mean(), lead.max(), lead.min(), lead[len(lead) // 2], lead[-1],
        sum(n == 0 for n in texts["a"]), sum(n == 0 for n in texts["b"]), max(texts["a"], default=0),
        max(texts["b"], default=0), len(end[0]), len(end[1]), len(end[0]) - len(end[1]), len(said),
        events[-1][0], len(name), name[0], name[-1], sum(name) % 251, float(name[0] % 2), float(sum(name) % 2),
    ]  # fmt: skip


def guessed(heard, left) -> float:
    """The share of battles whose sides a logistic regression guesses right, each by a fit to other battles."""
    X, y = np.array([features(one) for one in heard], float), np.asarray(left, float)
    fold = np.random.default_rng(0).permutation(len(y)) % _FOLDS
    right = 0
    for part in range(_FOLDS):
        there = fold != part
        mean, spread = X[there].mean(axis=0), X[there].std(axis=0)
        Z = np.clip((X - mean) / np.where(spread > 0, spread, 1.0), -4, 4) * (spread > 0)
        Z = np.column_stack([Z, np.ones(len(Z))])
        weights = _logistic(Z[there], y[there])
        right += int((((Z[~there] @ weights) > 0) == (y[~there] > 0.5)).sum())
    return right / len(y)


def _logistic(X, y, ridge: float = 3.0):
    """Weights (F,) by Newton's method."""
    weights = np.zeros(X.shape[1])
    for _ in range(25):
        chance = 1 / (1 + np.exp(-np.clip(X @ weights, -30, 30)))
        slope = X.T @ (y - chance) - ridge * weights
        hessian = (X * (chance * (1 - chance))[:, None]).T @ X + ridge * np.eye(len(weights))
        weights += np.linalg.solve(hessian, slope)
    return weights
