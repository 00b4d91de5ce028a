"""What Prometheus reads at /metrics, in its text format: vLLM's names with our prefix, so that its dashboards fit."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from moreseek.engine.sequence import Sequence

if TYPE_CHECKING:
    from moreseek.server.models import Models

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LONG_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)


class Counter:
    """A number that only grows, for each set of labels."""

    kind = "counter"

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self.name, self.help, self.labels = f"moreseek:{name}", help, ("model_name", *labels)
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, by: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + by

    def lines(self) -> Iterator[str]:
        for labels, value in self.values.items():
            yield _line(self.name, zip(self.labels, labels, strict=True), value)


class Gauge(Counter):
    """A number that is set when it is asked for."""

    kind = "gauge"


class Histogram:
    """How many seconds things took, by model."""

    kind = "histogram"

    def __init__(self, name: str, help: str, bounds: tuple[float, ...]) -> None:
        self.name, self.help, self.bounds = f"moreseek:{name}", help, bounds
        self.counts: dict[str, list[int]] = {}
        self.sums: dict[str, float] = {}

    def observe(self, model: str, seconds: float) -> None:
        counts = self.counts.setdefault(model, [0] * (len(self.bounds) + 1))
        counts[bisect_left(self.bounds, seconds)] += 1
        self.sums[model] = self.sums.get(model, 0.0) + seconds

    def lines(self) -> Iterator[str]:
        for model, counts in self.counts.items():
            for bound, below in zip([*map(str, self.bounds), "+Inf"], accumulate(counts), strict=True):
                yield _line(f"{self.name}_bucket", [("model_name", model), ("le", bound)], below)
            yield _line(f"{self.name}_sum", [("model_name", model)], self.sums[model])
            yield _line(f"{self.name}_count", [("model_name", model)], sum(counts))


class Metrics:
    """The counters of one server."""

    def __init__(self) -> None:
        self.requests = Counter("requests_total", "Requests that were answered, by HTTP's status", "status")
        self.finished = Counter("request_success_total", "Completions that ended", "finished_reason")
        self.prompt_tokens = Counter("prompt_tokens_total", "Tokens of prompts")
        self.cached_tokens = Counter("prompt_tokens_cached_total", "Those of them that the cache held")
        self.written_tokens = Counter("generation_tokens_total", "Tokens that were written")
        self.first_token = Histogram("time_to_first_token_seconds", "From a request to its first token", LONG_S)
        self.between_tokens = Histogram("inter_token_latency_seconds", "Between two tokens", SHORT_S)
        self.whole = Histogram("e2e_request_latency_seconds", "From a request to its last token", LONG_S)

    def text(self, models: Models) -> str:
        """All of it, with the engines as they are now."""
        families = [value for value in vars(self).values() if isinstance(value, Counter | Histogram)]
        lines: list[str] = []
        for family in [*families, *engines(models)]:
            lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}", *family.lines()]
        return "\n".join(lines) + "\n"


class Meter:
    """Times one completion, from the moment that its request came."""

    def __init__(self, metrics: Metrics, model: str, begun: float) -> None:
        self.metrics, self.model, self.begun = metrics, model, begun
        self.started = self.first = self.last = begun  # by time.perf_counter: its turn, its first and its last token
        self._tokens = 0

    def start(self) -> None:
        """It is its turn."""
        self.started = self.first = time.perf_counter()

    def token(self) -> None:
        now = time.perf_counter()
        seconds = self.metrics.between_tokens if self._tokens else self.metrics.first_token
        seconds.observe(self.model, now - self.last)
        if not self._tokens:
            self.first = now
        self._tokens, self.last = self._tokens + 1, now

    def end(self, sequence: Sequence) -> None:
        """The completion has ended, for whatever reason."""
        metrics, model = self.metrics, self.model
        metrics.prompt_tokens.add(model, by=len(sequence.prompt))
        metrics.cached_tokens.add(model, by=sequence.reused)
        metrics.written_tokens.add(model, by=self._tokens)
        metrics.finished.add(model, sequence.finish_reason or "abort")
        metrics.whole.observe(model, time.perf_counter() - self.begun)


def engines(models: Models) -> list[Counter]:
    """What the schedulers say. Of a model that is loaded anew the counters begin anew."""
    families = {
        "running": Gauge("num_requests_running", "Completions that are being written"),
        "waiting": Gauge("num_requests_waiting", "Requests that wait for a place"),
        "usage": Gauge("kv_cache_usage_perc", "Share of the cache's blocks that running completions own, 0 to 1"),
        "used": Gauge("kv_cache_blocks_used", "Blocks that running completions own"),
        "free": Gauge("kv_cache_blocks_free", "Blocks that can be had, those with reusable prefixes too"),
        "loaded": Gauge("model_loaded", "1 while the model is loaded"),
        "crashes": Counter("engine_crashes_total", "How often the engine crashed; it is restarted once"),
        "preemptions": Counter("num_preemptions_total", "Completions that had to make room and were read again"),
        "queries": Counter("prefix_cache_queries_total", "Tokens of prompts that were looked for in the cache"),
        "hits": Counter("prefix_cache_hits_total", "Tokens of prompts that were found in the cache"),
        "drafts": Counter("spec_decode_num_draft_tokens_total", "Tokens that were guessed"),
        "accepted": Counter("spec_decode_num_accepted_tokens_total", "Tokens that were guessed right"),
    }
    for model in models.all:
        found: dict[str, float] = {"running": 0, "waiting": model.queue.waiting, "crashes": model.crashes}
        found["loaded"] = model.llm is not None
        if model.llm is not None:
            scheduler = model.llm.engine.scheduler
            blocks, most = scheduler.blocks, scheduler.blocks.count - 1  # the first one holds nothing
            used = most - blocks.free
            found |= {"running": len(scheduler.running), "used": used, "free": blocks.free, "usage": used / most}
            found["waiting"] += len(scheduler.waiting)
            found |= {"preemptions": scheduler.preemptions, "queries": scheduler.queries, "hits": scheduler.hits}
            found |= {"drafts": scheduler.guesses, "accepted": scheduler.guessed_right}
        for key, value in found.items():
            families[key].add(model.name, by=value)
    return list(families.values())


def _line(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{shown}}} {value:.12g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
