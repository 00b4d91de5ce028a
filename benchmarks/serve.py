"""What the server costs over its engine: tokens a second of 32 concurrent streams, and the first token of one client.

    python benchmarks/serve.py [--rounds 2] [--steps 3] [--models dense tiny_v3]        (the models need transformers)

The engine in a process of its own with all requests at once, against `moreseek serve` and a client that reads bytes, in
turns; both greedy, fp32, one thread of kernels. Prompts have 64 tokens and completions 128; for the first token the
prompt has 1024, against reading it in process. Every repetition has new prompts, so that no prefix is known. Both must
write the same texts. Server and client are processes beside each other, so the clock is the wall's: the machine needs
two cores, and must be quiet.
"""

import sys

from harness.compare import BENCHMARKS, Side, machine, make_models, parse_args, show, verdict

STREAMS, PROMPT, WRITTEN, LONG_PROMPT = 32, 64, 128, 1024
SHARE, FIRST_TOKEN = 0.9, 0.77  # of the engine's tokens a second; of the prefill (1.3 times as long)


def sides(model: str, steps: int, rounds: int, batch: int, prompt: int, written: int) -> tuple[Side, Side]:
    """The server and the engine, run in turns."""
    options = ["--model", str(make_models() / model), "--batch", str(batch), "--prompt-tokens", str(prompt)]
    options += ["--new-tokens", str(written), "--steps", str(steps)]
    script = str(BENCHMARKS / "harness" / "serve_step.py")
    server, engine = (Side(name, [sys.executable, script, "--side", name, *options]) for name in ("server", "engine"))
    for number in range(rounds):
        for side in (server, engine) if number % 2 == 0 else (engine, server):
            side.run()
    if server.runs[0]["output"] != engine.runs[0]["output"]:
        raise SystemExit(f"{model}: the server's texts are not the engine's: this compares two different things.")
    return server, engine


def measure(model: str, rounds: int, steps: int) -> list[str]:
    server, engine = sides(model, steps, rounds, STREAMS, PROMPT, WRITTEN)
    tokens = STREAMS * WRITTEN
    ours, peer = (tokens / side.median("seconds_per_step") for side in (server, engine))
    lines = [
        verdict(
            f"serve_{model}_c{STREAMS}", ours, peer, "the engine in process", ours / peer, SHARE, unit="tokens/s",
            clock="wall", first_token_ms=round(1e3 * server.median("first_token_s"), 3),
        )
    ]  # fmt: skip
    server, engine = sides(model, 5 * steps, rounds, 1, LONG_PROMPT, 1)
    ours, peer = 1e3 * server.median("first_token_s"), 1e3 * engine.median("seconds_per_step")
    name = f"serve_{model}_first_token"
    return [
        *lines,
        verdict(name, ours, peer, "the engine's prefill", peer / ours, FIRST_TOKEN, unit="ms", clock="wall"),
    ]


def main() -> None:
    args = parse_args(__doc__, rounds=2, steps=3)
    show(machine())
    show("\n".join(line for model in args.models for line in measure(model, args.rounds, args.steps)))


if __name__ == "__main__":
    main()
