"""Checkpoints that are whole or not there: damage, half-written folders and full disks."""

import errno
import json

import pytest
import torch

from moreseek.errors import FaultError, InputError
from moreseek.training import checkpoint
from moreseek.training.checkpoint import (
    MANIFEST,
    checkpoints,
    load_latest,
    require_whole,
    save_checkpoint,
    verify,
    write_folder,
)

FILES = ["model/model.safetensors", "training.safetensors", "state.json", MANIFEST]


def save(root, step, keep=2, model=b"weights"):
    def save_model(folder):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(model + str(step).encode())

    tensors = {"w/exp_avg": torch.full((3, 2), float(step)).t(), "rng/torch": torch.get_rng_state()}
    return save_checkpoint(root, step, save_model, tensors, {"step": step, "loader": {"epoch": 0}}, keep)


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # a busy disk makes hundreds of them take minutes


def flip(path, position):
    with path.open("r+b") as file:
        file.seek(position)
        [byte] = file.read(1)
        file.seek(position)
        file.write(bytes([byte ^ 1]))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def load(root):
    """(step of the checkpoint that a resume reads, what it warned of)."""
    warnings = []
    found = load_latest(root, warnings.append)
    return (None if found is None else found.state["step"]), warnings


def test_a_resume_reads_what_was_saved(tmp_path):
    save(tmp_path, 7)
    found = load_latest(tmp_path, pytest.fail)
    assert found.state == {"step": 7, "loader": {"epoch": 0}}
    assert torch.equal(found.tensors["w/exp_avg"], torch.full((2, 3), 7.0))
    assert torch.equal(found.tensors["rng/torch"], torch.get_rng_state())
    assert (found.model_folder / "model.safetensors").read_bytes() == b"weights7"


def test_nothing_saved_is_nothing_to_resume(tmp_path):
    assert load(tmp_path) == (None, [])
    assert load(tmp_path / "absent") == (None, [])


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step, keep=2)
        assert load(tmp_path) == (step, [])
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000003", "step-000004"]
    assert names(tmp_path) == ["step-000003", "step-000004"]


def test_the_newest_is_the_highest_step_also_beyond_six_digits(tmp_path):
    for step in (999_998, 999_999, 1_000_000):
        save(tmp_path, step, keep=2)
    assert load(tmp_path) == (1_000_000, [])
    assert [path.name for path in checkpoints(tmp_path)] == ["step-999999", "step-1000000"]


def test_a_step_can_be_saved_again(tmp_path):
    save(tmp_path, 3)
    save(tmp_path, 3, model=b"others")
    assert (load_latest(tmp_path, pytest.fail).model_folder / "model.safetensors").read_bytes() == b"others3"


def test_every_file_and_the_folder_s_name_reach_the_disk_before_the_old_one_goes(tmp_path, monkeypatch):
    save(tmp_path, 1, keep=1)
    events = []
    monkeypatch.setattr(checkpoint, "_fsync", lambda path: events.append(path.name))
    rename, remove = checkpoint.Path.rename, checkpoint.shutil.rmtree

    def removes(path, **options):
        events.append(f"remove {path.name}")
        remove(path, **options)

    monkeypatch.setattr(checkpoint.Path, "rename", lambda a, b: (events.append("rename"), rename(a, b)))
    monkeypatch.setattr(checkpoint.shutil, "rmtree", removes)
    save(tmp_path, 2, keep=1)
    written = events.index("rename")
    assert {"model.safetensors", "training.safetensors", "state.json", MANIFEST} <= set(events[:written])
    assert events[written + 1 :] == [tmp_path.name, "remove step-000001"]


# --- half-written and damaged ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["Path.mkdir", "save_tensors", "_sha256", "Path.write_text", "_fsync", "Path.rename"])
def test_a_half_written_checkpoint_is_never_read(tmp_path, monkeypatch, where):
    save(tmp_path, 1)
    with monkeypatch.context() as patch:

        def kill(*args, **kwargs):
            patch.setattr(checkpoint.shutil, "rmtree", lambda *a, **k: None)  # a dead process tidies nothing up
            raise Killed

        patch.setattr(f"moreseek.training.checkpoint.{where}", kill)
        with pytest.raises(Killed):
            save(tmp_path, 2)
    assert load(tmp_path) == (1, [])
    save(tmp_path, 2)  # over what was left behind
    assert load(tmp_path) == (2, [])
    assert names(tmp_path) == ["step-000001", "step-000002"]


class Killed(BaseException):
    pass


def test_a_folder_without_a_manifest_is_not_a_checkpoint(tmp_path):
    save(tmp_path, 1)
    (save(tmp_path, 2) / MANIFEST).unlink()
    assert load(tmp_path) == (1, [])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", ["flipped", "truncated", "removed", "emptied"])
def test_damage_is_noticed_named_and_the_older_one_is_used(tmp_path, name, harm):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / name
    if harm == "flipped":
        flip(path, path.stat().st_size // 2)
    elif harm == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif harm == "emptied":
        path.write_bytes(b"")
    else:
        path.unlink()
    step, warnings = load(tmp_path)
    assert step == 1
    if not (name == MANIFEST and harm == "removed"):
        assert len(warnings) == 1
        assert "step-000002" in warnings[0]
        assert name == MANIFEST or name in warnings[0]


def test_every_flipped_byte_is_noticed(tmp_path):
    folder = save(tmp_path, 1)
    for name in FILES:
        size = (folder / name).stat().st_size
        for position in range(0, size, 1 if name == MANIFEST else size // 13 + 1):
            flip(folder / name, position)
            assert verify(folder) is not None, f"{name} byte {position}"
            flip(folder / name, position)
    assert verify(folder) is None


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"state.json": 3}', '{"state.json": {}}', '{"a": {"bytes": 1}}'])
def test_a_manifest_of_another_shape_is_damage(tmp_path, text):
    folder = save(tmp_path, 1)
    (folder / MANIFEST).write_text(text)
    assert verify(folder) is not None


def test_when_all_are_damaged_the_run_stops_and_removes_nothing(tmp_path):
    for step in (1, 2):
        flip(save(tmp_path, step) / "state.json", 3)
    with pytest.raises(FaultError, match=r"no checkpoint is whole.*start it again"):
        load(tmp_path)
    assert len(checkpoints(tmp_path)) == 2


def test_a_damaged_model_folder_is_refused_by_name(tmp_path):
    def fill(folder):
        (folder / "model.safetensors").write_bytes(b"weights")

    write_folder(tmp_path / "model", fill)
    require_whole(tmp_path / "model")
    require_whole(tmp_path)  # somebody else's folder has no manifest
    flip(tmp_path / "model" / "model.safetensors", 2)
    with pytest.raises(InputError, match=r"model.safetensors was damaged after it was written"):
        require_whole(tmp_path / "model")


def test_the_manifest_lists_every_file_with_its_hash(tmp_path):
    manifest = json.loads((save(tmp_path, 1) / MANIFEST).read_text())
    assert set(manifest) == set(FILES) - {MANIFEST}
    assert all(len(facts["sha256"]) == 64 for facts in manifest.values())
    assert manifest["model/model.safetensors"]["bytes"] == len(b"weights1")


# --- full disks --------------------------------------------------------------------------------------------------


def raises(error):
    def fail(*args, **kwargs):
        raise error

    return fail


FULL = [
    ("save_tensors", OSError(errno.ENOSPC, "No space left on device")),
    ("save_tensors", OSError(errno.EDQUOT, "Disk quota exceeded")),
    ("os.fsync", OSError(errno.ENOSPC, "No space left on device")),
    ("Path.mkdir", OSError(errno.ENOSPC, "No space left on device")),
    ("Path.write_text", OSError(errno.ENOSPC, "No space left on device")),
]


@pytest.mark.parametrize(("where", "error"), FULL, ids=lambda value: str(value)[:40])
def test_a_full_disk_stops_the_run_and_keeps_the_older_checkpoint(tmp_path, monkeypatch, where, error):
    save(tmp_path, 1)
    save(tmp_path, 2)
    with monkeypatch.context() as patch:
        patch.setattr(f"moreseek.training.checkpoint.{where}", raises(error))
        with pytest.raises(FaultError, match=r"step-000003: the disk is full.*Make room and start the same command"):
            save(tmp_path, 3)
    assert names(tmp_path) == ["step-000001", "step-000002"]
    assert load(tmp_path) == (2, [])
    save(tmp_path, 3)
    assert load(tmp_path) == (3, [])


def test_another_error_is_not_called_a_full_disk(tmp_path, monkeypatch):
    save(tmp_path, 1)
    for error in (OSError(errno.EACCES, "Permission denied"), ValueError("no")):
        monkeypatch.setattr(checkpoint, "save_tensors", raises(error))
        with pytest.raises(type(error)):
            save(tmp_path, 2)
        assert names(tmp_path) == ["step-000001"]
