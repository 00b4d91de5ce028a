"""In which precision a model answers fastest on this machine, and what it loses by it: measured once.

A CPU without AVX2 gains nothing from int8, one without AMX little from bf16, a small model little from either, and a
model whose activations have outliers may lose too much. So nothing is assumed: the model writes a text in fp32, and all
precisions are timed and score it.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from moreseek.engine.engine import Engine
from moreseek.engine.sampling import SamplingParams
from moreseek.machine import cache_folder, describe_machine
from moreseek.model.transformer import Transformer
from moreseek.native.bindings import usable
from moreseek.native.build import library
from moreseek.native.step import FORMATS, Precision
from moreseek.run_folder import write_json

Asked = Literal["auto", "fp32", "bf16", "int8"]

SMALLEST = 4_000_000
"""Parameters under which nothing is measured: such a model's time goes elsewhere."""
MOST_LOSS = 0.01  # of perplexity, relative
LEAST_GAIN = 1.1  # times faster, for one request and for ROWS
ROWS, WRITTEN, TIMED, ROUNDS = 8, 96, 8, 3


@dataclass(frozen=True)
class Trial:
    """A precision over fp32: tokens a second for one request and for ROWS of them, and perplexity."""

    alone: float
    together: float
    perplexity: float

    @property
    def pays(self) -> bool:
        return min(self.alone, self.together) >= LEAST_GAIN and self.perplexity <= 1 + MOST_LOSS

    @property
    def gain(self) -> float:
        return self.alone * self.together


@dataclass(frozen=True)
class Measured:
    """What was chosen and why."""

    precision: Precision
    model: str
    trials: dict[Precision, Trial]

    def __str__(self) -> str:
        found = (
            f"{name} is {trial.alone:.2f} times as fast as fp32 for one request and {trial.together:.2f} times for "
            f"{ROWS}, perplexity changes by {trial.perplexity - 1:+.2%}"
            for name, trial in self.trials.items()
        )
        return f"{self.precision}: {'; '.join(found)}"


def choose_precision(model: Transformer, asked: Asked = "auto") -> Precision:
    """``asked``, or for "auto" the faster of those that keep perplexity within 1 % of fp32's; measured when this
    machine first meets these weights (seconds), and known from then on.
    """
    if asked != "auto":
        return asked
    if model.size < SMALLEST or not usable(model.embed_tokens.weight):
        return "fp32"
    path = cache_folder() / f"precision-{_fingerprint(model)}.json"
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
    """What this machine has measured so far."""
    return [found for path in sorted(cache_folder().glob("precision-*.json")) if (found := _read(path)) is not None]


def _read(path: Path) -> Measured | None:
    """None where nothing readable is."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        trials = {name: Trial(**trial) for name, trial in found["trials"].items()}
        return Measured(found["precision"], found["model"], trials)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def measure(model: Transformer) -> Measured:
    """Time each precision, and let each score what the model wrote in fp32."""
    config = model.config
    start = config.bos_token_id if isinstance(config.bos_token_id, int) else next(iter(config.eos_ids), 0)
    engines: dict[Precision, Engine] = {name: Engine(model, ROWS, frozen=True, precision=name) for name in FORMATS}
    write = SamplingParams(max_tokens=min(WRITTEN, config.max_position_embeddings - 2), ignore_eos=True)
    texts = [[start, *c.token_ids] for c in engines["fp32"].generate([[start]] * ROWS, write)]
    loss = {name: _mean_loss(engine, texts) for name, engine in engines.items()}
    seconds: dict[tuple[Precision, int], float] = {}
    for _ in range(ROUNDS):  # interleaved: the machine's speed moves
        for name, engine in engines.items():
            for rows in (1, ROWS):
                spent = _seconds(engine, texts[:rows])
                seconds[name, rows] = min(spent, seconds.get((name, rows), math.inf))
    trials: dict[Precision, Trial] = {}
    for name in FORMATS[1:]:
        alone, together = (seconds["fp32", rows] / seconds[name, rows] for rows in (1, ROWS))
        ratio = math.exp(loss[name] - loss["fp32"])
        trials[name] = Trial(round(alone, 3), round(together, 3), round(ratio, 5))
    best: Precision = "fp32"
    for name, trial in trials.items():
        if trial.pays and (best == "fp32" or trial.gain > trials[best].gain):
            best = name
    return Measured(best, f"{config.model_type}, {model.size / 1e6:.0f}M parameters", trials)


def _mean_loss(engine: Engine, texts: list[list[int]]) -> float:
    """Nats a token, of all but the first token of each text."""
    scored = engine.generate(texts, SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=True))
    losses = [
        -shown[token]
        for text, completion in zip(texts, scored, strict=True)
        for token, shown in zip(text, completion.prompt_logprobs or [], strict=True)
        if shown is not None
    ]
    return sum(losses) / len(losses)


def _seconds(engine: Engine, texts: list[list[int]]) -> float:
    """To write TIMED tokens behind each text, whose own reading is kept from the first time on."""
    room = engine.context - len(texts[0]) - 1
    params = SamplingParams(temperature=0, max_tokens=max(1, min(TIMED, room)), ignore_eos=True)
    started = time.perf_counter()
    engine.generate(texts, params)
    return time.perf_counter() - started


def _fingerprint(model: Transformer) -> str:
    """Of the architecture, a sample of every weight, the CPU, the threads and the kernels."""
    machine = describe_machine()
    shape = model.config.model_dump(mode="json")
    facts = [machine["cpu"], machine["flags"], torch.get_num_threads(), Path(library()._name).name, shape]
    text = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for sample in model.samples():
        text.update(sample)
    return text.hexdigest()[:16]
