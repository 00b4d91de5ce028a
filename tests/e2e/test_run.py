"""The whole way of a stranger: run, look, ask, run again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import Moreseek, assert_equal_runs, environment, write_recipe

transformers = pytest.importorskip("transformers")

ESTIMATE = {"value", "ci_low", "ci_high"}


@pytest.fixture
def run(uninterrupted: Path) -> Path:
    """The finished micro run. Tests here read it and leave it as it is."""
    return uninterrupted


def test_report_json_has_the_shape_that_scripts_rely_on(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert {"run", "seed", "wall_s", "machine", "stages"} <= report.keys()
    assert report["seed"] == 3
    assert [(stage["name"], stage["method"]) for stage in report["stages"]] == [("base", "pretrain"), ("zero", "grpo")]
    for stage in report["stages"]:
        assert {"name", "method", "model", "wall_s", "tokens", "flops", "cost_usd", "eval"} <= stage.keys()
        assert stage["tokens"] > 0
        assert stage["flops"] > 0
        found = stage["eval"]
        assert {"problems", "k", "mean_completion_tokens", "by_difficulty", "longer_than_seen"} <= found.keys()
        assert (found["problems"], found["k"]) == (10, 2)
        for measure in ("greedy", "pass_at_1", "pass_at_k", "cons_at_k"):
            assert found[measure].keys() == ESTIMATE
            assert 0 <= found[measure]["ci_low"] <= found[measure]["value"] <= found[measure]["ci_high"] <= 1


def test_the_report_is_one_page_that_fetches_nothing(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "<svg" in page
    assert "https:" not in page
    for vocabulary in ("http://www.w3.org", "http://purl.org", "http://creativecommons.org"):  # names, never fetched
        page = page.replace(vocabulary, "")
    assert "http:" not in page


@pytest.mark.parametrize("stage", ["01-base", "02-zero"])
def test_a_stages_model_is_a_folder_that_transformers_loads_as_it_is(stage: str, run: Path) -> None:
    folder = run / stage / "model"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+2="}], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] > ids.shape[1]
    assert tokenizer.decode(ids[0]).count("1+2=") == 1


def test_a_second_run_skips_everything_and_changes_nothing(run: Path, recipe: Path, moreseek: Moreseek) -> None:
    def fingerprint() -> dict[str, tuple[int, int]]:
        files = [*run.glob("*/model/*"), *run.glob("*/*.json*"), *run.glob("*/checkpoints/**/*")]
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.is_file()}

    before = fingerprint()
    again = moreseek("run", recipe, "--dir", run)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("done before, skipped") == 2
    assert fingerprint() == before


def test_stages_run_one_by_one_equal_a_run_in_one_go(
    run: Path, recipe: Path, tmp_path: Path, moreseek: Moreseek
) -> None:
    first = moreseek("run", recipe, "--stage", "base")
    assert first.returncode == 0, first.stderr
    assert "moreseek chat runs/micro" in first.stdout  # without --dir: runs/, and the recipe's name
    assert not (tmp_path / "runs" / "micro" / "02-zero").exists()
    assert moreseek("run", recipe).returncode == 0
    assert_equal_runs(tmp_path / "runs" / "micro", run)
    listed = moreseek("status")
    assert listed.stdout.count("finished") == 2
    assert "runs/micro" in listed.stdout


def test_another_seed_is_another_run(run: Path, recipe: Path, tmp_path: Path, moreseek: Moreseek) -> None:
    result = moreseek("run", recipe, "--dir", "other", "--seed", "4", "--stage", "base", "--set", "base.evaluate=false")
    assert result.returncode == 0, result.stderr
    model = "01-base/model/model.safetensors"
    assert (tmp_path / "other" / model).read_bytes() != (run / model).read_bytes()
    assert json.loads((tmp_path / "other" / "report.json").read_text())["seed"] == 4


def test_status_tells_steps_and_results_as_json(run: Path, moreseek: Moreseek) -> None:
    [found] = json.loads(moreseek("status", run, "--json").stdout)
    assert [(s["status"], s["step"], s["steps"]) for s in found["stages"]] == [("finished", 30, 30), ("finished", 8, 8)]
    assert found["stages"][1]["last"]["reward"] > 0
    assert found["stages"][1]["greedy"].keys() == ESTIMATE


def test_eval_prints_one_json_document_and_nothing_else(run: Path, tmp_path: Path, moreseek: Moreseek) -> None:
    (tmp_path / "sums.jsonl").write_text('\ufeff{"prompt": "1+1=", "answer": "2"}\r\n\r\n')
    for problems, options, count in (
        ("moreseek.data.arithmetic:problems", ("--count", "8"), 8),
        ("reasoning-gym:chain_sum", ("--count", "3"), 3),
        ("sums.jsonl", (), 1),
    ):
        result = moreseek(
            "eval", f"{run}/base", "--problems", problems, "--k", "2", "--max-tokens", "8", *options, "--json"
        )
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["problems"] == count
    shown = moreseek("eval", run, "--problems", "sums.jsonl", "--k", "2", "--max-tokens", "8")
    assert "greedy accuracy" in shown.stdout


def test_chat_on_a_pipe_answers_each_line_the_same_for_the_same_seed(
    run: Path, moreseek: Moreseek, tmp_path: Path
) -> None:
    saved = tmp_path / "saved.jsonl"
    lines = f"1+2=\n/history\n/save {saved}\n/save {saved}\n/system Be brief.\n/temperature 0\n/regenerate\n/clear\n"
    lines += "2+2=\n/help\n/quit\nnever read\n"
    one = moreseek("chat", f"{run}/base", "--max-tokens", "8", "--seed", "1", stdin=lines)
    assert one.returncode == 0, one.stderr
    assert "/regenerate" in one.stdout  # of /help
    assert "user: 1+2=" in one.stdout  # of /history
    [conversation] = [json.loads(line) for line in saved.read_text(encoding="utf-8").splitlines()]
    assert [message["role"] for message in conversation["messages"]] == ["user", "assistant"]
    assert "File exists" in one.stdout
    saved.unlink()
    assert "\x1b" not in one.stdout  # no colours on a pipe
    assert one.stdout == moreseek("chat", f"{run}/01-base", "--max-tokens", "8", "--seed", "1", stdin=lines).stdout


def test_doctor_measures_this_machine(moreseek: Moreseek) -> None:
    result = moreseek("doctor", "--json")
    findings = json.loads(result.stdout)
    assert findings["speed"]["fp32_gflops"] > 0
    verdicts = {check["verdict"] for check in findings["checks"]}
    assert verdicts <= {"fast", "ok", "slow", "off", "impossible", "too large"}
    assert result.returncode == (3 if "impossible" in verdicts else 0)
    assert "precision 'auto' means" in moreseek("doctor").stdout


def test_version_and_help_answer_on_stdout(moreseek: Moreseek) -> None:
    assert moreseek("--version").stdout.startswith("moreseek ")
    for command in ("run", "status", "doctor", "chat", "eval"):
        assert command in moreseek("--help").stdout
        assert moreseek(command, "--help").returncode == 0


def test_a_reader_that_leaves_early_is_no_fault(run: Path) -> None:
    """`moreseek status --json | head -c 1`: the pipe breaks, and nobody needs a traceback."""
    code = "from moreseek.cli import main; main()"
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-c", code, "status", run, "--json"],
            env=environment(), stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writer)
    assert result.stderr == ""


def test_the_time_of_killed_processes_counts_in_the_report(tmp_path: Path, moreseek: Moreseek) -> None:
    """A resumed stage costs what all its processes spent on the steps that were kept."""
    kill = (
        "import os, signal\nimport moreseek.training.loop as l\nplain = l.Loop._record\n"
        "def dying(self, *rest):\n    self.elapsed_s += 100.0\n    plain(self, *rest)\n"
        "    self.step == 10 and os.kill(os.getpid(), signal.SIGKILL)\nl.Loop._record = dying"
    )
    run = ("run", write_recipe(tmp_path), "--dir", "run", "--stage", "base", "--set", "base.evaluate=false")
    moreseek(*run, before=kill)
    assert moreseek(*run).returncode == 0
    [stage] = json.loads((tmp_path / "run" / "report.json").read_text())["stages"]
    assert 700 < stage["wall_s"] < 1000  # seven steps were saved before the kill


def test_bench_tells_speed_and_limit(run: Path, moreseek: Moreseek) -> None:
    options = ("--batch", "1", "--batch", "4", "--prompt-tokens", "20", "--new-tokens", "8")
    found = json.loads(moreseek("bench", f"{run}/base", *options, "--json").stdout)
    assert [row["batch"] for row in found["results"]] == [1, 4]
    assert all(0 < row["write_tokens_s"] <= 1.2 * row["limit_tokens_s"] for row in found["results"])
    assert found["cache_bytes_a_token"] > 0
    assert "of the limit" in moreseek("bench", f"{run}/base", *options).stdout
