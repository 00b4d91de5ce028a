"""Building the native kernels: once, in the user's cache, and a reason in words where it cannot be."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from moreseek.native import bindings, build
from moreseek.native.build import UnavailableError, find_compiler, library

ASK = "from moreseek.native.bindings import why_not; print(why_not())"


def forget():
    for answer in (library, bindings.kernels, bindings.why_not):
        answer.cache_clear()


@pytest.fixture(autouse=True)
def _forget():
    forget()
    yield
    forget()


def why_not(cache: Path) -> subprocess.CompletedProcess[str]:
    """What a new process says, with a cache of its own."""
    settings = {**os.environ, "XDG_CACHE_HOME": str(cache)}
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


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    """compiled(BODY): what comes of it where such a compiler is all there is, with a cache of its own."""

    def ask(body):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("CXX", fake_compiler(tmp_path, body))
        return bindings.why_not()

    return ask


def test_a_compiler_that_fails_costs_a_message_and_leaves_nothing_behind(tmp_path, compiled):
    assert "no such luck" in compiled('case "$*" in *norm.cpp*) echo "no such luck" >&2; exit 1;; esac')
    assert not list((tmp_path / "moreseek").iterdir())


def test_a_cache_that_cannot_be_written_costs_a_message(tmp_path, compiled):
    (tmp_path / "moreseek").write_text("a file where the folder should be")
    assert "could not build" in compiled("exit 0")


def test_what_lies_in_the_cache_and_does_not_load_costs_a_message(compiled):
    assert "do not load" in compiled('for last; do :; done; [ "$last" = --version ] || echo rubbish > "$last"')


def test_kernels_that_were_cut_off_are_built_anew(tmp_path):
    if why_not(tmp_path).stdout.strip() != "None":
        pytest.skip("no native kernels here")
    (built,) = (tmp_path / "moreseek").glob("native-*.so")
    built.write_bytes(built.read_bytes()[:100])
    again = why_not(tmp_path)
    assert again.stdout.strip() == "None"
    assert "building" in again.stderr


def test_the_kernels_are_built_once(tmp_path):
    first, second = why_not(tmp_path), why_not(tmp_path)
    if first.stdout.strip() != "None":
        pytest.skip(f"no native kernels here: {first.stdout}")
    assert "building" in first.stderr
    assert "building" not in second.stderr
    assert len(list((tmp_path / "moreseek").iterdir())) == 1
