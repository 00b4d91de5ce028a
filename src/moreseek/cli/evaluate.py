"""`moreseek eval`."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from moreseek.config import parse
from moreseek.data.problems import ProblemSource
from moreseek.engine.engine import Engine
from moreseek.evals.run import evaluate
from moreseek.evals.tasks import EvalSettings
from moreseek.recipes.stages import load_pair
from moreseek.run_folder import resolve_model
from moreseek.training.device import choose_device, keep_freed_memory, set_threads
from moreseek.training.progress import counter


def evaluate_model(
    model: str, problems: str, *, k: int, count: int, max_tokens: int, temperature: float, system: str | None,
    prompt_template: str, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """The ``eval`` object of report.json for one model on one source of problems (all of a file's are used)."""
    keep_freed_memory()
    set_threads(None)
    console = Console(stderr=True)
    loaded, tokenizer = load_pair(resolve_model(model), choose_device())
    room = loaded.config.max_position_embeddings // 2
    if max_tokens > room:
        console.print(
            f"--max-tokens {max_tokens} is more than half of the model's context; using {room}", style="yellow"
        )
        max_tokens = room
    source = ProblemSource(source=problems)
    if ":" not in problems:
        source = ProblemSource(source="file", path=problems, settings={"all": True})
        count = min(count, _lines(Path(problems)))
    table = {
        "problems": count, "k": k, "max_completion_tokens": max_tokens, "temperature": temperature, "seed": seed,
        "system_prompt": system, "prompt_template": prompt_template,
    }  # fmt: skip
    settings = parse(EvalSettings, table, "moreseek eval")
    result = evaluate(Engine(loaded, frozen=True), tokenizer, source, settings, counter(console, "evaluating"))
    return {"model": model, "source": problems, **result}


def _lines(path: Path) -> int:
    """How many problems a file holds at most; a missing file is reported by the reader itself."""
    if not path.is_file():
        return 1
    with path.open("rb") as file:
        return max(1, sum(1 for line in file if line.strip()))


def print_result(result: dict[str, Any]) -> None:
    """A table for people."""
    table = Table(title=f"{result['model']} on {result['source']} ({result['problems']} problems)")
    for column in ("measure", "value", "95 % interval"):
        table.add_column(column)
    for key, label in (
        ("greedy", "greedy accuracy"), ("pass_at_1", "pass@1"), ("pass_at_k", f"pass@{result['k']}"),
        ("cons_at_k", f"cons@{result['k']}"),
    ):  # fmt: skip
        if result.get(key) and (result["k"] > 1 or not key.endswith("_k")):  # of one sample they say pass@1 again
            estimate = result[key]
            table.add_row(label, f"{estimate['value']:.1%}", f"{estimate['ci_low']:.1%} to {estimate['ci_high']:.1%}")
    table.add_row("mean length", f"{result['mean_completion_tokens']:.1f} tokens", "")
    Console().print(table)
