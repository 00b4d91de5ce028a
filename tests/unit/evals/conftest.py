"""A run folder as the runner writes it, with numbers near those that were measured on tiny-r1."""

import json
import math
import random
from pathlib import Path

import pytest

from moreseek.evals.report import write_report

SEEN, LONGER = range(1, 7), range(7, 13)


@pytest.fixture
def run_folder(tmp_path):
    """A finished run of two stages."""
    return make_run(tmp_path / "runs" / "tiny-r1")


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """(report.json, report.html) of a finished run, for tests that only look."""
    folder = make_run(tmp_path_factory.mktemp("runs") / "tiny-r1")
    write_report(folder)
    return json.loads((folder / "report.json").read_text()), (folder / "report.html").read_text()


def make_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    dump(
        folder / "run.json",
        {
            "name": "tiny-r1",
            "seed": 1,
            "recipe": {"run": {"name": "tiny-r1"}, "stage": [{"name": "base", "steps": 1000}, {"name": "zero"}]},
            "versions": {"moreseek": "0.1.0", "python": "3.11.9", "torch": "2.13.0"},
            "machine": {"cpu": "a CPU", "flags": ["amx", "avx512"], "cores": 2, "memory_gb": 8, "device": "cpu"},
            "started_at": "2026-01-20T10:00:00Z",
            "wall_s": 243.2,
        },
    )
    base = stage(folder / "01-base", "base", "pretrain", 1000, 162.4, 4_096_000, 1.62e13)
    zero = stage(folder / "02-zero", "zero", "grpo", 62, 21.3, 470_000, 1.9e12)
    rng = random.Random(1)
    log(base / "metrics.jsonl", [pretrain_step(step, rng) for step in range(1, 1001, 5)])
    log(zero / "metrics.jsonl", [grpo_step(step, rng) for step in range(1, 63)])
    log(zero / "samples.jsonl", [way_sample(step) for step in range(1, 63, 5)])
    dump(base / "eval.json", evaluation(0.388, 0.46, 0.97, 3.8, worked=False))
    dump(zero / "eval.json", evaluation(1.0, 0.985, 1.0, 29.4, worked=True))
    return folder


def stage(folder: Path, name: str, method: str, steps: int, wall_s: float, tokens: int, flops: float) -> Path:
    folder.mkdir()
    info = {"name": name, "method": method, "status": "finished", "fingerprint": "f00", "steps": steps}
    info |= {"wall_s": wall_s, "tokens": tokens, "flops": flops, "model": "DeepSeek-V3 shape, 3 layers, hidden 128"}
    info |= {"settings": {"steps": steps, "lr": 0.014}, "model_parameters": 734_144, "active_parameters": 610_000}
    dump(folder / "stage.json", info)
    return folder


def pretrain_step(step: int, rng: random.Random) -> dict:
    loss = 0.72 + 5.2 * math.exp(-step / 60) + rng.gauss(0, 0.01)
    row = {"step": step, "loss": loss, "mtp_loss": loss * 1.12, "lr": 0.014, "grad_norm": 0.7, "tokens_per_s": 25_300}
    return row | {"expert_load_max": 1.05 + 0.9 * math.exp(-step / 40), "elapsed_s": step * 0.1624}


def grpo_step(step: int, rng: random.Random) -> dict:
    learned = 1 / (1 + math.exp(-(step - 24) / 5))
    reward = min(1.0, 0.45 + 0.53 * learned + rng.gauss(0, 0.02))
    row = {"step": step, "reward": reward, "reward/answer": reward, "completion_tokens": 8 + 21.5 * learned}
    row |= {"entropy": 0.42 - 0.33 * learned, "groups_without_signal": 0.2 + 0.6 * learned, "truncated": 0.0}
    return row | {"logprob_gap": 2e-6, "verifier_errors": 0, "reflection_words": 0.0, "elapsed_s": 0.34 * step}


def way_sample(step: int) -> dict:
    worked = "<think>12+34=46;46-5=41</think>41" if step > 20 else "<think></think>43"
    return {"step": step, "prompt": "12+34-5=", "completion": worked, "reward": float(step > 20)}


def estimate(value: float, half: float = 0.04) -> dict:
    return {"value": value, "ci_low": max(0.0, value - half * (1.05 - value**20)), "ci_high": min(1.0, value + half)}


def evaluation(greedy: float, pass_1: float, pass_k: float, length: float, *, worked: bool) -> dict:
    def part(problems: int, places: range, shift: float) -> dict:
        decay = {d: max(0.02, 1 - 0.25 * (d - 1)) if not worked else max(0.0, 1 - 0.11 * max(0, d - 6)) for d in places}
        ks = {k: pass_1 + (pass_k - pass_1) * math.log2(k) / 4 for k in (1, 2, 4, 8, 16)}
        return {
            "problems": problems,
            "greedy": estimate(max(0.03, greedy - shift)),
            "mean_completion_tokens": length,
            "truncated_share": 0.002,
            "k": 16,
            "pass_at_1": estimate(max(0.02, pass_1 - shift), 0.02),
            "pass_at_k": estimate(max(0.1, pass_k - shift), 0.015),
            "cons_at_k": estimate(max(0.05, greedy - shift)),
            "pass_curve": {str(k): estimate(max(0.02, v - shift), 0.02) for k, v in ks.items()},
            "by_difficulty": {
                str(d): {
                    "problems": problems // 6,
                    "greedy": estimate(v, 0.09),
                    "mean_completion_tokens": length * d / 3,
                }
                for d, v in decay.items()
            },
        }

    result = part(500, SEEN, 0.0)
    result["longer_than_seen"] = part(200, LONGER, 0.35)
    result["unseen_tasks"] = {
        "chain_sum": {"problems": 100, "greedy": estimate(0.05 if worked else 0.02, 0.03)},
        "basic_arithmetic": {"problems": 100, "greedy": estimate(0.11, 0.05)},
    }
    return result | {"verifier_errors": 0, "samples": [sample(n, worked) for n in range(12)], "wall_s": 12.5}


def sample(number: int, worked: bool) -> dict:
    a, b, c = 12 + number, 34 + number, 5 + number
    right = a + b - c
    thinking = f"{a}+{b}={a + b};{a + b}-{c}={right}" if worked else ""
    final = str(right if worked or number % 3 == 0 else right + 2)
    return {
        "prompt": f"{a}+{b}-{c}=",
        "answer": str(right),
        "difficulty": "2",
        "completion": f"<think>{thinking}</think>{final}",
        "thinking": thinking,
        "final": final,
        "reward": float(final == str(right)),
        "completion_tokens": 4 + len(thinking),
    }


def dump(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def log(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
