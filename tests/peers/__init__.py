"""Peers in environments of their own (`make peers`), asked from tests: calls and answers are lines of JSON."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
VLLM = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1"}


def peer_python(name: str) -> Path:
    """The interpreter of .peers/NAME; skips the test where `make peers` has not built it."""
    python = ROOT / ".peers" / name / "bin" / "python"
    if not python.is_file():
        pytest.skip(f".peers/{name} is not there: make peers")
    return python


class Peer:
    """tests/peers/run_NAME.py (or another script), running in .peers/NAME."""

    def __init__(self, name: str, *, script: str | None = None, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        command = [peer_python(name), Path(__file__).parent / (script or f"run_{name}.py")]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"} | (environment or {}),
        )  # fmt: skip

    def ask(self, call: str, **values: Any) -> Any:
        """What the program's function of that name gives for the values."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"call": call, "values": values}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "it ended"}
        if "error" in answer:
            self._log.seek(0)
            pytest.fail(f"{self.name}: {call}: {answer['error']}\n{self._log.read()[-4000:]}")
        return answer["value"]

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()
