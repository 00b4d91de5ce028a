"""One side of benchmarks/serve.py: the same requests to an engine in this process, or to a server beside it.

    python benchmarks/harness/serve_step.py --side engine|server --model FOLDER --batch 32

Prints one JSON line: wall seconds of each repetition, those to the first token of each stream (server), and the texts.
"""

import argparse
import asyncio
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from moreseek.engine.llm import LLM
from moreseek.engine.sampling import SamplingParams

Answer = tuple[float, str]  # seconds to the first token, and the text


def prompts(args: argparse.Namespace, repetition: int) -> list[list[int]]:
    rng = random.Random(repetition)
    return [[rng.randrange(20, 4096) for _ in range(args.prompt_tokens)] for _ in range(args.batch)]


def engine_side(args: argparse.Namespace) -> Callable[[list[list[int]]], list[Answer]]:
    llm = LLM(args.model, args.batch, "fp32")
    params = SamplingParams(temperature=0, max_tokens=args.new_tokens, ignore_eos=True)

    def generate(asked: list[list[int]]) -> list[Answer]:
        found = llm.engine.generate(asked, params)
        ends = set(llm.tokenizer.eos_ids)  # no text to a server, whether or not they end it
        written = [[token for token in completion.token_ids if token not in ends] for completion in found]
        return [(0.0, llm.tokenizer.decode(tokens)) for tokens in written]

    return generate


class Client:
    """Streams over connections that stay open; what comes is only looked into once all of it is there."""

    def __init__(self, address: str, args: argparse.Namespace) -> None:
        parts = urlsplit(address)
        self.host, self.port, self.args = parts.hostname or "", parts.port or 0, args
        self.connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, number: int, prompt: list[int]) -> Answer:
        settings = {"temperature": 0, "max_tokens": self.args.new_tokens, "ignore_eos": True, "stream": True}
        body = json.dumps({"model": "served", "prompt": prompt} | settings).encode()
        reader, writer = self.connections[number]
        started = time.perf_counter()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        first, parts, end = 0.0, list[bytes](), b""
        while b"\r\n0\r\n\r\n" not in end:
            parts.append(await reader.read(65536))
            if not parts[-1]:
                raise SystemExit(f"the server ended a stream: {b''.join(parts)[-500:]!r}")
            end = end[-8:] + parts[-1]
            if not first and b"data: " in parts[-1]:
                first = time.perf_counter() - started
        events = re.findall(rb"data: (\{.*\})\n", b"".join(parts))
        return first, "".join(json.loads(event)["choices"][0]["text"] for event in events)

    async def all(self, asked: list[list[int]]) -> list[Answer]:
        while len(self.connections) < len(asked):
            self.connections.append(await asyncio.open_connection(self.host, self.port))
        return await asyncio.gather(*(self.ask(number, prompt) for number, prompt in enumerate(asked)))


def serve(args: argparse.Namespace) -> tuple[subprocess.Popen[str], str]:
    """The server's process and address, once its model is loaded."""
    code = "from moreseek.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", f"served={args.model}", "--port", "0", "--precision", "fp32"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    address = ""
    for line in process.stderr:
        if (found := re.search(r"at (http://\S+)/v1", line)) is not None:
            address = found.group(1)
        if "is ready" in line:
            return process, address
    raise SystemExit("the server ended before it had loaded its model")


def timed(args: argparse.Namespace, work: Callable[[list[list[int]]], list[Answer]]) -> dict[str, object]:
    wall, cpu, first, output = list[float](), list[float](), list[float](), list[str]()
    for repetition in range(args.steps + 1):
        asked = prompts(args, repetition)
        started, spent = time.perf_counter(), time.process_time()
        answers = work(asked)
        if repetition:  # the first one is to warm up
            wall.append(round(time.perf_counter() - started, 4))
            cpu.append(round(time.process_time() - spent, 4))
            first += [round(seconds, 5) for seconds, _ in answers]
            output += [text for _, text in answers]
    return {"seconds_per_step": wall, "cpu_seconds_per_step": cpu, "first_token_s": first, "output": output}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--side", choices=["engine", "server"], required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=32, help="requests at once")
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--steps", type=int, default=3, help="measured repetitions, after one to warm up")
    args = parser.parse_args()
    if args.side == "engine":
        print(json.dumps(timed(args, engine_side(args))))
        return
    process, address = serve(args)
    try:
        with asyncio.Runner() as events:
            client = Client(address, args)
            print(json.dumps(timed(args, lambda asked: events.run(client.all(asked)))))
    finally:
        process.terminate()
        process.communicate()


if __name__ == "__main__":
    main()
