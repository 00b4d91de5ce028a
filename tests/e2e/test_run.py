"""The whole way of a stranger: run, look, ask, run again."""

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import Run

transformers = pytest.importorskip("transformers")


def test_run_report_status_eval_chat_and_a_second_run_that_skips(recipe: Path, tmp_path: Path, moreseek: Run) -> None:
    first = moreseek("run", recipe)
    assert first.returncode == 0, first.stderr
    run = tmp_path / "runs" / "micro"

    report = json.loads((run / "report.json").read_text())
    assert {"run", "seed", "wall_s", "machine", "stages"} <= report.keys()
    assert [stage["name"] for stage in report["stages"]] == ["base", "zero"]
    for stage in report["stages"]:
        assert {"name", "method", "model", "wall_s", "tokens", "flops", "cost_usd", "eval"} <= stage.keys()
        assert stage["tokens"] > 0
        assert stage["flops"] > 0
        wanted = {"problems", "greedy", "pass_at_1", "pass_at_k", "cons_at_k", "k", "mean_completion_tokens",
                  "by_difficulty", "longer_than_seen"}  # fmt: skip
        assert wanted <= stage["eval"].keys()
        assert {"value", "ci_low", "ci_high"} == stage["eval"]["greedy"].keys()
    page = (run / "report.html").read_text()
    assert "<svg" in page
    assert "https:" not in page  # nothing is fetched: the only addresses are the names of XML vocabularies
    assert "http:" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )

    second = moreseek("run", recipe)
    assert second.returncode == 0
    assert second.stderr.count("done before, skipped") == 2

    status = json.loads(moreseek("status", run, "--json").stdout)
    assert [stage["status"] for stage in status[0]["stages"]] == ["finished", "finished"]

    result = moreseek(
        "eval", run, "--problems", "moreseek.data.arithmetic:problems", "--count", "8", "--k", "2", "--json"
    )
    assert json.loads(result.stdout)["problems"] == 8, result.stderr

    chat = moreseek("chat", f"{run}/base", "--max-tokens", "8", "--temperature", "0", stdin="1+2=\n/help\n/quit\n")
    assert chat.returncode == 0, chat.stderr
    assert "/regenerate" in chat.stdout

    folder = run / "02-zero" / "model"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "1+2="}], add_generation_prompt=True, return_tensors="pt", return_dict=False
    )
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] > ids.shape[1]


def test_version_doctor_and_unknown_models(moreseek: Run) -> None:
    assert moreseek("--version").stdout.startswith("moreseek ")
    findings = json.loads(moreseek("doctor", "--json").stdout)
    assert findings["speed"]["fp32_gflops"] > 0
    missing = moreseek("chat", "runs/nothing")
    assert missing.returncode == 2
    assert "neither a run" in missing.stderr
