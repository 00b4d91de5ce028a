"""A run that was killed and started again equals the run that was left alone, bit for bit."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from moreseek.training.checkpoint import checkpoints
from tests.e2e.conftest import Moreseek, assert_equal_runs, measured, metrics, weights

DIE = "import os, signal\ndie = lambda: os.kill(os.getpid(), signal.SIGKILL)\n"

# Each kills the process at one exact place: {n} counts how often that place was passed.
PLACES = {
    "half of a checkpoint's files are written": DIE + """
import moreseek.training.checkpoint as place
plain, count = place.save_tensors, [0]
def dying(tensors, path, *rest, **more):
    count[0] += 1
    if count[0] == {n}:
        plain(dict(list(tensors.items())[:1]), path)
        die()
    return plain(tensors, path, *rest, **more)
place.save_tensors = dying
""",
    "a checkpoint is complete but not yet renamed": DIE + """
import pathlib
plain, count = pathlib.Path.rename, [0]
def dying(self, target):
    count[0] += self.name.startswith(".writing-step-")
    if count[0] == {n}:
        die()
    return plain(self, target)
pathlib.Path.rename = dying
""",
    "a step is measured but its checkpoint not begun": DIE + """
import moreseek.training.loop as place
plain, count = place.Loop._save, [0]
def dying(self):
    count[0] += 1
    if count[0] == {n}:
        die()
    plain(self)
place.Loop._save = dying
""",
    "a stage's model is written but its record is not": DIE + """
import moreseek.recipes.runner as place
plain, count = place.train_stage, [0]
def dying(*arguments, **more):
    loop = plain(*arguments, **more)
    count[0] += 1
    if count[0] == {n}:
        die()
    return loop
place.train_stage = dying
""",
}  # fmt: skip


@pytest.mark.parametrize(("stage", "step"), [("01-base", 4), ("01-base", 17), ("02-zero", 4), ("02-zero", 7)])
def test_resume_after_kill_9_equals_the_uninterrupted_run(
    stage: str, step: int, recipe: Path, tmp_path: Path, start: Moreseek, moreseek: Moreseek, uninterrupted: Path
) -> None:
    killed = start("run", recipe, "--dir", "run").stop_when(measured(tmp_path / "run" / stage, step), signal.SIGKILL)
    assert killed == -signal.SIGKILL
    again = moreseek("run", recipe, "--dir", "run")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize(
    ("place", "n"),
    [
        ("half of a checkpoint's files are written", 1),
        ("half of a checkpoint's files are written", 4),
        ("half of a checkpoint's files are written", 7),
        ("a checkpoint is complete but not yet renamed", 2),
        ("a checkpoint is complete but not yet renamed", 6),
        ("a step is measured but its checkpoint not begun", 3),
        ("a step is measured but its checkpoint not begun", 8),
        ("a stage's model is written but its record is not", 1),
        ("a stage's model is written but its record is not", 2),
    ],
)
def test_resume_after_a_kill_where_it_hurts_most_equals_the_uninterrupted_run(
    place: str, n: int, recipe: Path, tmp_path: Path, moreseek: Moreseek, uninterrupted: Path
) -> None:
    killed = moreseek("run", recipe, "--dir", "run", before=PLACES[place].replace("{n}", str(n)))
    assert killed.returncode == -signal.SIGKILL
    again = moreseek("run", recipe, "--dir", "run")
    assert again.returncode == 0, again.stderr
    assert_equal_runs(tmp_path / "run", uninterrupted)


def test_a_run_that_is_killed_again_and_again_still_arrives(
    recipe: Path, tmp_path: Path, moreseek: Moreseek, uninterrupted: Path
) -> None:
    """Every process dies at its 29th fsync, wherever that is: in tokens, checkpoints, models or records."""
    before = DIE + (
        "plain, count = os.fsync, [0]\n"
        "def dying(file):\n    count[0] += 1\n    count[0] == 29 and die()\n    plain(file)\nos.fsync = dying"
    )
    codes = []
    while not codes or codes[-1] == -signal.SIGKILL:
        codes.append(moreseek("run", recipe, "--dir", "run", before=before).returncode)
        assert len(codes) < 20, "no progress"
    assert codes[-1] == 0
    assert len(codes) > 3
    assert_equal_runs(tmp_path / "run", uninterrupted)


def test_a_kill_while_metrics_are_cut_back_loses_none_of_them(
    recipe: Path, tmp_path: Path, start: Moreseek, moreseek: Moreseek, uninterrupted: Path
) -> None:
    """Steps 8 to 10 are measured again after the kill; the lines before them must outlive a second kill."""
    start("run", recipe, "--dir", "run").stop_when(measured(tmp_path / "run" / "01-base", 10), signal.SIGKILL)
    torn = DIE + (
        "import pathlib\n"
        "def dying(self, *rest, **more):\n    self.open('w').close()\n    die()\npathlib.Path.write_text = dying"
    )
    moreseek("run", recipe, "--dir", "run", before=torn)
    assert moreseek("run", recipe, "--dir", "run").returncode == 0
    assert_equal_runs(tmp_path / "run", uninterrupted)


def test_resume_at_an_epochs_end_equals_the_uninterrupted_run(
    recipe: Path, tmp_path: Path, start: Moreseek, moreseek: Moreseek
) -> None:
    """A corpus of a few documents, read several times over: killed after each of its checkpoints."""
    documents = tmp_path / "corpus.txt"
    documents.write_text("\n\n".join(f"{a}+{b}={a + b}" for a in range(9) for b in range(9)))
    settings = ("--stage", "base", "--set", f'base.documents=[{{source="file",path="{documents}"}}]',
                "--set", "base.steps=12", "--set", "base.checkpoint_every_steps=1",
                "--set", "base.evaluate=false")  # fmt: skip
    assert moreseek("run", recipe, "--dir", "whole", *settings).returncode == 0
    for step in (1, 3, 5, 7, 9, 11):
        reached = measured(tmp_path / "run" / "01-base", step)
        start("run", recipe, "--dir", "run", *settings).stop_when(reached, signal.SIGKILL)
    assert moreseek("run", recipe, "--dir", "run", *settings).returncode == 0
    assert metrics(tmp_path / "run", "01-base") == metrics(tmp_path / "whole", "01-base")
    assert weights(tmp_path / "run", "01-base") == weights(tmp_path / "whole", "01-base")
    assert epoch_at_the_end(tmp_path / "whole" / "01-base") >= 2


@pytest.mark.parametrize(("number", "stage", "step"), [(signal.SIGTERM, "01-base", 10), (signal.SIGINT, "02-zero", 2)])
def test_a_stop_finishes_the_step_saves_it_and_goes_on_later(
    number: int, stage: str, step: int, recipe: Path, tmp_path: Path, start: Moreseek, moreseek: Moreseek,
    uninterrupted: Path,
) -> None:  # fmt: skip
    stopped = start("run", recipe, "--dir", "run")
    assert stopped.stop_when(measured(tmp_path / "run" / stage, step), number) == 130
    assert "The same command goes on" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    steps = metrics(tmp_path / "run", stage)[-1]["step"]
    assert checkpoints(tmp_path / "run" / stage / "checkpoints")[-1].name == f"step-{steps:06d}"
    assert moreseek("run", recipe, "--dir", "run").returncode == 0
    assert_equal_runs(tmp_path / "run", uninterrupted)


@pytest.mark.parametrize(
    ("place", "moment"),
    [
        ("loop.Loop._record", "self.step == 30"),  # a stage's last step
        ("loop.load_latest", "True"),  # preparing
    ],
)
def test_a_stop_at_any_moment_ends_with_130_and_loses_nothing(
    place: str, moment: str, recipe: Path, tmp_path: Path, moreseek: Moreseek, uninterrupted: Path
) -> None:
    owner, name = f"moreseek.training.{place}".rsplit(".", 1)
    before = (
        f"import os, signal\nimport moreseek.training.loop\nplain = {owner}.{name}\n"
        f"def stopping(self, *rest):\n    if {moment}:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
        f"    return plain(self, *rest)\n{owner}.{name} = stopping"
    )
    stopped = moreseek("run", recipe, "--dir", "run", before=before)
    assert stopped.returncode == 130, stopped.stderr
    assert not (tmp_path / "run" / "02-zero").exists()
    assert moreseek("run", recipe, "--dir", "run").returncode == 0
    assert_equal_runs(tmp_path / "run", uninterrupted)


def test_a_stop_during_an_evaluation_ends_with_130_and_loses_nothing(
    base: Path, recipe: Path, tmp_path: Path, moreseek: Moreseek, uninterrupted: Path
) -> None:
    before = (
        "import os, signal\nimport moreseek.recipes.runner as r\nplain = r.evaluate\n"
        "def stopping(*rest):\n    os.kill(os.getpid(), signal.SIGTERM)\n    return plain(*rest)\nr.evaluate = stopping"
    )
    stopped = moreseek("run", recipe, "--dir", "run", before=before)
    assert stopped.returncode == 130, stopped.stderr
    assert not (base / "02-zero" / "eval.json").exists()
    assert moreseek("run", recipe, "--dir", "run").returncode == 0
    assert_equal_runs(tmp_path / "run", uninterrupted)


def test_a_damaged_newest_checkpoint_is_passed_over_for_the_one_before(
    base: Path, recipe: Path, tmp_path: Path, moreseek: Moreseek, uninterrupted: Path
) -> None:
    killed = PLACES["a stage's model is written but its record is not"].replace("{n}", "1")
    moreseek("run", recipe, "--dir", "run", before=killed)
    shutil.rmtree(base / "02-zero" / "model")
    newest = checkpoints(base / "02-zero" / "checkpoints")[-1]
    data = bytearray((newest / "training.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (newest / "training.safetensors").write_bytes(data)
    again = moreseek("run", recipe, "--dir", "run")
    assert again.returncode == 0, again.stderr
    assert f"{newest.name}: training.safetensors was damaged" in again.stderr.replace("\n", "")
    assert_equal_runs(tmp_path / "run", uninterrupted)


def test_the_micro_run_learns_so_that_equality_means_something(uninterrupted: Path) -> None:
    """Equal rewards would give no gradient, and then any resume would look exact."""
    steps = metrics(uninterrupted, "02-zero")
    assert all(step["groups_without_signal"] < 1 and step["grad_norm"] > 0 for step in steps)
    assert weights(uninterrupted, "02-zero") != weights(uninterrupted, "01-base")


def epoch_at_the_end(stage: Path) -> int:
    newest = checkpoints(stage / "checkpoints")[-1]
    return json.loads((newest / "state.json").read_text())["method"]["loader"]["epoch"]
