"""What takes long to make, kept for a while."""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any


class Lasting:
    """Safe to ask from several threads: who comes while something is made waits for it."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        self._kept: dict[Hashable, tuple[float, Any]] = {}

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What was made under this key, unless it is too old."""
        with self._lock:
            now = time.monotonic()
            made, found = self._kept.get(key, (-self._seconds, None))
            if found is None or now - made > self._seconds:
                found = make()
                self._kept[key] = now, found
            return found
