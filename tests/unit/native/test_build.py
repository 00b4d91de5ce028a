"""Building the native kernels: once, in the user's cache, and a reason in words where it cannot be."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from moreseek.native import build
from moreseek.native.build import UnavailableError, find_compiler, library

ASK = "from moreseek.native.bindings import why_not; print(why_not())"


@pytest.fixture(autouse=True)
def _forget():
    library.cache_clear()
    yield
    library.cache_clear()


def why_not(cache: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What a new process says, with a cache of its own."""
    settings = {**os.environ, "XDG_CACHE_HOME": str(cache), **environment}
    return subprocess.run([sys.executable, "-c", ASK], env=settings, capture_output=True, text=True, check=True)


def fake_compiler(folder: Path, body: str) -> str:
    path = folder / "cxx"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_switched_off_by_the_environment(monkeypatch):
    monkeypatch.setenv("MORESEEK_NATIVE", "0")
    with pytest.raises(UnavailableError, match="MORESEEK_NATIVE=0"):
        library()


def test_without_a_compiler_the_reason_says_how_to_get_one(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(build.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "ziglang", None)
    with pytest.raises(UnavailableError, match=r"apt install g\+\+.*pip install ziglang"):
        find_compiler()


def test_the_environment_names_the_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, "exit 0"))
    assert find_compiler() == (str(tmp_path / "cxx"),)


def test_a_compiler_that_fails_costs_a_message_and_leaves_nothing_behind(tmp_path):
    compiler = fake_compiler(tmp_path, 'case "$*" in *norm.cpp*) echo "no such luck" >&2; exit 1;; esac')
    answer = why_not(tmp_path, CXX=compiler)
    assert "no such luck" in answer.stdout
    assert not list((tmp_path / "moreseek").iterdir())


def test_a_cache_that_cannot_be_written_costs_a_message(tmp_path):
    (tmp_path / "moreseek").write_text("a file where the folder should be")
    assert "could not build" in why_not(tmp_path, CXX=fake_compiler(tmp_path, "exit 0")).stdout


def test_what_lies_in_the_cache_and_does_not_load_costs_a_message(tmp_path):
    compiler = fake_compiler(tmp_path, 'for last; do :; done; [ "$last" = --version ] || echo rubbish > "$last"')
    assert "do not load" in why_not(tmp_path, CXX=compiler).stdout


def test_the_kernels_are_built_once(tmp_path):
    first, second = why_not(tmp_path), why_not(tmp_path)
    if first.stdout.strip() != "None":
        pytest.skip(f"no native kernels here: {first.stdout}")
    assert "building" in first.stderr
    assert "building" not in second.stderr
    assert len(list((tmp_path / "moreseek").iterdir())) == 1
