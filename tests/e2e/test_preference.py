"""The flywheel: votes in an arena's database become pairs, a stage trains on them, and what it learned is measured."""

import json
import signal
import time
from pathlib import Path

import pytest

from moreseek.arena.store import battles, registry, voters, votes
from moreseek.arena.store.database import open_database
from tests.e2e.conftest import Moreseek, measured, metrics, weights
from tests.unit.arena.site.test_store import RULES

RECIPE = """
[run]
name = "flywheel"
threads = 1
precision = "fp32"
[[stage]]
name = "preferred"
method = "preference"
start_from = "run/base"
data = "pairs.jsonl"
epochs = 4
pairs_per_step = 16
sequence_length = 64
checkpoint_every_steps = 3
heldout_every_steps = 5
ema_decay = 0.5
nll_weight = 0.05
mtp_weight = 0.3
bias_step = 0.01
[stage.optimizer]
lr = 1e-3
"""


def vote(folder: Path) -> None:
    """An arena in which people like a worked answer better than one that gives up."""
    database = open_database(str(folder / "arena.sqlite"), create=True, with_secret=True)
    now = time.time()
    with database.write() as connection:
        registry.enter(connection, [registry.Entry(name, "base", "f", name, None, {}) for name in "ab"], now)
        for number in range(90):
            prompt, voter = f"{number}+1=", voters.find_or_add(connection, f"voter {number % 9}", now)
            new = battles.NewBattle(voter.id, "", 1, 2, False, 0.5, "sums", "other", prompt, prompt)
            name = battles.begin(connection, new, now)
            worked = battles.Answer(str(number + 1), f"{number}+1={number + 1}", 9, 9, 0.1, 0.1, None, False, None)
            gives_up = battles.Answer("?" * (1 + number % 3), "", 9, 9, 0.1, 0.1, None, number % 3 == 2, None)
            left = number % 2 == 0
            battles.finish(connection, name, (worked, gives_up) if left else (gives_up, worked), now)
            given = votes.Given("model_a" if left else "model_b", "")
            votes.cast(connection, f"voter {number % 9}", name, given, RULES, now)
    database.close()


@pytest.fixture
def flywheel(base: Path, tmp_path: Path, moreseek: Moreseek) -> Path:
    """A recipe in the test's folder, beside the base model's run and the arena's exported pairs."""
    assert base.name == "run"
    vote(tmp_path)
    exported = moreseek("arena", "export", "arena.sqlite", "pairs.jsonl", "--preferences")
    assert exported.returncode == 0, exported.stderr
    assert "pairs.jsonl: 90 preference pairs." in exported.stderr
    path = tmp_path / "flywheel.toml"
    path.write_text(RECIPE)
    return path


def test_votes_become_pairs_become_a_model_that_prefers_what_people_preferred(
    flywheel: Path, tmp_path: Path, start: Moreseek, moreseek: Moreseek
) -> None:
    whole = moreseek("run", flywheel, "--dir", "whole")
    assert whole.returncode == 0, whole.stderr
    stage = json.loads((tmp_path / "whole" / "01-preferred" / "stage.json").read_text())
    facts = stage["preference"]
    assert facts["pairs"] + facts["heldout_pairs"] == 90
    assert (
        f"{facts['pairs']} pairs to train on, {facts['heldout_pairs']} held out; {stage['steps']} steps" in whole.stderr
    )
    assert facts["before"]["heldout_reward_accuracy"] == 0.5
    assert facts["after"]["heldout_reward_accuracy"] == 1.0
    assert facts["after"]["heldout_loss"] < 0.6 < facts["before"]["heldout_loss"]
    assert "it moved 100.0% towards the preferred answer" in whole.stderr
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    assert report["stages"][0]["preference"] == facts
    assert report["findings"][-1].startswith("preferred was trained on")
    assert "Chosen over rejected" in (tmp_path / "whole" / "report.html").read_text()
    [status] = json.loads(moreseek("status", "whole", "--json").stdout)
    assert status["stages"][0]["last"]["reward_accuracy"] == 1.0
    assert status["stages"][0]["steps"] == stage["steps"]

    for step in (2, 7):  # before the first checkpoint, and between two
        killed = start("run", flywheel, "--dir", f"killed-{step}")
        log = measured(tmp_path / f"killed-{step}" / "01-preferred", step)
        assert killed.stop_when(log, signal.SIGKILL) == -signal.SIGKILL
        again = moreseek("run", flywheel, "--dir", f"killed-{step}")
        assert again.returncode == 0, again.stderr
        assert metrics(tmp_path / f"killed-{step}", "01-preferred") == metrics(tmp_path / "whole", "01-preferred")
        assert weights(tmp_path / f"killed-{step}", "01-preferred") == weights(tmp_path / "whole", "01-preferred")
        found = json.loads((tmp_path / f"killed-{step}" / "01-preferred" / "stage.json").read_text())
        assert found["preference"] == facts


def test_wrong_pairs_are_refused_before_anything_is_trained(flywheel: Path, tmp_path: Path, moreseek: Moreseek) -> None:
    pairs = tmp_path / "pairs.jsonl"
    lines = pairs.read_text().splitlines()
    for changed, said in (
        ([*lines[:3], lines[3].replace('"rejected"', '"rejectd"')], "pairs.jsonl:4: unknown key 'rejectd'"),
        ([], "pairs.jsonl: no preference pairs"),
    ):
        pairs.write_text("\n".join(changed))
        refused = moreseek("run", flywheel, "--dir", "refused")
        assert refused.returncode == 2
        assert said in refused.stderr
        assert not (tmp_path / "refused" / "01-preferred").exists()
    pairs.write_text("\n".join(lines))
    refused = moreseek("run", flywheel, "--dir", "refused", "--set", "preferred.sequence_length=5")
    assert refused.returncode == 2
    assert "longer than 5 tokens" in refused.stderr


def test_other_pairs_than_those_of_a_half_done_stage_are_refused(
    flywheel: Path, tmp_path: Path, start: Moreseek, moreseek: Moreseek
) -> None:
    log = measured(tmp_path / "half" / "01-preferred", 4)
    assert start("run", flywheel, "--dir", "half").stop_when(log, signal.SIGKILL) == -signal.SIGKILL
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("\n".join(pairs.read_text().splitlines()[1:]))
    refused = moreseek("run", flywheel, "--dir", "half")
    assert refused.returncode == 2
    assert "half done with other settings" in refused.stderr
    refused = moreseek("run", flywheel, "--dir", "half", "--accept-changes")
    assert refused.returncode == 2
    assert "the pairs are not those of the checkpoint" in refused.stderr
