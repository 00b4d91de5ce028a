"""The one place that decides device, precision, threads and the allocator."""

import ctypes
import gc
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def choose_device() -> torch.device:
    """The machine's accelerator, whatever its maker, else the CPU."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator or torch.device("cpu")


def sampling_device() -> torch.device:
    """Where `chat` and `serve` run a model: a CUDA or ROCm GPU, else the CPU, whose native kernels and int8 other
    accelerators would first have to beat.
    """
    device = choose_device()
    return device if device.type == "cuda" else torch.device("cpu")


def set_threads(threads: int | None) -> int:
    """Pin torch's threads (results are bit-equal only for the same number). Default: one a core that we may use."""
    count = threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else threads or os.cpu_count()
    torch.set_num_threads(count or 1)
    return count or 1


def keep_freed_memory() -> None:
    """Tell glibc's malloc to keep what is freed.

    By default every large tensor is a fresh mmap whose pages the kernel zeroes again at every step; keeping them
    takes about 8 % off a training step on a CPU. A no-op elsewhere than Linux with glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, 2**31 - 1)
    except (OSError, AttributeError):
        pass  # another libc: slower, not wrong


def calm_collector() -> None:
    """Take everything alive out of the garbage collector's rounds; a training step makes enough objects to cause some.

    Walking what the imports left (some 300,000 objects) costs up to 3 % of a small model's step.
    """
    gc.collect()
    gc.freeze()


@lru_cache
def measured_matmul_gflops(dtype: torch.dtype, size: int = 512, device: str = "cpu") -> float:
    """Best of a few matrix products, in GFLOP/s. Takes about 20 ms."""
    a = torch.ones(size, size, dtype=dtype, device=device)
    best = float("inf")
    for _ in range(6):
        start = time.perf_counter()
        torch.mm(a, a)
        if device != "cpu":
            torch.accelerator.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best / 1e9


def choose_precision(wanted: Precision, device: torch.device) -> torch.dtype:
    """bf16 only where it is measured to be at least 1.5 × as fast as fp32 (AMX, GPUs), unless asked for by name."""
    if wanted != "auto":
        return torch.bfloat16 if wanted == "bf16" else torch.float32
    fast = measured_matmul_gflops(torch.bfloat16, device=device.type)
    plain = measured_matmul_gflops(torch.float32, device=device.type)
    return torch.bfloat16 if fast > 1.5 * plain else torch.float32


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager[Any]:
    """In which a model's passes run."""
    return nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)
