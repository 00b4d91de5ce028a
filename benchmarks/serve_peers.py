"""Our server beside llama.cpp's and vLLM's on SmolLM2-135M, with load by an outsider: `vllm bench serve`.

    python benchmarks/serve_peers.py [--peers llama vllm] [--clients 1 8 32] [--rounds 2] [--new-tokens 128]
                                     (needs `make peers` and `make smollm2`; about half an hour on two cores)

Each server in its best precision (ours what `serve` takes by itself, llama.cpp Q8_0, vLLM bf16), two threads, one after
the other in turns; the client shares the two cores with each of them. It sends chats with 64 random tokens through
/v1/chat/completions, streamed and greedy, so many at a time, and wants 128 tokens of each whatever they are. No prompt
comes twice, so that no prefix is known. Every request has to be answered with all its tokens. The clock is the wall's:
the machine must be quiet.

One JSON line a peer and number of clients: tokens a second, and in milliseconds the median and the 99th percentile of
the first token (the client takes the first chunk for it: ours comes with the first token, as theirs do) and of the time
between two tokens.
"""

import argparse
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from generate import folder_of, gguf_of
from harness.compare import BENCHMARKS, ROOT, machine, show, verdict

PEERS = ROOT / ".peers"
VLLM = PEERS / "vllm" / "bin" / "python"
VLLM_CLI = [str(VLLM), str(BENCHMARKS / "peers" / "vllm_cli.py")]
PROMPT, THREADS, MOST_CLIENTS = 64, "2", 32
CONTEXT = 1024  # of one request; the chat template adds some tokens to the prompt
ROUNDS_OF_CLIENTS = {1: 6, 8: 3, 32: 2}  # requests of one client in a measured load
LATENCIES = {"first_token_ms": "ttft", "between_tokens_ms": "itl"}
GOAL, ANSWERED = 1.0, 0.8
SETTINGS = {
    "OMP_NUM_THREADS": THREADS, "MKL_NUM_THREADS": THREADS, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1",
}  # fmt: skip


@dataclass
class Server:
    """One of the three, and what was measured of it by the number of clients."""

    name: str
    command: list[str]
    found: dict[int, list[dict[str, float]]] = field(default_factory=dict)

    def median(self, clients: int, key: str) -> float:
        return statistics.median(run[key] for run in self.found[clients])


def servers(peers: list[str]) -> list[Server]:
    """Ours first. Each listens on the port that stands for PORT."""
    folder, common = str(folder_of("smollm2")), ["--port", "PORT", "--host", "127.0.0.1"]
    code = "from moreseek.cli import main; main()"
    found = [Server("moreseek", [sys.executable, "-c", code, "serve", f"served={folder}", *common])]
    if "llama" in peers:
        program, file = _there(PEERS / "llama-server" / "bin" / "llama-server"), str(gguf_of("smollm2", "q8_0"))
        places = ["--parallel", str(MOST_CLIENTS), "--ctx-size", str(MOST_CLIENTS * CONTEXT), "--no-cache-prompt"]
        threads = ["--threads", THREADS, "--threads-batch", THREADS]
        found.append(Server("llama.cpp", [program, "--model", file, "--alias", "served", *places, *threads, *common]))
    if "vllm" in peers:
        limits = ["--max-model-len", str(CONTEXT), "--max-num-seqs", str(MOST_CLIENTS), "--dtype", "bfloat16"]
        command = [*VLLM_CLI, "serve", folder, "--served-model-name", "served", *limits, *common]
        found.append(Server("vllm", [*command, "--no-enable-prefix-caching"]))
    return found


def _there(program: Path) -> str:
    if not program.is_file():
        raise SystemExit(f"{program.relative_to(ROOT)} is missing: run `make peers` first.")
    return str(program)


@contextmanager
def running(server: Server) -> Iterator[str]:
    """Its address, once it has answered a chat; its processes are gone afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [part.replace("PORT", str(port)) if part == "PORT" else part for part in server.command]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env=os.environ | SETTINGS, stdout=log, stderr=log, start_new_session=True, cwd=ROOT
        )
        try:
            _wait(f"http://127.0.0.1:{port}", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)  # vLLM's engine is a process of its own
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(address: str, process: subprocess.Popen[bytes], log: Any, seconds: float = 1_200) -> None:
    body = {"model": "served", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(request, timeout=60).read()
        except OSError:
            time.sleep(0.5)
        else:
            return
    log.seek(0)
    raise SystemExit(f"the server did not begin: {log.read()[-3000:]}")


def load(address: str, clients: int, requests: int, new_tokens: int, seed: int) -> dict[str, float]:
    """What the outsider measured. Raises SystemExit where requests were not answered, but for a few: llama.cpp's
    server closes connections that the client is about to use again. Those count neither as tokens nor as requests.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *VLLM_CLI, "bench", "serve", "--backend", "openai-chat", "--base-url", address, "--endpoint",
            "/v1/chat/completions", "--model", "served", "--tokenizer", str(folder_of("smollm2")), "--dataset-name",
            "random", "--random-input-len", str(PROMPT), "--random-output-len", str(new_tokens), "--num-prompts",
            str(requests), "--max-concurrency", str(clients), "--ignore-eos", "--temperature", "0", "--seed", str(seed),
            "--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99", "--disable-tqdm", "--save-result",
            "--result-dir", folder, "--result-filename", "result.json",
        ]  # fmt: skip
        done = subprocess.run(command, env=os.environ | SETTINGS, capture_output=True, text=True)
        file = Path(folder) / "result.json"
        if done.returncode or not file.is_file():
            raise SystemExit(f"vllm bench serve ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
        result = json.loads(file.read_text(encoding="utf-8"))
    answered = result["completed"]
    written, wanted = result["total_output_tokens"], answered * new_tokens
    # The client counts tokens by encoding the text again, which random text does not always survive.
    if answered < ANSWERED * requests or not 0.9 * wanted <= written <= 1.1 * wanted:
        raise SystemExit(f"{address}: {answered} of {requests} answers, {written} of {wanted} tokens.")
    found = {"tokens_per_s": wanted / result["duration"], "unanswered": requests - answered}
    for name, theirs in LATENCIES.items():
        found |= {f"{name}_p50": result[f"p50_{theirs}_ms"], f"{name}_p99": result[f"p99_{theirs}_ms"]}
    return found


def measure(all_servers: list[Server], clients: list[int], rounds: int, new_tokens: int) -> None:
    seed = 0
    for number in range(rounds):
        for server in all_servers if number % 2 == 0 else reversed(all_servers):
            with running(server) as address:
                load(address, max(clients), max(clients), min(16, new_tokens), seed := seed + 1)  # to warm up
                for count in clients:
                    requests = count * ROUNDS_OF_CLIENTS.get(count, 2)
                    found = load(address, count, requests, new_tokens, seed := seed + 1)
                    server.found.setdefault(count, []).append(found)
                    show(f"  {server.name}, {count} clients: {json.dumps({k: round(v, 1) for k, v in found.items()})}")


def lines(ours: Server, peers: list[Server], clients: list[int]) -> Iterator[str]:
    for peer in peers:
        for count in clients:
            speed, theirs = (server.median(count, "tokens_per_s") for server in (ours, peer))
            more = {
                key: [round(server.median(count, key), 2) for server in (ours, peer)]
                for key in ours.found[count][0]
                if key != "tokens_per_s"
            }
            name = f"serve_smollm2_c{count}_{re.sub('[^a-z]', '', peer.name)}"
            yield verdict(
                name, speed, theirs, peer.name, speed / theirs, GOAL, unit="tokens/s", clock="wall", threads=2, **more
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", nargs="+", default=["llama", "vllm"], choices=["llama", "vllm"])
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=2, help="times that each server is started, in turns")
    parser.add_argument("--new-tokens", type=int, default=128)
    args = parser.parse_args()
    _there(VLLM)
    show(machine())
    ours, *peers = all_servers = servers(args.peers)
    measure(all_servers, args.clients, args.rounds, args.new_tokens)
    show("\n".join(lines(ours, peers, args.clients)))


if __name__ == "__main__":
    main()
