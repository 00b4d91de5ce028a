"""A plain HTTP client of a server over a real engine with random weights."""

import asyncio
import json

import httpx
import pytest
from tests.unit.server.serving import served

from moreseek.server.app import build_app


@pytest.fixture(scope="module")
def llm(make_llm):
    return make_llm(["hello world, how are you"] * 5, 290, 256)


@pytest.fixture(scope="module")
def roomy(make_llm):
    """One with a context that the description of a tool fits into."""
    return make_llm(["hello world, how are you"] * 5, 290, 4096)


@pytest.fixture(scope="module")
def client_of():
    """client_of(llm)(method, path, …): the answer."""

    def make(llm):
        transport = httpx.ASGITransport(build_app(served(llm)), raise_app_exceptions=False)

        def send(method, path, **more):
            async def go():
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
                    return await http.request(method, path, **more)

            return asyncio.run(go())

        return send

    return make


@pytest.fixture
def client(llm, client_of):
    return client_of(llm)


def events(answer):
    """The chunks of a stream."""
    lines = [line for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
