"""An engine in a thread of its own: requests from any thread or event loop join at its next step."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from collections.abc import Sequence as Items
from contextlib import suppress
from dataclasses import dataclass
from weakref import WeakKeyDictionary, ref

from moreseek.engine.engine import Engine
from moreseek.engine.sampling import SamplingParams
from moreseek.engine.sequence import OnToken, Sequence
from moreseek.engine.stops import TextStream
from moreseek.errors import FaultError

LOG = logging.getLogger("moreseek.engine")
CLOSED = "the engine has been closed."
FORKED = "this model was loaded before the process forked, and its threads stayed behind. Load it in the new process."
# Readers that an event loop wakes before it looks at its sockets again: each writes to one of them, and hands Python's
# lock over for that, so that whoever asks for something else would wait for all of them.
MOST_DELIVERED = 8
OnEnd = Callable[[Sequence], None]


@dataclass(frozen=True, slots=True)
class Token:
    """One token as a reader of a stream gets it, with the text that can be shown since."""

    id: int
    logprob: float
    text: str = ""


class Post:
    """Brings what the engine's thread has for an event loop there, all of a step at once.

    Waking an event loop is a call of the system, which hands Python's lock over: once a token, the engine waited for
    the readers of every token before it could choose the next one's.
    """

    def __init__(self, events: asyncio.AbstractEventLoop) -> None:
        self._events = ref(events)
        self._items: deque[tuple[asyncio.Queue[Token | Sequence], Token | Sequence]] = deque()
        self._told = False

    def put(self, reader: asyncio.Queue[Token | Sequence], item: Token | Sequence) -> None:
        """In the engine's thread."""
        self._items.append((reader, item))
        events = self._events()
        if not self._told and events is not None:
            self._told = True
            with suppress(RuntimeError):  # it has been closed, and nobody reads any longer
                events.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._told = False  # before the first is taken: what comes now is taken too, or tells anew
        for _ in range(min(len(self._items), MOST_DELIVERED)):
            reader, item = self._items.popleft()
            reader.put_nowait(item)
        events = self._events()
        if self._items and not self._told and events is not None:
            self._told = True
            events.call_soon(self._deliver)


class EngineLoop:
    """Steps an engine as long as it has requests, and sleeps otherwise.

    The callbacks of ``submit`` run in the loop's thread, so they must be quick and must not raise. ``failures`` counts
    the steps that broke: those ended every request of that moment, and the engine went on with the next ones.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.failures = engine, 0
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._ends: dict[Sequence, OnEnd] = {}
        self._posts: WeakKeyDictionary[asyncio.AbstractEventLoop, Post] = WeakKeyDictionary()
        self._closed = False
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="moreseek-engine", daemon=True)
        self._thread.start()

    def submit(
        self, prompt: Items[int], params: SamplingParams, seed: int | None, on_token: OnToken | None, on_end: OnEnd
    ) -> Sequence:
        """Queue a request; ``on_end`` is called once, when it has ended for whatever reason.

        Raises InputError, in the caller's thread, for what the engine cannot take.
        """
        sequence = self.engine.request(prompt, params, seed, on_token)
        self._start(sequence, on_end)
        return sequence

    def _start(self, sequence: Sequence, on_end: OnEnd) -> None:
        def enter() -> None:
            self._ends[sequence] = on_end
            self.engine.scheduler.add(sequence)

        if not self._post(enter):
            raise FaultError(CLOSED)

    def abort(self, sequence: Sequence) -> None:
        """End a request before the next step; nothing when it has ended."""

        def leave() -> None:
            self.engine.abort(sequence)
            self._end([sequence])

        self._post(leave)

    @property
    def alive(self) -> bool:
        """Whether requests are still answered."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End what runs, then the thread."""
        self.stop()
        if self._process == os.getpid():
            self._thread.join()

    def stop(self) -> None:
        """Have it end, and do not wait for it."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    # ----------------------------------------------------------------------------------------------------- readers

    def stream(
        self, prompt: Items[int], params: SamplingParams, seed: int | None = None, text: TextStream | None = None
    ) -> Iterator[Token | Sequence]:
        """Tokens as they come, and at last the sequence that has ended. Leaving early aborts the request.

        ``text`` turns tokens into text, and ends the request at a stop string; what it still holds back at the end
        is its ``finish()``.
        """
        items: queue.SimpleQueue[Token | Sequence] = queue.SimpleQueue()
        request = self.submit(prompt, params, seed, listener(items.put, text), items.put)
        try:
            while not isinstance(item := items.get(), Sequence):
                yield item
            yield raised(item)
        finally:
            self.abort(request)

    def astream(
        self, prompt: Items[int], params: SamplingParams, seed: int | None = None, text: TextStream | None = None
    ) -> AsyncGenerator[Token | Sequence]:
        """``stream`` for an event loop, which never waits for the engine."""
        return self.follow(self.engine.request(prompt, params, seed), text)

    async def follow(self, request: Sequence, text: TextStream | None = None) -> AsyncGenerator[Token | Sequence]:
        """``astream`` of what ``engine.request`` made, which takes time and may be called in another thread."""
        events = asyncio.get_running_loop()
        items: asyncio.Queue[Token | Sequence] = asyncio.Queue()
        post = self._posts.setdefault(events, Post(events))

        def put(item: Token | Sequence) -> None:
            post.put(items, item)

        request.on_token = listener(put, text)
        self._start(request, put)
        try:
            while not isinstance(item := await items.get(), Sequence):
                yield item
            yield raised(item)
        finally:
            self.abort(request)

    # ------------------------------------------------------------------------------------------------- the thread

    def _post(self, command: Callable[[], None]) -> bool:
        """Have the thread do it before its next step; False when the thread is gone. Raises FaultError after a fork."""
        if self._process != os.getpid():
            raise FaultError(FORKED)
        with self._wake:
            if not self._closed:
                self._inbox.append(command)
                self._wake.notify()
            return not self._closed

    def be_nice(self, nice: int) -> None:
        """Let other threads go first, by so much as in nice(2); the kernels' own threads inherit it. Linux alone knows
        threads' priorities.
        """
        if sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, self._thread.native_id or 0, nice)

    def _run(self) -> None:
        while self._wait():
            self._read_inbox()
            try:
                ended = self.engine.step()
            except Exception:  # its requests have ended with the reason; see Engine.step
                LOG.exception("a step of the engine failed")
                self.failures += 1
                ended = list(self._ends)
            self._end(ended)
        self._read_inbox()
        for sequence in list(self._ends):
            self.engine.abort(sequence)
            sequence.fault = CLOSED  # or its reader would take what it has for the whole
            self._end([sequence])

    def _read_inbox(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _wait(self) -> bool:
        """Sleep until there is something to do; False when it is time to go."""
        with self._wake:
            self._wake.wait_for(lambda: self._closed or self._inbox or self.engine.scheduler.busy)
            return not self._closed

    def _end(self, sequences: Items[Sequence]) -> None:
        for sequence in sequences:
            tell = self._ends.pop(sequence, None)
            if tell is not None:
                tell(sequence)


def listener(put: Callable[[Token], None], text: TextStream | None) -> OnToken:
    """Hands tokens on with their text; says when the text has come to a stop string."""

    def hear(token: int, logprob: float) -> bool:
        put(Token(token, logprob, "" if text is None else text.push(token)))
        return text is not None and text.stopped

    return hear


def raised(sequence: Sequence) -> Sequence:
    """The sequence, or FaultError with what broke it."""
    if sequence.fault is not None:
        raise FaultError(sequence.fault)
    return sequence
