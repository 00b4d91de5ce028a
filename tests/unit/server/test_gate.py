"""Keys: which routes want one, and that nothing but a right one opens them."""

import asyncio
import hmac

import httpx
import pytest
from tests.unit.server.serving import served

from moreseek.server.app import build_app

OPEN = {"/", "/health"}
KEYS = ("sk-first-key", "sk-second-key", "sk-third-key")


@pytest.fixture(scope="module")
def app(llm):
    return build_app(served(llm, keys=KEYS))


def asked(app, *requests):
    """The status of each (method, path, headers)."""

    async def go():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            return [(await http.request(method, path, headers=more)).status_code for method, path, more in requests]

    return asyncio.run(go())


def routes(app):
    """(method, path) of every route there is."""
    return [
        (method, route.path.format(id="resp_1"))
        for route in app.routes
        if getattr(route, "methods", None)
        for method in sorted(route.methods - {"HEAD"})
    ]


def test_every_route_but_health_and_the_page_wants_a_key(app):
    found = routes(app)
    assert len(found) > 10
    without = asked(app, *((method, path, {}) for method, path in found))
    refused = {path for (_, path), status in zip(found, without, strict=True) if status == 401}
    assert {path for _, path in found} - refused == OPEN
    right = asked(app, *((method, path, {"authorization": f"Bearer {KEYS[1]}"}) for method, path in found))
    assert 401 not in right
    assert asked(app, ("GET", "/static/chat.js", {}), ("GET", "/static/../metrics", {})) == [200, 401]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer sk-first-ke", "Bearer sk-first-keyy", "Basic sk-first-key", "bearer x",
               "Bearer sk-first-key,sk-second-key", "Bearer sk-FIRST-key", "Bearer s\xe9cret"]
)  # fmt: skip
def test_what_is_not_quite_a_key_opens_nothing(app, header):
    assert asked(app, ("GET", "/v1/models", {"authorization": header.encode("latin-1")})) == [401]


@pytest.mark.parametrize("given", [KEYS[0], KEYS[2], "wrong"])
def test_every_key_is_compared_whole_whichever_is_given(app, monkeypatch, given):
    """By a comparison whose time tells nothing, with all keys: neither how much is right is seen, nor which one."""
    compared, compare = [], hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or compare(a, b))
    asked(app, ("GET", "/v1/models", {"authorization": f"Bearer {given}"}))
    assert compared == [(given.encode(), key.encode()) for key in KEYS]
