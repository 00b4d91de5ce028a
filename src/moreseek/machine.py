"""What this machine is: for run.json, reports and `moreseek doctor`. No torch in here."""

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import moreseek

FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "asimd", "bf16")
PACKAGES = ("torch", "tokenizers", "safetensors", "transformers", "numpy", "reasoning-gym", "math-verify")


def describe_machine() -> dict[str, Any]:
    """CPU model, the flags that decide speed, cores we may use, memory in GB."""
    model, flags = _cpu_info()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": model,
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": cores,
        "memory_gb": memory_gb(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cache_folder() -> Path:
    """Where what was built or measured on this machine is kept; XDG_CACHE_HOME moves it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moreseek"


def _cpu_info() -> tuple[str, set[str]]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return platform.processor() or platform.machine(), set()
    model, flags = platform.machine(), set[str]()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags |= set(value.split())
            break
    return model, flags


def memory_gb() -> float | None:
    """Physical memory, None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):
        return None


def versions() -> dict[str, str]:
    """moreseek, Python and the packages that decide results."""
    found = {"moreseek": moreseek.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
