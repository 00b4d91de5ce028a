"""Commands as processes of their own that start in milliseconds.

Importing torch, its optimizers and matplotlib takes longer than a micro run. One process imports them once and forks
a child for every command: the child is a real process (it can be killed, it has its own signals, locks and exit
code) whose command line goes through ``moreseek.cli.main`` like any other. The process that forks must stay free of
threads, because a fork copies only one of them.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class Forks:
    """The process that forks, and the requests to it: one JSON line each way."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from tests.e2e.forked import serve; serve()"], text=True, cwd=ROOT,
            env={**environment, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request, default=str) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Command:
    """One started command. ``returncode`` is as in subprocess: negative for the signal that ended it."""

    def __init__(self, forks: Forks, folder: Path, arguments: list[str], before: str, stdin: str) -> None:
        self._forks = forks
        self.returncode: int | None = None
        number = len(list(folder.glob(".command-*.in")))
        self._files = {kind: folder / f".command-{number}.{kind}" for kind in ("in", "out", "err")}
        self._files["in"].write_text(stdin, encoding="utf-8")
        files = list(self._files.values())
        self.pid: int = forks.ask(do="start", arguments=arguments, before=before, folder=folder, files=files)

    @property
    def stdout(self) -> str:
        return self._files["out"].read_text(encoding="utf-8")

    @property
    def stderr(self) -> str:
        return self._files["err"].read_text(encoding="utf-8")

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._forks.ask(do="poll", pid=self.pid)
        return self.returncode

    def wait(self, timeout_s: float = 240.0) -> int:
        """The exit code. A command that hangs is killed and fails the test."""
        deadline = time.monotonic() + timeout_s
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise TimeoutError(f"no end after {timeout_s:.0f} s:\n{self.stderr}")
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def until(self, reached: Callable[[], bool]) -> None:
        """Wait for something that the command does. Fails where it ends before that."""
        while not reached():
            assert self.poll() is None, f"the command ended too early:\n{self.stderr}"
            time.sleep(0.001)

    def stop_when(self, reached: Callable[[], bool], number: int) -> int:
        """Send a signal as soon as ``reached()``; the exit code."""
        self.until(reached)
        self.send_signal(number)
        return self.wait()


def serve() -> None:
    """Import what commands need, then fork for each request until stdin ends."""
    _warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        answer = _start(request) if request["do"] == "start" else _poll(request["pid"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _warm_up() -> None:
    import matplotlib.backends.backend_svg
    import matplotlib.figure  # noqa: F401
    import torch

    import moreseek.cli.chat
    import moreseek.cli.evaluate
    import moreseek.evals.page
    import moreseek.recipes.runner  # noqa: F401

    torch.set_num_threads(1)
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])  # the first one imports much more
    gc.collect()
    gc.freeze()  # or every child's collector goes through, and so copies, all that was imported


def _start(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        _child(request)
    return pid


def _poll(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _child(request: dict[str, Any]) -> None:
    """Become the command; never returns."""
    code = 1
    try:
        os.chdir(request["folder"])
        flags = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number, (name, flag) in enumerate(zip(request["files"], flags, strict=True)):
            os.dup2(os.open(name, flag, 0o644), number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.argv = ["moreseek", *request["arguments"]]
        exec(request["before"], {"__name__": "before"})
        from moreseek.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
