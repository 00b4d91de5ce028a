"""Wrong input and faults: a message that says what to do, a non-zero exit, nothing lost."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from moreseek.training.checkpoint import checkpoints, verify
from tests.e2e.conftest import Run, command, environment, metrics, weights

VERIFIERS = """
import time
from moreseek.rewards.verifier import with_examples
examples = with_examples(lambda problem: (["right"], ["wrong"]))
@examples
def raises(problem, completion):
    if completion in ("right", "wrong"): return float(completion == "right")
    raise RuntimeError("no such table")
@examples
def hangs(problem, completion):
    if completion in ("right", "wrong"): return float(completion == "right")
    while True: time.sleep(0.01)
def always_right(problem, completion):
    return 1.0
"""


@pytest.fixture
def base(recipe: Path, tmp_path: Path, moreseek: Run) -> Path:
    """A run whose base stage is finished."""
    result = moreseek("run", recipe, "--dir", "run", "--stage", "base", "--set", "base.evaluate=false")
    assert result.returncode == 0, result.stderr
    return tmp_path / "run"


def test_a_typo_in_a_key_gets_did_you_mean(recipe: Path, moreseek: Run) -> None:
    result = moreseek("run", recipe, "--set", "zero.group_sice=4")
    assert result.returncode == 2
    assert "group_sice" in result.stderr
    assert "Did you mean 'group_size'?" in result.stderr


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('method = "grpo"', 'method = "grop"', "Did you mean 'grpo'?"),
        ("[eval]", "[evl]", "Did you mean 'eval'?"),
        ('start_from = "base"', 'start_from = "bse"', "Did you mean 'base'?"),
        ("steps = 30", "steps = ", "not valid TOML"),
        ("steps = 30", 'steps = "many"', "steps"),
        ("steps = 30", "", "key 'steps' is missing"),
    ],
)
def test_a_wrong_recipe_is_explained(before: str, after: str, said: str, recipe: Path, moreseek: Run) -> None:
    recipe.write_text(recipe.read_text().replace(before, after, 1))
    result = moreseek("run", recipe)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_malformed_problem_file_is_named_with_its_line(
    base: Path, recipe: Path, tmp_path: Path, moreseek: Run
) -> None:
    (tmp_path / "sums.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n{"prompt": "1+2=", "answer": 3}\n')
    result = moreseek("eval", base, "--problems", "sums.jsonl")
    assert result.returncode == 2
    assert "sums.jsonl:2: answer" in result.stderr
    assert "no such file" in moreseek("eval", base, "--problems", "gone.jsonl").stderr


def test_a_checkpoint_whose_shapes_do_not_fit_is_refused(base: Path, moreseek: Run) -> None:
    folder = base / "01-base" / "model"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 65}))
    (folder / "manifest.json").unlink()
    result = moreseek("eval", base, "--problems", "reasoning-gym:chain_sum", "--count", "1", "--k", "1")
    assert result.returncode == 2
    assert "do not fit config.json" in result.stderr
    assert "gate_proj.weight is (64, 32), config.json asks for (65, 32)" in result.stderr


def test_a_damaged_start_model_is_refused_and_named(base: Path, recipe: Path, moreseek: Run) -> None:
    path = base / "01-base" / "model" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = moreseek("run", recipe, "--dir", "run", "--set", "base.evaluate=false")
    assert result.returncode == 2
    assert "model.safetensors was damaged" in result.stderr


def test_a_pickle_is_refused_with_the_reason(base: Path, moreseek: Run) -> None:
    folder = base / "01-base" / "model"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    result = moreseek("eval", str(folder), "--problems", "reasoning-gym:chain_sum", "--count", "1", "--k", "1")
    assert result.returncode == 2
    assert "is a pickle" in result.stderr


def test_a_tokenizer_that_does_not_fit_the_model_is_refused(base: Path, moreseek: Run) -> None:
    folder = base / "01-base" / "model"
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if tensor.shape[0] == 264:
            tensors[name] = tensor[:200].clone()
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 200}))
    result = moreseek("chat", str(folder), stdin="1+1=\n")
    assert result.returncode == 2
    assert "tokenizer" in result.stderr


def test_a_run_folder_in_use_is_refused(recipe: Path, tmp_path: Path, moreseek: Run) -> None:
    process = subprocess.Popen(
        command("run", recipe, "--dir", "run", "--set", "base.steps=100000"),
        cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not (tmp_path / "run" / "run.json").is_file():
            assert process.poll() is None
            time.sleep(0.01)
        result = moreseek("run", recipe, "--dir", "run")
    finally:
        process.kill()
        process.wait()
    assert result.returncode == 3
    assert f"process {process.pid}" in result.stderr
    assert "--dir" in result.stderr


def test_a_half_done_stage_with_other_settings_is_refused_with_the_difference(
    recipe: Path, tmp_path: Path, moreseek: Run
) -> None:
    stop = "import moreseek.training.loop as l\nl.Loop.run = lambda *a: (_ for _ in ()).throw(KeyboardInterrupt)"
    assert moreseek("run", recipe, "--dir", "run", before=stop).returncode == 130
    result = moreseek("run", recipe, "--dir", "run", "--set", "base.batch_size=8")
    assert result.returncode == 2
    assert "batch_size: 4 → 8" in result.stderr
    assert "--accept-changes" in result.stderr
    accepted = moreseek(
        "run", recipe, "--dir", "run", "--set", "base.batch_size=8", "--accept-changes", "--stage", "base"
    )
    assert accepted.returncode == 0, accepted.stderr


@pytest.mark.parametrize("name", ["raises", "hangs"])
def test_a_verifier_that_fails_is_counted_and_stops_the_run(
    name: str, base: Path, recipe: Path, tmp_path: Path, moreseek: Run
) -> None:
    (tmp_path / "mine.py").write_text(VERIFIERS)
    rubric = f'zero.rubric=[{{name="mine",verifier="mine:{name}",timeout_s=0.05}}]'
    result = moreseek("run", recipe, "--dir", "run", "--set", rubric, "--set", "base.evaluate=false")
    assert result.returncode == 3, result.stderr
    assert "verifiers failed on" in result.stderr
    assert ("no such table" if name == "raises" else "no value after") in result.stderr


def test_a_verifier_that_cannot_tell_right_from_wrong_is_refused_before_step_1(
    base: Path, recipe: Path, tmp_path: Path, moreseek: Run
) -> None:
    (tmp_path / "mine.py").write_text(VERIFIERS)
    rubric = 'zero.rubric=[{name="mine",verifier="mine:always_right"}]'
    result = moreseek("run", recipe, "--dir", "run", "--set", rubric, "--set", "base.evaluate=false")
    assert result.returncode == 2
    assert "mine:always_right" in result.stderr
    assert not (base / "02-zero" / "metrics.jsonl").exists()


def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(recipe: Path, tmp_path: Path, moreseek: Run) -> None:
    poison = (
        "import moreseek.training.pretrain as p\nplain = p.Pretrain.loss\ncalls = [0]\n"
        "def loss(self, batch):\n    calls[0] += 1\n    value, parts = plain(self, batch)\n"
        "    return (value * float('nan') if calls[0] == 10 else value), parts\np.Pretrain.loss = loss"
    )
    result = moreseek("run", recipe, "--dir", "run", before=poison)
    assert result.returncode == 3
    assert "step 10" in result.stderr
    kept = checkpoints(tmp_path / "run" / "01-base" / "checkpoints")
    assert [path.name for path in kept] == ["step-000007"]
    assert verify(kept[0]) is None


def test_a_full_disk_keeps_the_older_checkpoint_and_the_run_goes_on_later(
    recipe: Path, tmp_path: Path, moreseek: Run
) -> None:
    full = (
        "import errno\nimport moreseek.training.checkpoint as c\nplain = c.save_file\ncalls = [0]\n"
        "def save(*a, **k):\n    calls[0] += 1\n    if calls[0] == 2: raise OSError(errno.ENOSPC, 'No space left')\n"
        "    return plain(*a, **k)\nc.save_file = save"
    )
    result = moreseek("run", recipe, "--dir", "run", before=full)
    assert result.returncode == 3
    assert "disk is full" in result.stderr
    assert [path.name for path in checkpoints(tmp_path / "run" / "01-base" / "checkpoints")] == ["step-000007"]
    assert moreseek("run", recipe, "--dir", "run").returncode == 0
    assert moreseek("run", recipe, "--dir", "whole").returncode == 0
    assert metrics(tmp_path / "run", "02-zero") == metrics(tmp_path / "whole", "02-zero")
    assert weights(tmp_path / "run", "02-zero") == weights(tmp_path / "whole", "02-zero")
