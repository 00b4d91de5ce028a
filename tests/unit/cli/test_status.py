"""`moreseek status` reads whatever a run left behind: nothing yet, half of a line, a run that died."""

from pathlib import Path

import pytest

from moreseek.cli.status import describe_runs, print_runs
from moreseek.errors import InputError
from moreseek.run_folder import RunFolder, write_json


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two stages whose first is under way."""
    folder = tmp_path / "runs" / "tiny"
    (folder / "01-base").mkdir(parents=True)
    stages = [{"name": "base", "method": "pretrain", "steps": 30}, {"name": "zero", "method": "grpo", "steps": 8}]
    write_json(folder / "run.json", {"recipe": {"stage": stages}, "seed": 1, "started_at": "2026-01-01T00:00:00"})
    record(folder, "running")
    return folder


def record(run: Path, status: str) -> None:
    write_json(
        run / "01-base" / "stage.json",
        {"name": "base", "method": "pretrain", "status": status, "fingerprint": "f", "identity": {}, "wall_s": 0.0},
    )


def base(run: Path) -> dict:
    return describe_runs(run)[0]["stages"][0]


def test_a_stage_is_running_only_while_a_process_holds_the_run(run: Path) -> None:
    with RunFolder(run).lock():
        assert base(run)["status"] == "running"
    assert base(run)["status"] == "interrupted"
    record(run, "finished")
    assert base(run)["status"] == "finished"


def test_a_stage_that_was_not_begun_waits(run: Path) -> None:
    assert describe_runs(run)[0]["stages"][1] == {"name": "zero", "status": "waiting"}


def test_the_last_whole_line_of_the_metrics_tells_the_step(run: Path) -> None:
    log = run / "01-base" / "metrics.jsonl"
    assert base(run)["step"] == 0
    log.write_text('{"step": 1, "loss": 5.0}\n{"step": 2, "loss": 4.5, "lr": 1.0}\n{"step": 3, "lo')
    assert (base(run)["step"], base(run)["steps"], base(run)["last"]) == (2, 30, {"loss": 4.5})


def test_results_are_shown_once_they_are_there(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    greedy = {"value": 0.25, "ci_low": 0.2, "ci_high": 0.3}
    write_json(run / "01-base" / "eval.json", {"greedy": greedy, "mean_completion_tokens": 3.8})
    assert base(run)["greedy"] == greedy
    print_runs(describe_runs(run))
    assert "25.0%" in capsys.readouterr().out


def test_without_a_name_every_run_here_is_listed(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(run.parents[1])
    (run.parent / "not-a-run").mkdir()
    assert [found["run"] for found in describe_runs(None)] == ["runs/tiny"]
    monkeypatch.chdir(run)
    print_runs(describe_runs(None))
    assert "moreseek run recipes/tiny-r1.toml" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["{}", "[]", "{"])
def test_a_damaged_run_record_is_named(text: str, run: Path) -> None:
    (run / "run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json: cannot be read"):
        describe_runs(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run folder"):
        describe_runs(tmp_path)
