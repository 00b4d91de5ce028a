import pytest
from tests.unit.arena.site.databases import postgresql
from tests.unit.arena.site.endpoints import endpoint as run_endpoint
from tests.unit.arena.site.running import running, settings

from moreseek.arena.live import pacing


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(pacing, "TICK_S", 0.01)


@pytest.fixture(scope="session")
def server():
    """PostgreSQL for all tests; each empties it."""
    with postgresql() as url:
        yield url


@pytest.fixture(scope="module")
def endpoint():
    with run_endpoint() as server:
        yield server


@pytest.fixture
def arena(endpoint, tmp_path):
    """``arena(models, **house)`` runs an arena until the test ends."""
    opened = []

    def start(models=("ok", "second"), **house):
        context = running(settings(endpoint.url, tmp_path / "arena.sqlite", models, **house))
        opened.append(context)
        return context.__enter__()

    yield start
    for context in reversed(opened):
        context.__exit__(None, None, None)
