"""A recipe of the main job's shape, small enough to run in seconds, and a way to run it as users do."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
max_completion_tokens = 24
[[stage]]
name = "base"
method = "pretrain"
steps = 30
sequence_length = 64
batch_size = 4
checkpoint_every_steps = 7
bias_step = 0.01
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
prompts_per_step = 4
group_size = 4
max_completion_tokens = 24
checkpoint_every_steps = 3
[stage.optimizer]
lr = 1e-3
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "micro.toml"
    path.write_text(MICRO)
    return path


def command(*arguments: str | Path, before: str = "") -> list[str]:
    """moreseek as a process of its own; ``before`` is Python run first, to plant a fault."""
    code = f"{before}\nfrom moreseek.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def environment() -> dict[str, str]:
    source = Path(__file__).parents[2] / "src"
    return os.environ | {"PYTHONPATH": str(source), "GOMP_SPINCOUNT": "0", "COLUMNS": "200"}


@pytest.fixture
def moreseek(tmp_path: Path) -> Run:
    """Run a command in the test's folder and return what it printed."""

    def run(*arguments: str | Path, before: str = "", stdin: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command(*arguments, before=before), env=environment(), cwd=tmp_path, input=stdin, capture_output=True,
            text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


def metrics(run: Path, stage: str) -> list[dict[str, Any]]:
    """A stage's metrics without what a clock decides."""
    lines = (run / stage / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.endswith("_s")} for line in lines]


def weights(run: Path, stage: str) -> bytes:
    return (run / stage / "model" / "model.safetensors").read_bytes()
