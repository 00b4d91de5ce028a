"""Compile csrc/ once per machine and source, and load it.

The library lies in the user's cache under a name that holds the sources, the compiler, its flags and the CPU, so that
neither an upgrade nor a home folder shared by different machines ever loads the wrong one.
"""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from moreseek.machine import cache_folder, describe_machine

SOURCES = Path(__file__).parent / "csrc"
COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-O3", "-march=native", "-std=c++17", "-fPIC", "-shared",
    "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-freciprocal-math",
)  # fmt: skip
OPTIONAL = ("-fopenmp-simd", "-mprefer-vector-width=512")  # each taken where the compiler knows it
TIMEOUT_S = 300


class UnavailableError(Exception):
    """Why there are no native kernels here."""


@lru_cache
def library() -> ctypes.CDLL:
    """The kernels, compiled if need be. Raises UnavailableError, always with the same reason in one process."""
    if os.environ.get("MORESEEK_NATIVE") == "0":
        raise UnavailableError("switched off by MORESEEK_NATIVE=0")
    compiler = find_compiler()
    path = cache_folder() / f"native-{_fingerprint(compiler)}.so"
    if path.is_file():
        with suppress(OSError):  # cut off, say by a loss of power: compiled anew
            return ctypes.CDLL(str(path))
    _compile(compiler, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"the compiled kernels do not load: {error}") from None


def find_compiler() -> tuple[str, ...]:
    """The command of a C++ compiler: CXX, the system's, or zig's (PyPI: ziglang). Raises UnavailableError."""
    wanted = os.environ.get("CXX")
    for name in (wanted,) if wanted else COMPILERS:
        found = shutil.which(name)
        if found is not None:
            return (found,)
    try:
        import ziglang  # pyright: ignore[reportMissingImports] # noqa: F401
    except ImportError:
        raise UnavailableError(
            "no C++ compiler: install one (Debian: apt install g++) or `pip install ziglang`, and training and "
            "sampling on this CPU get faster"
        ) from None
    return (sys.executable, "-m", "ziglang", "c++")


def _fingerprint(compiler: tuple[str, ...]) -> str:
    machine = describe_machine()
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=False).stdout
    facts = repr((compiler, version, FLAGS, OPTIONAL, machine["cpu"], machine["flags"], machine["system"]))
    text = hashlib.sha256(facts.encode())
    for source in sorted(SOURCES.iterdir()):
        text.update(source.read_bytes())
    return text.hexdigest()[:16]


def _compile(compiler: tuple[str, ...], path: Path) -> None:
    """Compile beside ``path`` and rename, so that two processes at once do no harm."""
    print(
        "building the native kernels (once on this machine: seconds, or a minute with zig)…",
        file=sys.stderr,
        flush=True,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as room:
            flags = [*FLAGS, *(flag for flag in OPTIONAL if _knows(compiler, flag, room))]
            sources = [str(source) for source in sorted(SOURCES.glob("*.cpp"))]
            target = Path(room) / path.name
            run = subprocess.run(
                [*compiler, *flags, *sources, "-o", str(target)],
                capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
            if run.returncode != 0:
                raise UnavailableError(f"{compiler[0]} failed: {run.stderr.strip()[-500:]}")
            target.replace(path)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{compiler[0]} took more than {TIMEOUT_S} s") from None
    except OSError as error:
        raise UnavailableError(f"could not build in {path.parent}: {error}") from None


def _knows(compiler: tuple[str, ...], flag: str, room: str) -> bool:
    source = Path(room) / "empty.cpp"
    source.write_text("int nothing() { return 0; }\n", encoding="utf-8")
    command = [*compiler, "-shared", "-fPIC", flag, str(source), "-o", str(Path(room) / "empty.so")]
    return subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False).returncode == 0
