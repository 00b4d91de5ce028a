"""Importing torch without the collector's help."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_at_rest() -> Iterator[None]:
    """While this lasts, Python's garbage collector rests. Importing torch makes 300,000 objects, all of which stay, and
    walking them again and again is a sixth of the time.
    """
    resting = not gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if not resting:
            if not gc.get_freeze_count():  # else somebody has frozen things, and means it
                gc.freeze()
                gc.unfreeze()  # both together: what is there counts as old, and is walked when old things are
            gc.enable()
