"""A run that was killed and started again equals the run that was left alone, bit for bit."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Run, command, environment, metrics, weights

STAGES = ("01-base", "02-zero")
# Dies in the middle of writing the n-th checkpoint: some of its files are there, the manifest is not.
DIE_IN_SAVE = """
import os, signal
import moreseek.training.checkpoint as checkpoint
saved, count = checkpoint.save_file, [0]
def dying(tensors, path, *rest, **more):
    count[0] += 1
    if count[0] == {n}:
        saved(dict(list(tensors.items())[:1]), path)
        os.kill(os.getpid(), signal.SIGKILL)
    return saved(tensors, path, *rest, **more)
checkpoint.save_file = dying
"""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.e2e.conftest import MICRO

    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "micro.toml").write_text(MICRO)
    subprocess.run(
        command("run", "micro.toml", "--dir", "run"), cwd=folder, env=environment(), check=True, capture_output=True
    )
    return folder / "run"


def assert_equal(run: Path, reference: Path) -> None:
    for stage in STAGES:
        assert metrics(run, stage) == metrics(reference, stage), stage
        assert weights(run, stage) == weights(reference, stage), stage


@pytest.mark.parametrize(("stage", "step"), [("01-base", 4), ("01-base", 17), ("02-zero", 4)])
def test_resume_after_kill_9_equals_the_uninterrupted_run(
    stage: str, step: int, recipe: Path, tmp_path: Path, moreseek: Run, uninterrupted: Path
) -> None:
    log = tmp_path / "run" / stage / "metrics.jsonl"
    process = subprocess.Popen(
        command("run", recipe, "--dir", "run"), cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
    )
    while process.poll() is None:
        if log.is_file() and log.read_text().count("\n") >= step:
            process.kill()
            break
        time.sleep(0.002)
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"
    result = moreseek("run", recipe, "--dir", "run")
    assert result.returncode == 0, result.stderr
    assert_equal(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize("save", [1, 3, 6])
def test_resume_after_a_kill_during_a_save_equals_the_uninterrupted_run(
    save: int, recipe: Path, tmp_path: Path, moreseek: Run, uninterrupted: Path
) -> None:
    killed = moreseek("run", recipe, "--dir", "run", before=DIE_IN_SAVE.format(n=save))
    assert killed.returncode == -signal.SIGKILL
    result = moreseek("run", recipe, "--dir", "run")
    assert result.returncode == 0, result.stderr
    assert_equal(tmp_path / "run", uninterrupted)


def test_resume_at_an_epochs_end_equals_the_uninterrupted_run(tmp_path: Path, recipe: Path, moreseek: Run) -> None:
    """A corpus of a few documents, read many times over: every checkpoint lies near an epoch's end."""
    documents = tmp_path / "corpus.txt"
    documents.write_text("\n\n".join(f"{a}+{b}={a + b}" for a in range(5) for b in range(5)))
    overrides = [f'base.documents=[{{source="file",path="{documents}"}}]', "base.steps=12",
                 "base.checkpoint_every_steps=1", "base.evaluate=false"]  # fmt: skip
    arguments = [part for item in overrides for part in ("--set", item)]
    assert moreseek("run", recipe, "--dir", "whole", "--stage", "base", *arguments).returncode == 0
    for _ in range(4):
        before = DIE_IN_SAVE.format(n=3)
        moreseek("run", recipe, "--dir", "run", "--stage", "base", *arguments, before=before)
    assert moreseek("run", recipe, "--dir", "run", "--stage", "base", *arguments).returncode == 0
    assert metrics(tmp_path / "run", "01-base") == metrics(tmp_path / "whole", "01-base")
    assert weights(tmp_path / "run", "01-base") == weights(tmp_path / "whole", "01-base")


def test_sigterm_saves_the_step_and_the_run_goes_on_from_it(
    recipe: Path, tmp_path: Path, moreseek: Run, uninterrupted: Path
) -> None:
    log = tmp_path / "run" / "01-base" / "metrics.jsonl"
    process = subprocess.Popen(
        command("run", recipe, "--dir", "run"), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not (log.is_file() and log.read_text().count("\n") >= 10):
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate()
    assert process.returncode == 130
    assert "the same command goes on" in said.lower()
    stopped_at = log.read_text().count("\n")
    assert (tmp_path / "run" / "01-base" / "checkpoints" / f"step-{stopped_at:06d}" / "manifest.json").is_file()
    assert moreseek("run", recipe, "--dir", "run").returncode == 0
    assert_equal(tmp_path / "run", uninterrupted)
