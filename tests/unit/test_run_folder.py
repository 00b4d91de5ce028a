"""The run folder: one writer at a time, records that are whole, and names that lead to models."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from moreseek.errors import InputError, RunInUseError
from moreseek.run_folder import STAGE_KEYS, RunFolder, read_json, resolve_model, write_json


def finished(run: Path, number: str, *, model: bool = True) -> None:
    folder = run / number
    (folder / "model").mkdir(parents=True)
    write_json(folder / "stage.json", dict.fromkeys(STAGE_KEYS, "x"))
    if model:
        write_json(folder / "model" / "config.json", {})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    finished(folder, "01-base")
    finished(folder, "02-zero")
    finished(folder, "03-r1", model=False)
    write_json(folder / "run.json", {})
    return folder


# --- the lock ----------------------------------------------------------------------------------------------------


def test_the_second_writer_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with run.lock(), pytest.raises(RunInUseError, match=rf"process {os.getpid()}\).*--dir"), run.lock():
        pass
    with run.lock():  # free again, also after the refusal
        pass


def test_a_lock_is_seen_from_outside_and_dies_with_its_process(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert not run.lock().is_held()
    code = (
        "import sys, time; from pathlib import Path; from moreseek.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    )
    source = Path(__file__).parents[2] / "src"
    environment = os.environ | {"PYTHONPATH": str(source)}
    holder = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert run.lock().is_held()
        with pytest.raises(RunInUseError, match=f"process {holder.pid}"), run.lock():
            pass
    finally:
        holder.kill()
        holder.wait()
    assert not run.lock().is_held()
    with run.lock():
        assert run.lock().is_held()
    assert not run.lock().is_held()


def test_a_path_that_cannot_be_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="cannot be a run's folder"), RunFolder(path).lock():
            pass


# --- records -----------------------------------------------------------------------------------------------------


def test_a_record_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stage.json"
    write_json(path, {"a": "ä"})
    with pytest.raises(TypeError):
        write_json(path, {"a": 1, "b": object()})  # fails half way through
    assert read_json(path) == {"a": "ä"}

    def full(file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": "ä"}


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"name": 1}', "\ufffe"])
def test_a_damaged_record_is_named_with_what_to_do(text: str, tmp_path: Path) -> None:
    path = tmp_path / "stage.json"
    path.write_text(text, encoding="utf-16" if text == "\ufffe" else "utf-8")
    with pytest.raises(InputError, match=r"stage\.json: cannot be read.*Remove it"):
        read_json(path, STAGE_KEYS)


def test_a_record_that_is_no_object_is_damaged_whatever_it_is_read_for(tmp_path: Path) -> None:
    path = tmp_path / "eval.json"
    path.write_text("[]")
    with pytest.raises(InputError, match=r"eval\.json: cannot be read \(not a JSON object\)"):
        read_json(path)


def test_a_stage_that_was_not_begun_has_no_record(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).stage(0, "base").record() == {}
    assert RunFolder(tmp_path).stages() == []


# --- names of models ---------------------------------------------------------------------------------------------


def test_a_run_means_its_last_finished_model_and_a_stage_its_own(run: Path) -> None:
    assert resolve_model(str(run)) == run / "02-zero" / "model"
    assert resolve_model(f"{run}/base") == run / "01-base" / "model"
    assert resolve_model(f"{run}/01-base") == run / "01-base" / "model"
    assert resolve_model(f"{run}/01-base/model") == run / "01-base" / "model"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/zer", "Did you mean 'zero'?"),
        ("/r1", "no finished stage 'r1'"),
        ("/../other", "neither a run"),
        ("/model.gguf", "no such file"),
    ],
)
def test_a_name_that_leads_to_no_model_is_explained(name: str, said: str, run: Path) -> None:
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        resolve_model(f"{run}{name}")


def test_a_run_without_a_finished_stage_points_to_status(tmp_path: Path) -> None:
    finished(tmp_path, "01-base", model=False)
    write_json(tmp_path / "run.json", {})
    with pytest.raises(InputError, match="no stage has finished yet; `moreseek status"):
        resolve_model(str(tmp_path))


def test_records_are_written_for_people_too(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "größer", "list": [1]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "größer" in text
    assert text.endswith("}\n")
    assert json.loads(text) == {"name": "größer", "list": [1]}
