"""The models behind the names: loaded when first asked for, unloaded when idle or when others need the memory."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Literal

from moreseek.errors import InputError, MoreseekError
from moreseek.server.errors import RefusedError
from moreseek.server.turns import FairQueue

if TYPE_CHECKING:
    from moreseek.engine.llm import LLM

LOG = logging.getLogger("moreseek.server")
PATIENCE_S = 30.0  # a request waits so long for its model; then its client is told to come again

State = Literal["unloaded", "loading", "ready", "failed", "down"]


@dataclass(eq=False)
class ServedModel:
    """One model. "failed": its files cannot be loaded; "down": its engine crashed twice."""

    name: str
    open: Callable[[], LLM]
    queue: FairQueue
    context: int
    size: int = 0  # bytes that its weights take
    created: int = 0  # Unix time
    llm: LLM | None = None  # while it is ready
    state: State = "unloaded"
    users: int = 0  # requests that hold it
    used: int = 0  # the one used longest ago has the smallest
    crashes: int = 0
    fault: str = ""
    loading: asyncio.Task[None] | None = field(default=None, repr=False)  # or the end of the engine that it had
    idling: asyncio.TimerHandle | None = field(default=None, repr=False)  # when it is unloaded, if nobody comes

    @property
    def crashed(self) -> bool:
        return self.llm is not None and (self.llm.loop.failures > 0 or not self.llm.loop.alive)


class Models:
    """All models of a server by name; several names may have the same one.

    ``memory``: bytes for weights at once. ``idle_s``: a model that nobody has used for so long is unloaded.
    """

    def __init__(
        self, named: Mapping[str, ServedModel], memory: int | None = None, idle_s: float | None = None
    ) -> None:
        self.named, self.memory, self.idle_s = dict(named), memory, idle_s
        self.all = list(dict.fromkeys(self.named.values()))
        for model in self.all:
            if memory is not None and model.size > memory:
                raise InputError(f"{model.name} takes {_gib(model.size)} and models may take {_gib(memory)} at once.")
        self.first = self.all[0]
        self.begun = False  # whether any has ever been ready
        self._uses = count(1)

    def find(self, name: str | None) -> ServedModel:
        """By its name; the first one where none is named. Raises RefusedError (404)."""
        model = self.named.get(name) if name else self.first
        if model is None:
            known, shown = ", ".join(list(self.named)[:20]), str(name)[:80]
            raise RefusedError(
                404, f"The model `{shown}` is not served here. Served: {known}.", "model_not_found", "model"
            )
        return model

    async def take(self, model: ServedModel) -> None:
        """Have it loaded; it stays so until ``leave``. Raises RefusedError (503) while it loads, or when it cannot."""
        model.users += 1  # from here on, so that nobody unloads it while this waits
        try:
            await self._ready(model)
        except BaseException:
            self.leave(model)
            raise

    def leave(self, model: ServedModel) -> None:
        """A request has ended."""
        model.users -= 1
        model.used = next(self._uses)
        self.look_after(model)
        self._idle(model)

    def _idle(self, model: ServedModel) -> None:
        """From now on it is idle, unless somebody has it."""
        if model.idling is not None:
            model.idling.cancel()
            model.idling = None
        if self.idle_s is not None and not model.users and model.state == "ready":
            model.idling = asyncio.get_running_loop().call_later(self.idle_s, self._unload_idle, model)

    def _unload_idle(self, model: ServedModel) -> None:
        model.idling = None
        if model.llm is None or model.users or model.state != "ready":
            return
        LOG.info("unloading %s: idle for %g s", model.name, self.idle_s)
        engines, model.llm, model.state = [model.llm], None, "unloaded"
        model.loading = asyncio.get_running_loop().create_task(asyncio.to_thread(_close, engines))

    def look_after(self, model: ServedModel) -> None:
        """See whether its engine has crashed: it is restarted once."""
        if model.llm is None or not model.crashed:
            return
        model.crashes += 1
        if model.crashes == 1:
            LOG.error("%s: the engine has crashed and is restarted", model.name)
            self._load(model, [model])
        else:
            LOG.error("%s: the engine has crashed again and stays down; restart the server", model.name)
            engines, model.llm, model.state = [model.llm], None, "down"
            model.loading = asyncio.get_running_loop().create_task(asyncio.to_thread(_close, engines))

    async def _ready(self, model: ServedModel) -> None:
        self.look_after(model)
        if model.state == "unloaded":
            self.load(model)
        if model.state == "loading" and model.loading is not None:
            await asyncio.wait([model.loading], timeout=PATIENCE_S)
        if model.state == "loading":
            raise RefusedError(503, f"{model.name} is being loaded.", "model_loading", "model", retry_s=5)
        if model.state != "ready":
            told = "its files cannot be loaded" if model.state == "failed" else "its engine has crashed twice"
            raise RefusedError(503, f"{model.name} is not available: {told}.", "model_unavailable", "model", retry_s=60)

    def load_now(self, model: ServedModel) -> None:
        """Load it before anybody is served. Raises what opening it raises."""
        model.llm, model.state, self.begun = model.open(), "ready", True

    def load(self, model: ServedModel) -> None:
        """Begin to load it; idle models make room. Raises RefusedError (503) when there is none."""
        self._load(model, self._room_for(model))

    def _room_for(self, model: ServedModel) -> list[ServedModel]:
        """The idle models that have to go, those used longest ago first."""
        if self.memory is None:
            return []
        held = [other for other in self.all if other.state in ("ready", "loading")]
        over, gone = sum(other.size for other in held) + model.size - self.memory, list[ServedModel]()
        for other in sorted(held, key=lambda other: other.used):
            if over > 0 and other.state == "ready" and not other.users:
                gone.append(other)
                over -= other.size
        if over > 0:
            raise RefusedError(
                503, f"{model.name} has to wait for models that are in use.", "no_memory", "model", retry_s=5
            )
        return gone

    def _load(self, model: ServedModel, gone: list[ServedModel]) -> None:
        engines: list[LLM] = []
        for other in gone:
            if other.llm is not None:
                LOG.info("unloading %s", other.name)
                engines.append(other.llm)
            other.llm, other.state = None, "unloaded"
        model.state = "loading"
        model.loading = asyncio.get_running_loop().create_task(self._loaded(model, engines, model.loading))

    async def _loaded(self, model: ServedModel, engines: list[LLM], before: asyncio.Task[None] | None) -> None:
        """``before``: what was done to it last. The engine that it had has to be gone, or it would be there twice."""
        LOG.info("loading %s", model.name)
        if before is not None:
            await asyncio.wait([before])
        try:
            await asyncio.to_thread(_close, engines)
            model.llm = await asyncio.to_thread(model.open)
            model.state, self.begun = "ready", True
            LOG.info("%s is ready", model.name)
            self._idle(model)
        except (MoreseekError, OSError, MemoryError) as error:
            model.state, model.fault = "failed", str(error) or type(error).__name__
            LOG.error("%s cannot be loaded: %s", model.name, model.fault)
        except Exception:
            model.state, model.fault = "failed", "a defect; the log has it"
            LOG.exception("%s cannot be loaded", model.name)

    async def close(self) -> None:
        """End all engines."""
        for model in self.all:
            if model.idling is not None:
                model.idling.cancel()
        tasks = [model.loading for model in self.all if model.loading is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(_close, [model.llm for model in self.all if model.llm is not None])

    # ------------------------------------------------------------------------------------------------------- health

    def health(self) -> str:
        """ "ok", "loading" before the first is ready, "restarting", or "down"."""
        for model in self.all:
            self.look_after(model)
        if any(model.crashes and model.state != "ready" for model in self.all):
            down = any(model.crashes and model.state in ("down", "failed") for model in self.all)
            return "down" if down else "restarting"
        return "ok" if self.begun else "loading"

    def states(self) -> dict[str, int]:
        """How many models are in each state."""
        found = [model.state for model in self.all]
        return {state: found.count(state) for state in dict.fromkeys(found)}


def _close(engines: list[LLM]) -> None:
    while engines:
        engines.pop().loop.close()
    gc.collect()  # an LLM and its engine know each other, so that counting alone does not free them


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
