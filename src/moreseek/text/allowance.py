"""How much time and memory one rendering of a stranger's template may take.

Time is the thread's processor time, so that a busy machine refuses nothing. Memory is counted as weight: characters,
and one for each item, of every value that the template makes. What is counted is never given back, which bounds the
memory whatever the template keeps.
"""

import time
from collections.abc import ItemsView, Iterable, KeysView, ValuesView
from contextvars import ContextVar
from typing import Any

import jinja2
from jinja2.utils import Namespace

MAX_RENDER_S = 1.0
MAX_WEIGHT = 500_000
"""Of one value, and of what is written; more where the chat itself is long: GROWTH times its weight."""

GROWTH = 4
MADE_IN_ALL = 32
"""All values of a rendering together may weigh this many times as much as one may."""


class Allowance:
    """What is left for one rendering of a chat."""

    def __init__(self, *given: Any) -> None:
        self._known: dict[int, int] = {}
        total = sum(self._remember(value) for value in given)
        self._given = given  # so that no other object gets one of the known ids
        self.most = max(MAX_WEIGHT, GROWTH * total)
        self._left = MADE_IN_ALL * self.most
        self._deadline = time.thread_time() + MAX_RENDER_S

    def check_clock(self) -> None:
        """Raise TemplateError where the time is used up."""
        if time.thread_time() > self._deadline:
            raise jinja2.TemplateError(f"it ran longer than {MAX_RENDER_S:g} s")

    def check(self, weight: int) -> None:
        """Raise TemplateError where a value of that weight, yet to be made, is too much."""
        if weight > self.most:
            raise jinja2.TemplateError(f"it made a value of more than {self.most} characters or items")

    def spend(self, weight: int) -> None:
        """Count what was made."""
        self.check_clock()
        self.check(weight)
        self._left -= weight
        if self._left < 0:
            raise jinja2.TemplateError(f"its values have more than {MADE_IN_ALL * self.most} characters and items")

    def weigh(self, value: Any) -> int:
        """Characters and items of a value, all that is nested in it included, as often as it would be printed."""
        weight, waiting = 0, [value]
        while waiting:
            item = waiting.pop()
            if isinstance(item, str | bytes):
                weight += len(item) + 1
            elif (known := self._known.get(id(item))) is not None:
                weight += known
            else:
                weight += 1
                waiting += _items(item)
            if weight + len(waiting) > self.most:
                self.check(weight + len(waiting))
        return weight

    def _remember(self, value: Any) -> int:
        """The weight of what is given, kept for each container in it: a template asks for the chat again and again."""
        if isinstance(value, str | bytes):
            return len(value) + 1
        weight = 1 + sum(map(self._remember, _items(value)))
        if isinstance(value, dict | list | tuple):
            self._known[id(value)] = weight
        return weight


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset | KeysView | ValuesView | ItemsView):
        return value
    if isinstance(value, Namespace):
        return list(object.__getattribute__(value, "_Namespace__attrs").values())
    return ()


_current: ContextVar[Allowance | None] = ContextVar("allowance", default=None)


def begin(*given: Any) -> Allowance:
    """Start the rendering of a chat in this context: ``given`` is what the template reads."""
    allowance = Allowance(*given)
    _current.set(allowance)
    return allowance


def current() -> Allowance:
    """The allowance of the rendering that runs in this context."""
    return _current.get() or begin()
