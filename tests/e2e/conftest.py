"""A recipe of the main job's shape, small enough to run in a second, and ways to run it as users do."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.forked import ROOT, Command, Forks

# Everything that a resume must carry is in it: EMA, MTP, router biases, Muon, a reference model that is refreshed,
# two epochs of two minibatches, and so few training problems that their order is drawn anew in most steps.
MICRO = """
[run]
name = "micro"
seed = 3
threads = 1
precision = "fp32"
[problems]
source = "moreseek.data.arithmetic:problems"
settings = { max_operand = 9, max_operations = 3 }
[eval]
problems = 10
k = 2
max_completion_tokens = 16
[[stage]]
name = "base"
method = "pretrain"
steps = 30
sequence_length = 64
batch_size = 4
checkpoint_every_steps = 7
bias_step = 0.01
ema_decay = 0.5
documents = [{ source = "moreseek.data.arithmetic:documents", settings = { max_operand = 9, max_operations = 3 } }]
[stage.tokenizer]
vocab_size = 264
training_documents = 200
[stage.model]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 8
n_routed_experts = 4
moe_intermediate_size = 16
num_nextn_predict_layers = 1
max_position_embeddings = 256
[stage.optimizer]
name = "muon"
warmup_steps = 3
decay_share = 1.0
[[stage]]
name = "zero"
method = "grpo"
start_from = "base"
steps = 8
problem_count = 10
prompts_per_step = 4
group_size = 4
max_completion_tokens = 16
checkpoint_every_steps = 3
epochs = 2
minibatches = 2
kl_weight = 0.01
reference_refresh_steps = 4
bias_step = 0.01
[[stage.rubric]]
name = "answer"
[[stage.rubric]]
name = "length"
verifier = "verifiers:length"
[stage.optimizer]
lr = 1e-3
"""

# A model that has learned nothing is never right, and equal rewards move no weight: ``length`` makes them differ.
VERIFIERS = """
import time
from moreseek.rewards.verifier import with_examples
examples = with_examples(lambda problem: (["right"], ["wrong"]))

@with_examples(lambda problem: (["abc"], [""]))
def length(problem, completion):
    return (len(completion) % 4) / 3

@examples
def raises(problem, completion):
    if completion in ("right", "wrong"):
        return float(completion == "right")
    raise RuntimeError("no such table")

@examples
def hangs(problem, completion):
    if completion in ("right", "wrong"):
        return float(completion == "right")
    while True:
        time.sleep(0.01)

@examples
def not_a_number(problem, completion):
    return float(completion == "right") if completion in ("right", "wrong") else float("nan")

calls = 0
@examples
def fails_later(problem, completion):
    global calls
    calls += completion not in ("right", "wrong")
    if calls > 16 * 4:
        raise RuntimeError("the service is gone")
    return float(completion == "right") if completion in ("right", "wrong") else len(completion) % 2

def always_right(problem, completion):
    return 1.0
"""

# Charts take as long as the micro run itself. `uninterrupted`, whose report tests look at, has them.
WITHOUT_CHARTS = "import moreseek.evals.plots\nmoreseek.evals.plots._svg = lambda figure, name, alt: '<svg></svg>'\n"

Moreseek = Callable[..., Command]


def environment() -> dict[str, str]:
    own = {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0", "COLUMNS": "200", "PYTHONPATH": str(ROOT / "src")}
    return os.environ | own


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    server = Forks(environment())
    yield server
    server.close()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


def write_recipe(folder: Path) -> Path:
    (folder / "verifiers.py").write_text(VERIFIERS)
    path = folder / "micro.toml"
    path.write_text(MICRO)
    return path


@pytest.fixture
def start(forks: Forks, tmp_path: Path) -> Moreseek:
    """Start a command in the test's folder. ``before`` is Python that runs first, to plant a fault."""

    def begin(*arguments: str | Path, before: str = "", stdin: str = "") -> Command:
        return Command(forks, tmp_path, [str(argument) for argument in arguments], WITHOUT_CHARTS + before, stdin)

    return begin


@pytest.fixture
def moreseek(start: Moreseek) -> Moreseek:
    """Run a command in the test's folder to its end."""

    def run(*arguments: str | Path, before: str = "", stdin: str = "") -> Command:
        command = start(*arguments, before=before, stdin=stdin)
        command.wait()
        return command

    return run


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of the micro recipe that nothing disturbed, made by a process started as users start it."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    code = "from moreseek.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", code, "run", write_recipe(folder), "--dir", "run"],
        cwd=folder, env=environment(), check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    return folder / "run"


@pytest.fixture
def base(uninterrupted: Path, recipe: Path, tmp_path: Path) -> Path:
    """A run in the test's folder whose base stage is finished and whose RL has not begun."""
    shutil.copytree(uninterrupted, tmp_path / "run", ignore=shutil.ignore_patterns("02-zero", "report.*"))
    return tmp_path / "run"


def measured(stage: Path, steps: int) -> Callable[[], bool]:
    """A question: has this stage measured so many steps?"""
    log = stage / "metrics.jsonl"
    return lambda: log.is_file() and log.read_bytes().count(b"\n") >= steps


def metrics(run: Path, stage: str, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """A stage's metrics without what a clock decides."""
    lines = (run / stage / file).read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith("_s")} for line in lines]


def weights(run: Path, stage: str) -> bytes:
    return (run / stage / "model" / "model.safetensors").read_bytes()


def result(run: Path, stage: str) -> dict[str, Any]:
    found = json.loads((run / stage / "eval.json").read_text())
    return {key: value for key, value in found.items() if not key.endswith("_s")}


def assert_equal_runs(run: Path, reference: Path) -> None:
    """Bit for bit: the weights as bytes; losses, rewards, samples and results as numbers."""
    for stage in ("01-base", "02-zero"):
        assert metrics(run, stage) == metrics(reference, stage), stage
        assert weights(run, stage) == weights(reference, stage), stage
        assert result(run, stage) == result(reference, stage), stage
    assert metrics(run, "02-zero", "samples.jsonl") == metrics(reference, "02-zero", "samples.jsonl")
