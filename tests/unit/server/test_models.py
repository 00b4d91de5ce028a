"""Models that come and go behind one address, and engines that crash, over a real engine with random weights."""

import asyncio
import threading

import httpx
import pytest

from moreseek.engine.llm import LLM
from moreseek.errors import InputError
from moreseek.server import models as models_module
from moreseek.server.app import build_app
from moreseek.server.models import Models, ServedModel
from moreseek.server.service import Served
from moreseek.server.turns import FairQueue

ASKED = {"prompt": "hello", "max_tokens": 2, "temperature": 0}


@pytest.fixture
def folder(make_folder):
    return make_folder(["hello world, how are you"] * 5, 290, 256)


class House:
    """A server with models a, b and c of the given sizes, and what has been loaded."""

    def __init__(self, folder, sizes, memory=None, idle_s=None, **more):
        self.folder, self.opened, self.made = folder, [], []
        self.models = Models({name: self.model(name, size) for name, size in sizes.items()}, memory, idle_s)
        self.served = Served(self.models, **more)
        self.app = build_app(self.served)

    def model(self, name, size):
        return ServedModel(name, lambda: self.open(name), FairQueue(8, 8), 256, size)

    def open(self, name):
        self.opened.append(name)
        self.made.append(LLM(self.folder))
        return self.made[-1]

    @property
    def states(self):
        return {name: model.state for name, model in self.models.named.items()}

    def run(self, scenario):
        """The scenario with a client, from the server's beginning to its end."""

        async def go():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with (
                self.app.router.lifespan_context(self.app),
                httpx.AsyncClient(transport=transport, base_url="http://test", timeout=60) as http,
            ):
                return await scenario(http)

        result = asyncio.run(go())
        assert not any(llm.loop.alive for llm in self.made)
        return result


async def ask(http, model, **more):
    return await http.post("/v1/completions", json=ASKED | {"model": model} | more)


def test_a_model_is_loaded_when_it_is_first_asked_for(folder):
    house = House(folder, {"a": 1, "b": 1, "c": 1})

    async def go(http):
        assert (await ask(http, "a")).status_code == 200
        assert house.opened == ["a"]
        answers = await asyncio.gather(*(ask(http, "b") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {200}
        assert house.opened == ["a", "b"]  # once for all of them
        listed = (await http.get("/v1/models")).json()["data"]
        assert [(model["id"], model["state"]) for model in listed] == [
            ("a", "ready"),
            ("b", "ready"),
            ("c", "unloaded"),
        ]
        assert {model["max_model_len"] for model in listed} == {256}

    house.run(go)


def test_models_make_room_for_one_another_those_used_longest_ago_first(folder):
    house = House(folder, {"a": 2, "b": 1, "c": 1}, memory=3)

    async def go(http):
        for name in ("a", "b", "a", "c"):
            assert (await ask(http, name)).status_code == 200
        assert house.states == {"a": "ready", "b": "unloaded", "c": "ready"}
        assert (await ask(http, "b")).status_code == 200
        assert house.states == {"a": "unloaded", "b": "ready", "c": "ready"}
        assert [llm.loop.alive for llm in house.made] == [False, False, True, True]

    house.run(go)


def test_a_model_is_never_unloaded_while_a_request_runs(folder, monkeypatch):
    house, go_on = House(folder, {"a": 1, "b": 1}, memory=1), threading.Event()

    async def go(http):
        await ask(http, "a")
        runner = house.models.first.llm.engine.runner
        whole = runner.logits
        monkeypatch.setattr(runner, "logits", lambda step: go_on.wait() and whole(step))
        running = asyncio.create_task(ask(http, "a"))
        while not house.models.first.users:
            await asyncio.sleep(0)
        refused = await ask(http, "b")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "in use" in refused.text
        assert house.states == {"a": "ready", "b": "unloaded"}
        go_on.set()
        assert (await running).status_code == 200
        assert (await ask(http, "b")).status_code == 200
        assert house.states == {"a": "unloaded", "b": "ready"}

    house.run(go)


def test_loading_is_reported_and_clients_are_told_to_come_again(folder, monkeypatch, caplog):
    monkeypatch.setattr(models_module, "PATIENCE_S", 0.01)
    caplog.set_level("INFO", "moreseek.server")
    house, go_on = House(folder, {"a": 1, "b": 1}), threading.Event()
    open_model = house.open
    house.open = lambda name: go_on.wait() and open_model(name)

    async def go(http):
        health = await http.get("/health")
        assert (health.status_code, health.json()) == (
            503,
            {"status": "loading", "models": {"loading": 1, "unloaded": 1}},
        )
        refused = await ask(http, "a")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["code"] == "model_loading"
        go_on.set()
        await house.models.first.loading
        assert (await http.get("/health")).json() == {"status": "ok", "models": {"ready": 1, "unloaded": 1}}
        assert (await ask(http, "a")).status_code == 200

    house.run(go)
    assert caplog.messages == ["loading a", "a is ready"]


def test_a_model_that_cannot_be_loaded_fails_alone_and_its_path_stays_here(folder):
    house = House(folder, {"a": 1, "b": 1})
    house.models.find("b").open = lambda: LLM(folder / "nothing")

    async def go(http):
        refused = await ask(http, "b")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_unavailable")
        assert str(folder) not in refused.text
        assert (await ask(http, "a")).status_code == 200
        assert (await http.get("/health")).status_code == 200
        assert not house.served.done

    house.run(go)


def test_a_server_whose_first_model_cannot_be_loaded_ends(folder):
    house = House(folder, {"a": 1})
    house.models.first.open = lambda: LLM(folder / "nothing")

    async def go(http):
        await house.models.first.loading
        assert house.served.done
        assert "neither a run" in house.models.first.fault

    house.run(go)


def test_a_model_that_never_fits_is_said_at_once(folder):
    with pytest.raises(InputError, match=r"a takes 2\.0 GiB and models may take 1\.0 GiB"):
        House(folder, {"a": 2 << 30}, memory=1 << 30)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def test_an_idle_model_is_unloaded_and_loaded_again_when_it_is_asked_for(folder, caplog):
    caplog.set_level("INFO", "moreseek.server")
    house = House(folder, {"a": 1, "b": 1}, idle_s=0.05)

    async def go(http):
        first = (await ask(http, "a")).json()["choices"]
        await until(lambda: house.states == {"a": "unloaded", "b": "unloaded"})
        await house.models.first.loading
        assert [llm.loop.alive for llm in house.made] == [False]
        assert (await http.get("/health")).json() == {"status": "ok", "models": {"unloaded": 2}}
        assert (await ask(http, "a")).json()["choices"] == first
        await until(lambda: house.states["a"] == "unloaded")

    house.run(go)
    assert house.opened == ["a", "a"]
    assert "unloading a: idle for 0.05 s" in caplog.messages


def test_a_model_that_nobody_ever_asks_for_is_idle_from_its_loading_on(folder):
    house = House(folder, {"a": 1}, idle_s=0.05)

    async def go(http):
        await until(lambda: house.models.begun)
        await until(lambda: house.states["a"] == "unloaded")

    house.run(go)


def test_requests_that_run_or_follow_one_another_keep_a_model_loaded(folder, monkeypatch):
    house, go_on = House(folder, {"a": 1}, idle_s=0.2), threading.Event()

    async def go(http):
        await ask(http, "a")
        for _ in range(8):
            await asyncio.sleep(0.05)  # together longer than it may be idle
            assert (await ask(http, "a")).status_code == 200
        runner = house.models.first.llm.engine.runner
        whole = runner.logits
        monkeypatch.setattr(runner, "logits", lambda step: go_on.wait() and whole(step))
        running = asyncio.create_task(ask(http, "a"))
        await asyncio.sleep(0.5)
        assert house.states["a"] == "ready"
        go_on.set()
        assert (await running).status_code == 200

    house.run(go)
    assert house.opened == ["a"]


def test_a_request_that_comes_while_its_model_is_unloaded_waits_and_is_answered(folder, monkeypatch):
    """The old engine is gone before the new one is there: two would not fit where one does."""
    house, reached, go_on, alive = House(folder, {"a": 1}, idle_s=0.05), threading.Event(), threading.Event(), []
    close = models_module._close
    monkeypatch.setattr(models_module, "_close", lambda engines: reached.set() or (go_on.wait() and close(engines)))
    open_model = house.open

    def opening(name):
        alive.append(any(llm.loop.alive for llm in house.made))
        return open_model(name)

    house.open = opening

    async def go(http):
        go_on.set()
        first = (await ask(http, "a")).json()["choices"]
        go_on.clear()
        reached.clear()
        await until(reached.is_set)
        coming = [asyncio.create_task(ask(http, "a")) for _ in range(3)]
        await until(lambda: house.models.first.users == 3)
        assert house.states["a"] == "loading"
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in coming)
        go_on.set()
        assert [(await task).json()["choices"] for task in coming] == [first] * 3

    house.run(go)
    assert house.opened == ["a", "a"]
    assert alive == [False, False]


def break_engine(model, monkeypatch):
    """Its next step fails, as a bug of ours or the machine would make it."""

    def fail(step):
        raise RuntimeError("a secret of the machine")

    monkeypatch.setattr(model.llm.engine.runner, "logits", fail)


def test_a_crashed_engine_ends_its_requests_and_is_restarted_once(folder, monkeypatch, caplog):
    house = House(folder, {"a": 1})
    go_on = threading.Event()
    go_on.set()
    open_model = house.open
    house.open = lambda name: go_on.wait() and open_model(name)

    async def go(http):
        first = (await ask(http, "a")).json()["choices"]
        break_engine(house.models.first, monkeypatch)
        go_on.clear()
        broken = await asyncio.gather(ask(http, "a"), ask(http, "a", n=3), ask(http, "a", stream=True))
        for answer in broken[:2]:
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == "engine_error"
        assert "engine_error" in broken[2].text
        assert not any("secret" in answer.text for answer in broken)
        assert "a secret of the machine" in caplog.text  # which the log has
        health = await http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "restarting")

        go_on.set()
        assert (await ask(http, "a")).json()["choices"] == first  # it waits for the restart
        assert (await http.get("/health")).status_code == 200
        assert house.opened == ["a", "a"]

        break_engine(house.models.first, monkeypatch)
        assert (await ask(http, "a")).status_code == 500
        health = await http.get("/health")
        assert (health.status_code, health.json()["status"]) == (503, "down")
        later = await ask(http, "a")
        assert (later.status_code, later.json()["error"]["code"]) == (503, "model_unavailable")
        assert house.opened == ["a", "a"]

    house.run(go)


def test_what_an_ending_engine_cuts_off_is_no_answer(folder, monkeypatch):
    house, reached, go_on = House(folder, {"a": 1}), threading.Event(), threading.Event()

    async def go(http):
        await ask(http, "a")
        llm = house.models.first.llm
        whole = llm.engine.runner.logits

        def held(step):
            reached.set()
            go_on.wait()
            return whole(step)

        monkeypatch.setattr(llm.engine.runner, "logits", held)
        running = asyncio.create_task(ask(http, "a", max_tokens=100, ignore_eos=True))
        await asyncio.to_thread(reached.wait)
        closing = asyncio.create_task(asyncio.to_thread(llm.loop.close))
        while not llm.loop._closed:
            await asyncio.sleep(0)
        go_on.set()
        await closing
        assert (await running).status_code == 500

    house.run(go)


def test_the_crash_of_one_model_leaves_others_running(folder, monkeypatch):
    house = House(folder, {"a": 1, "b": 1})

    async def go(http):
        await asyncio.gather(ask(http, "a"), ask(http, "b"))
        for _ in range(2):
            break_engine(house.models.find("b"), monkeypatch)
            answers = await asyncio.gather(ask(http, "a"), ask(http, "b"))
            assert [answer.status_code for answer in answers] == [200, 500]
            await house.models.find("b").loading
        assert house.states == {"a": "ready", "b": "down"}
        assert (await ask(http, "a")).status_code == 200

    house.run(go)


def test_a_number_that_is_none_ends_its_request_and_is_no_crash(folder, monkeypatch):
    house = House(folder, {"a": 1})

    async def go(http):
        await ask(http, "a")
        engine = house.models.first.llm.engine
        whole = engine.runner.logits
        monkeypatch.setattr(engine.runner, "logits", lambda step: (whole(step)[0] * float("nan"), None))
        assert (await ask(http, "a")).status_code == 500
        monkeypatch.setattr(engine.runner, "logits", whole)
        assert (await ask(http, "a")).status_code == 200
        assert house.opened == ["a"]

    house.run(go)
