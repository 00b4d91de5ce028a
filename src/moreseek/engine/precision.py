"""In which precision a model answers fastest on this machine, and what it loses by it: measured once.

A CPU without AVX2 gains nothing from int8, one without AMX little from bf16, a small model little from either, and a
model whose activations have outliers may lose too much. So nothing is assumed: all precisions are timed, and those that
are faster are compared with fp32 token by token, over a text that the model writes.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from moreseek.engine.engine import Engine
from moreseek.engine.sampling import SamplingParams
from moreseek.machine import cache_folder, describe_machine
from moreseek.model.transformer import Transformer
from moreseek.native.bindings import kernels, usable
from moreseek.native.build import library
from moreseek.native.step import FORMATS, Precision
from moreseek.run_folder import write_json

Asked = Literal["auto", "fp32", "bf16", "int8"]

SMALLEST = 4_000_000
"""Parameters under which nothing is measured: such a model's time goes elsewhere."""
MOST_LOSS = 0.01  # of perplexity, relative
LEAST_GAIN = 1.1  # times faster, the geometric mean of one request and ROWS
MOST_SLOWER = 0.95  # times as fast, whichever of the two
ROWS, WRITTEN, TIMED, ROUNDS = 8, 64, 8, 3


@dataclass(frozen=True)
class Trial:
    """A precision over fp32: tokens a second for one request and for ROWS of them, and the perplexity of what fp32
    writes. None: it is not faster, so that nobody asked.
    """

    alone: float
    together: float
    perplexity: float | None = None

    @property
    def pays(self) -> bool:
        return self.perplexity is not None and self.perplexity <= 1 + MOST_LOSS

    @property
    def gain(self) -> float:
        return math.sqrt(self.alone * self.together)

    @property
    def faster(self) -> bool:
        return self.gain >= LEAST_GAIN and min(self.alone, self.together) >= MOST_SLOWER

    def __str__(self) -> str:
        speed = f"{self.alone:.2f} times as fast as fp32 for one request and {self.together:.2f} times for {ROWS}"
        return speed if self.perplexity is None else f"{speed}, perplexity changes by {self.perplexity - 1:+.2%}"


@dataclass(frozen=True)
class Measured:
    """What was chosen and why."""

    precision: Precision
    model: str
    trials: dict[Precision, Trial]

    def __str__(self) -> str:
        return f"{self.precision}: " + "; ".join(f"{name} is {trial}" for name, trial in self.trials.items())


def choose_precision(model: Transformer, asked: Asked = "auto") -> Precision:
    """``asked``, or for "auto" the faster of those that keep perplexity within 1 % of fp32's; measured when this
    machine first meets these weights (seconds), and known from then on.
    """
    if asked != "auto":
        return asked
    if model.embed_tokens.weight.dtype == torch.bfloat16:
        return "bf16"
    if model.size < SMALLEST or not usable(model.embed_tokens.weight):
        return "fp32"
    path = cache_folder() / f"{_here()}-{_fingerprint(model)}.json"
    measured = _read(path)
    if measured is None:
        print("measuring which precision is fast here (once for this model: seconds)…", file=sys.stderr, flush=True)
        measured = measure(model)
        print(str(measured), file=sys.stderr, flush=True)
        with suppress(OSError):  # a cache that cannot be written costs seconds the next time, nothing else
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, asdict(measured))
    return measured.precision


def known() -> list[Measured]:
    """What this machine has measured so far with as many threads and the same kernels."""
    return [found for path in sorted(cache_folder().glob(f"{_here()}-*.json")) if (found := _read(path)) is not None]


def _read(path: Path) -> Measured | None:
    """None where nothing readable is."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["precision"] not in FORMATS:
            return None
        trials = {name: Trial(**trial) for name, trial in found["trials"].items()}
        return Measured(found["precision"], found["model"], trials)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def measure(model: Transformer) -> Measured:
    """Time each precision, and ask what those that are faster make of what the model writes in fp32."""
    config = model.config
    start = config.bos_token_id if isinstance(config.bos_token_id, int) else next(iter(config.eos_ids), 0)
    starts = [[(start + row) % config.vocab_size] for row in range(ROWS)]  # several: experts differ by the token
    exact, texts = Engine(model, ROWS, frozen=True), list[list[int]]()
    trials: dict[Precision, Trial] = {}
    for name in candidates():
        engine = Engine(model, ROWS, frozen=True, precision=name)  # the only one beside fp32's: they take memory
        trial = _race(exact, engine, starts)
        if trial.faster:
            texts = texts or _write(exact, starts)
            trial = replace(trial, perplexity=round(math.exp(_divergence(exact, engine, texts)), 5))
        trials[name] = trial
    paying: dict[Precision, float] = {name: trial.gain for name, trial in trials.items() if trial.pays}
    best: Precision = max(paying, key=lambda name: paying[name]) if paying else "fp32"
    return Measured(best, f"{config.model_type}, {model.size / 1e6:.0f}M parameters", trials)


def candidates() -> list[Precision]:
    """What may be faster than fp32. Without AMX's tiles bf16 is not, for more than one request."""
    return ["bf16", "int8"] if kernels().native_tiles() else ["int8"]


def _race(exact: Engine, engine: Engine, starts: list[list[int]]) -> Trial:
    """In turns, since the machine's speed moves; the best time of each."""
    seconds: dict[tuple[Engine, int], float] = {}
    for _ in range(ROUNDS):
        for one in (exact, engine):
            for rows in (1, ROWS):
                spent = _seconds(one, starts[:rows])
                seconds[one, rows] = min(spent, seconds.get((one, rows), math.inf))
    alone, together = (round(seconds[exact, rows] / seconds[engine, rows], 3) for rows in (1, ROWS))
    return Trial(alone, together)


def _write(engine: Engine, starts: list[list[int]]) -> list[list[int]]:
    params = SamplingParams(max_tokens=min(WRITTEN, engine.context - 2), ignore_eos=True)
    written = engine.generate(starts, params)
    return [[*start, *completion.token_ids] for start, completion in zip(starts, written, strict=True)]


def _divergence(exact: Engine, engine: Engine, texts: list[list[int]]) -> float:
    """Nats a token that ``engine`` misses of what ``exact`` writes: KL(exact ‖ engine), the mean over all places.

    It is what the loss of such texts grows by on average. The loss of the tokens themselves, of one draw each, moves by
    half a percent from text to text where this moves by a twentieth (LOG.md).
    """
    found = []
    for text in texts:
        expected, got = _logprobs(exact, text), _logprobs(engine, text)
        found.append((expected.exp() * (expected - got)).sum(-1))
    return float(torch.cat(found).mean())


def _logprobs(engine: Engine, text: list[int]) -> Tensor:
    """Of every next token after each place but the last: (n - 1, V)."""
    sequence = engine.add(text, SamplingParams(max_tokens=1, prompt_logprobs=True))
    engine.scheduler.budget = max(engine.scheduler.budget, len(text))  # all of it in one step
    step = engine.scheduler.schedule()
    assert step is not None
    logits, _ = engine.runner.logits(step)
    engine.abort(sequence)
    return logits[len(step.output) :].log_softmax(-1)


def _seconds(engine: Engine, texts: list[list[int]]) -> float:
    """To write TIMED tokens behind each text."""
    params = SamplingParams(temperature=0, max_tokens=max(1, min(TIMED, engine.context - 2)), ignore_eos=True)
    started = time.perf_counter()
    engine.generate(texts, params)
    return time.perf_counter() - started


def _here() -> str:
    """How records begin that hold here: by the CPU, the threads, the kernels, and by this file's limits."""
    machine, limits = describe_machine(), [LEAST_GAIN, MOST_SLOWER, MOST_LOSS]
    facts = [machine["cpu"], machine["flags"], torch.get_num_threads(), Path(library()._name).name, limits]
    return f"precision-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]}"


def _fingerprint(model: Transformer) -> str:
    """Of the architecture and a sample of every weight."""
    text = hashlib.sha256(json.dumps(model.config.model_dump(mode="json"), sort_keys=True).encode())
    for sample in model.samples():
        text.update(sample)
    return text.hexdigest()[:16]
