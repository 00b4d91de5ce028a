"""Memory for what every step reads from end to end: weights and the cache."""

import mmap
import sys
from contextlib import suppress

import torch
from torch import Tensor

NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)  # Python names it since 3.13


def fresh_pages(size: int) -> Tensor:
    """(size,) uint8 zeros of the operating system's own: memory is taken only as it is written, and where Linux grants
    them in pages of 2 MB. A core that looks up 4 KB pages reads half as fast (LOG.md).
    """
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.frombuffer(mmap.mmap(-1, size), dtype=torch.uint8)
    # Shared memory gets no large pages. Without a reservation a cache may be larger than what it will ever hold.
    private = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | NORESERVE)
    with suppress(OSError):  # a kernel without them
        private.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(private, dtype=torch.uint8)
