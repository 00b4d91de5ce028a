"""Faults stop a run with exit code 3: a message that says what to do, the last good checkpoint whole, nothing lost."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from moreseek.training.checkpoint import checkpoints, verify
from tests.e2e.conftest import Moreseek, assert_equal_runs, measured
from tests.e2e.forked import Command


def assert_fault(command: Command, *said: str) -> None:
    assert command.returncode == 3, command.stderr
    for text in said:
        assert text in command.stderr
    assert "Traceback" not in command.stderr


def assert_kept(stage: Path, *names: str) -> None:
    """Exactly these checkpoints, each whole, and nothing half-written beside them."""
    assert sorted(path.name for path in (stage / "checkpoints").iterdir()) == sorted(names)
    assert all(verify(path) is None for path in checkpoints(stage / "checkpoints"))


# --- two runs in one folder --------------------------------------------------------------------------------------


SLOW = """
import time
import moreseek.training.loop as loop
plain = loop.Loop._record
loop.Loop._record = lambda self, *rest: (plain(self, *rest), time.sleep(0.5))
"""


def test_a_run_folder_in_use_is_refused_and_the_process_named(
    recipe: Path, tmp_path: Path, start: Moreseek, moreseek: Moreseek
) -> None:
    run = ("run", recipe, "--dir", "run", "--stage", "base")
    first = start(*run, before=SLOW)
    try:
        first.until(measured(tmp_path / "run" / "01-base", 1))
        assert_fault(moreseek(*run), f"process {first.pid}", "--dir")
        assert "running" in moreseek("status", "run").stdout
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert "interrupted" in moreseek("status", "run").stdout
    assert moreseek(*run).returncode == 0  # the dead process's lock went with it


# --- verifiers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [("raises", "no such table"), ("hangs", "no value after 0.05 s"), ("not_a_number", "gave nan")],
)
def test_a_verifier_that_fails_is_counted_and_stops_the_run(
    name: str, said: str, base: Path, recipe: Path, moreseek: Moreseek
) -> None:
    rubric = f'zero.rubric=[{{name="mine",verifier="verifiers:{name}",timeout_s=0.05}}]'
    stopped = moreseek("run", recipe, "--dir", "run", "--set", rubric, "--set", "zero.prompts_per_step=1")
    assert_fault(stopped, "verifiers failed on 100%", said, "Mend the verifier")
    assert not (base / "02-zero" / "model").exists()


def test_a_verifier_that_fails_later_leaves_the_checkpoint_before_and_the_run_goes_on_when_it_is_mended(
    base: Path, recipe: Path, tmp_path: Path, moreseek: Moreseek
) -> None:
    rubric = 'zero.rubric=[{name="mine",verifier="verifiers:fails_later"}]'
    run = ("run", recipe, "--dir", "run", "--stage", "zero", "--set", rubric)
    assert_fault(moreseek(*run), "the service is gone", "16 of the last 16")
    assert_kept(base / "02-zero", "step-000003")
    (tmp_path / "verifiers.py").write_text((tmp_path / "verifiers.py").read_text().replace("> 16 * 4", "< 0"))
    again = moreseek(*run)
    assert again.returncode == 0, again.stderr
    assert "going on after step 3" in again.stderr


# --- numbers -----------------------------------------------------------------------------------------------------


def test_a_nan_stops_the_run_and_keeps_the_last_good_checkpoint(
    recipe: Path, tmp_path: Path, moreseek: Moreseek, uninterrupted: Path
) -> None:
    poison = (
        "import moreseek.training.pretrain as p\nplain = p.Pretrain.loss\ncalls = [0]\n"
        "def loss(self, batch):\n    calls[0] += 1\n    value, parts = plain(self, batch)\n"
        "    return (value * float('nan') if calls[0] == 10 else value), parts\np.Pretrain.loss = loss"
    )
    assert_fault(moreseek("run", recipe, "--dir", "run", before=poison), "step 10", "learning rate")
    assert_kept(tmp_path / "run" / "01-base", "step-000007")
    assert moreseek("run", recipe, "--dir", "run").returncode == 0
    assert_equal_runs(tmp_path / "run", uninterrupted)


def test_weights_that_are_no_numbers_never_reach_a_checkpoint(recipe: Path, tmp_path: Path, moreseek: Moreseek) -> None:
    """The loss before a step that ruins the weights is fine: only the weights show it when the step is saved."""
    lr = ("--set", "base.optimizer.lr=inf", "--set", "base.checkpoint_every_steps=1")
    assert_fault(moreseek("run", recipe, "--dir", "run", *lr), "step 1", "not finite", "--accept-changes")
    assert checkpoints(tmp_path / "run" / "01-base" / "checkpoints") == []
    lower = ("--set", "base.optimizer.lr=1e-3", "--accept-changes", "--stage", "base")
    assert moreseek("run", recipe, "--dir", "run", *lower).returncode == 0


# --- a full disk -------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk is not allowed here")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.parametrize("free_kib", [0, 8, 60, 150, 500, 800, 1300, 2600])
def test_a_full_disk_stops_the_run_and_it_goes_on_once_there_is_room(
    free_kib: int, recipe: Path, tmp_path: Path, small_disk: Path, moreseek: Moreseek, uninterrupted: Path
) -> None:
    """From no room at all to room for all but the last files: the disk fills up in another place each time."""
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - free_kib * 1024))
    assert_fault(moreseek("run", recipe, "--dir", "disk/run"), "disk is full")
    folders = list((small_disk / "run").glob("*/checkpoints/*"))
    assert all(verify(folder) is None for folder in folders)
    ballast.unlink()
    again = moreseek("run", recipe, "--dir", "disk/run")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(small_disk / "run", uninterrupted)
