"""A time limit on foreign code: a signal where the main thread asks, a thread of its own elsewhere."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from moreseek.records import Problem


class TimedOut(BaseException):
    """Raised inside a verifier that runs too long. Not an Exception, so that it cannot swallow it by chance."""


class Timer:
    """Calls verifiers under a time limit. One ``with`` block serves a batch: a call costs about a microsecond.

    A signal interrupts Python code; a verifier that hangs inside C code is stopped when that code returns.
    Outside the main thread a hanging verifier cannot be stopped: its thread is left behind as a daemon.
    """

    def __init__(self) -> None:
        self._signals = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "Timer":
        if self._signals:
            self._former = signal.signal(signal.SIGALRM, _raise)
            self._former_timer, _ = signal.setitimer(signal.ITIMER_REAL, 0)
            self._entered = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._signals:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._former or signal.SIG_DFL)
            if self._former_timer:  # somebody else's alarm, such as a test's: it still rings in time
                left = self._former_timer - (time.monotonic() - self._entered)
                signal.setitimer(signal.ITIMER_REAL, max(left, 1e-3))

    def call(self, function: Callable[[Problem, str], Any], problem: Problem, completion: str, limit_s: float) -> Any:
        """``function(problem, completion)``. Raises TimedOut after ``limit_s`` seconds."""
        if not self._signals:
            return _call_in_thread(function, problem, completion, limit_s)
        signal.setitimer(signal.ITIMER_REAL, limit_s, limit_s)  # again and again, should it be swallowed
        try:
            return function(problem, completion)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def _raise(number: int, frame: FrameType | None) -> None:
    raise TimedOut


def _call_in_thread(function: Callable[[Problem, str], Any], problem: Problem, completion: str, limit_s: float) -> Any:
    outcome: list[tuple[Any, BaseException | None]] = []

    def work() -> None:
        try:
            outcome.append((function(problem, completion), None))
        except BaseException as error:  # handed to the caller below
            outcome.append((None, error))

    thread = threading.Thread(target=work, daemon=True, name="verifier")
    thread.start()
    thread.join(limit_s)
    if not outcome:
        raise TimedOut
    value, error = outcome[0]
    if error is not None:
        raise error
    return value
