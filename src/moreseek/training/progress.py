"""What a person sees while a stage runs: a live panel on a terminal, plain lines on a pipe."""

import sys
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

PLAIN_EVERY_S = 5.0


class StageProgress:
    """Progress of one stage: steps, ETA, the number that matters and a sample that changes.

    Everything goes to stderr, so that stdout stays free for results.
    """

    def __init__(self, stage: str, total: int, done: int = 0, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.stage, self.total = stage, total
        self._started, self._first = time.monotonic(), done
        self._printed = 0.0
        self._sample = Text("")
        self._live: Live | None = None
        if self.console.is_terminal:
            self._bar = Progress(
                TextColumn("[bold]{task.fields[stage]}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
                TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[headline]}"), console=self.console,
            )  # fmt: skip
            self._task = self._bar.add_task(stage, total=total, completed=done, stage=stage, headline="")
            self._live = Live(self, console=self.console, refresh_per_second=4, transient=False)

    def __enter__(self) -> "StageProgress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def __rich__(self) -> Group:
        return Group(self._bar, self._sample)

    def update(self, step: int, headline: str, sample: str | None = None) -> None:
        """Show where the stage stands. ``headline`` holds the number that matters, ``sample`` what the model says."""
        if sample is not None:
            shown = sample.replace("\n", "⏎ ")
            self._sample = Text("  " + shown[:300] + ("…" if len(shown) > 300 else ""), style="dim")
        if self._live is not None:
            self._bar.update(self._task, completed=step, headline=headline)
            return
        now = time.monotonic()
        if now - self._printed >= PLAIN_EVERY_S or step in (self.total, self._first + 1):
            self._printed = now
            rate = (now - self._started) / max(1, step - self._first)
            eta = f"ETA {rate * (self.total - step):.0f}s"
            self.console.print(f"[{self.stage}] {step}/{self.total} {eta} {headline}", markup=False, highlight=False)
            if self._sample.plain:
                self.console.print(self._sample.plain, markup=False, highlight=False)

    def note(self, message: str) -> None:
        self.console.print(f"[{self.stage}] {message}", markup=False, highlight=False, style="yellow")


def counter(console: Console, what: str) -> Callable[..., None]:
    """A callback (label, finished, total) that keeps a person informed during evaluation."""
    state = {"printed": time.monotonic()}

    def show(label: str, *progress: Any) -> None:
        now = time.monotonic()
        finished, total = progress[-2:] if len(progress) >= 2 else (0, 0)
        if now - state["printed"] < (0.3 if console.is_terminal else PLAIN_EVERY_S):
            return
        state["printed"] = now
        if console.is_terminal:
            sys.stderr.write(f"\r\033[K{what}: {label} {finished}/{total}")
            sys.stderr.flush()
        else:
            console.print(f"{what}: {label} {finished}/{total}", markup=False, highlight=False)

    return show
