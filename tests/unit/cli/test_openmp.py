"""OpenMP is calmed by what runs now, not by what ran a minute ago."""

import os
from pathlib import Path

import pytest

from moreseek import cli


@pytest.mark.parametrize(
    ("loadavg", "calm"),
    [
        ("9.90 4.00 2.00 1/80 77\n", False),  # a set-up has just ended: only this process runs
        ("0.00 0.00 0.00 9/80 77\n", True),  # others have just begun
        ("nothing of the kind", False),
    ],
)
def test_only_what_runs_now_calms_openmp(loadavg: str, calm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: loadavg)
    cli._calm_openmp()
    found = os.environ.pop("GOMP_SPINCOUNT", None)
    assert found == ("1000" if calm else None)


def test_a_value_that_the_user_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.setattr(cli, "_others_running", lambda: 99)
    cli._calm_openmp()
    assert os.environ["GOMP_SPINCOUNT"] == "7"
