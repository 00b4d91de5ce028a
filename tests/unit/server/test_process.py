"""`moreseek serve` as a process: signals, what it says; and clients that leave, over real sockets."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import httpx
import pytest
import uvicorn
from tests.unit.server.serving import served
from tests.unit.server.test_metrics import of, read

from moreseek.cli import main
from moreseek.server.app import build_app

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}


def command(*arguments):
    code = "from moreseek.cli import main; main()"
    return [sys.executable, "-c", code, "serve", *map(str, arguments), "--port", "0"]


@contextmanager
def serving(*arguments):
    """The process and its address; ended, however the test ends."""
    process = subprocess.Popen(command(*arguments), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        while (found := re.search(r"at (http://\S+)/v1", lines[-1] if lines else "")) is None:
            lines.append(process.stderr.readline())
            assert lines[-1], f"it ended: {''.join(lines)}"
        yield process, found.group(1)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def folder(make_folder):
    return make_folder(["hello world, how are you"] * 5, 290, 4096)


def test_sigterm_lets_streams_end_refuses_new_requests_and_exits_with_0(folder):
    endless = {"model": "m", "prompt": "hello", "max_tokens": 3000, "ignore_eos": True, "stream": True}
    with serving(f"m={folder}") as (process, url), httpx.Client(base_url=url, timeout=120, trust_env=False) as http:
        with http.stream("POST", "/v1/completions", json=endless) as running:
            lines = running.iter_lines()
            assert json.loads(next(lines).removeprefix("data: "))["model"] == "m"
            process.send_signal(signal.SIGTERM)
            while (health := http.get("/health")).json()["status"] == "ok":
                pass
            assert (health.status_code, health.json()["status"]) == (503, "draining")
            refused = http.post("/v1/completions", json=endless)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
            assert refused.headers["retry-after"]
            rest = [line for line in lines if line]
            assert rest[-1] == "data: [DONE]"
            assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert process.wait(timeout=60) == 0


def test_what_cannot_be_served_is_said_and_ends_with_code_2(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(import_module("moreseek.cli.serve"), "_log", lambda: None)  # of this process
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    done = subprocess.run(command(tmp_path), env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "tokenizer" in done.stderr
    assert "Traceback" not in done.stderr
    for argument, word in ((tmp_path / "nothing", "neither a run"), (f"={folder}", "NAME=MODEL")):
        monkeypatch.setattr(sys, "argv", ["moreseek", *command(argument)[3:]])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr().err
        assert end.value.code == 2, said
        assert word in said
        assert "Traceback" not in said


@contextmanager
def over_sockets(app):
    """The application on a real port, in a thread."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()
    finally:
        server.should_exit = True
        thread.join()


def leave(address, body, read_first):
    """Send a request over a connection of its own and close it, after the first bytes of the answer or before."""
    raw = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: t\r\ncontent-length: {len(raw)}\r\n\r\n"
    with socket.create_connection(address, timeout=60) as connection:
        connection.sendall(head.encode() + raw)
        if read_first:
            text = b""
            while b"data: " not in text:
                text += connection.recv(4096)


def all_left(address, state, llm):
    """Wait for the last of them to be gone, then look whether anything is left."""
    with httpx.Client(base_url=f"http://{address[0]}:{address[1]}", timeout=60, trust_env=False) as http:
        while state.visits or llm.engine.scheduler.busy:
            assert http.get("/health").status_code == 200
        after = http.post("/v1/completions", json={"model": "tiny", "prompt": "hello", "max_tokens": 2})
        assert after.status_code == 200
        found = read(http.get("/metrics").text)
    blocks, queue = llm.engine.scheduler.blocks, state.models.first.queue
    assert of(found, "num_requests_running") == of(found, "num_requests_waiting") == 0
    assert of(found, "kv_cache_blocks_used") == 0
    assert blocks.free == blocks.count - 1
    assert (queue.running, queue.waiting, len(queue._keys), state.models.first.users) == (0, 0, 0, 0)
    assert not llm.loop._ends
    return found


@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_clients_that_leave_mid_stream_leave_nothing_behind(make_llm, count):
    llm = make_llm(["hello world, how are you"] * 5, 290, 4096)
    state = served(llm, running=4, queue=64)  # few places: some leave while they wait
    endless = {"model": "tiny", "prompt": "hello", "max_tokens": 4000, "ignore_eos": True}
    with over_sockets(build_app(state)) as address:
        for number in range(count):
            streamed = number % 4 != 3
            leave(address, endless | {"stream": streamed, "n": 1 + number % 3}, read_first=number % 2 == 0 and streamed)
        found = all_left(address, state, llm)
    statuses = {labels: value for (name, labels), value in found.items() if name == "moreseek:requests_total"}
    assert statuses == {'model_name="tiny",status="499"': count, 'model_name="tiny",status="200"': 1}
