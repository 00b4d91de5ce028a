"""The arena's ratings: blind votes in, an honest board out. No torch anywhere in here.

``moreseek.arena.ratings.bradley_terry(battles)`` is the way in from Python, ``moreseek arena leaderboard`` from a
shell.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moreseek.arena import ratings as ratings

_LAZY = ("ratings",)


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"moreseek.arena.{name}")
    raise AttributeError(f"module 'moreseek.arena' has no attribute '{name}'")
