"""The run folder: its lock, its stages' records, and the names by which users call its models. No torch in here."""

import fcntl
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moreseek.config import did_you_mean
from moreseek.errors import InputError, RunInUseError
from moreseek.packages import package_file

STAGE_KEYS = ("name", "method", "status", "fingerprint", "identity")


@dataclass(frozen=True)
class StageFolder:
    """``runs/NAME/NN-stage`` and what its stage.json says."""

    path: Path
    name: str

    @property
    def model(self) -> Path:
        return self.path / "model"

    def record(self) -> dict[str, Any]:
        """stage.json, or {} before the stage began. A damaged one is an InputError."""
        path = self.path / "stage.json"
        return read_json(path, STAGE_KEYS) if path.exists() else {}

    def write_record(self, record: dict[str, Any]) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "stage.json", record)


class RunFolder:
    """One run's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def stage(self, index: int, name: str) -> StageFolder:
        """The folder of the index-th stage (from 0)."""
        return StageFolder(self.path / f"{index + 1:02d}-{name}", name)

    def stages(self) -> list[StageFolder]:
        """The stages that were begun, in order."""
        found = sorted(folder for folder in self.path.glob("[0-9][0-9]-*") if (folder / "stage.json").is_file())
        return [StageFolder(folder, folder.name.split("-", 1)[1]) for folder in found]

    def finished(self) -> list[StageFolder]:
        """Those of them that have a model, in order."""
        return [stage for stage in self.stages() if (stage.model / "config.json").is_file()]

    @property
    def is_run(self) -> bool:
        return (self.path / "run.json").is_file()

    def lock(self) -> "RunLock":
        return RunLock(self.path)


class RunLock:
    """An exclusive lock on a run folder, held while a run writes into it; the system drops it if the process dies."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"

    def __enter__(self) -> "RunLock":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+", encoding="utf-8")
        except (FileExistsError, NotADirectoryError, PermissionError) as error:
            raise InputError(
                f"{self.path.parent}: cannot be a run's folder ({error.strerror}). Choose another one with --dir."
            ) from error
        try:
            self._acquire()
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            raise RunInUseError(
                f"{self.path.parent}: another run (process {owner}) is writing into this folder. "
                "Wait for it, stop it, or choose another folder with --dir."
            ) from error
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def _acquire(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # it may be is_held() of a `moreseek status`, which takes an instant
            time.sleep(0.1)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def __exit__(self, *_: object) -> None:
        self._file.truncate(0)
        self._file.close()

    def is_held(self) -> bool:
        """Whether a process is writing into the folder right now."""
        if not self.path.is_file():
            return False
        with self.path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False


def resolve_model(name: str) -> Path:
    """The model folder (or .gguf file) behind a user's MODEL.

    A run: its last finished model; ``run/stage``: that stage's; else a Hugging Face folder, a .gguf file, or
    ``package:PACKAGE/FILE``. Raises InputError that says what exists.
    """
    if name.startswith("package:"):
        return package_file(name)
    path = Path(name)
    if path.suffix == ".gguf" or (path / "config.json").is_file():
        if not path.exists():
            raise InputError(f"{path}: no such file.")
        return path
    run, wanted = RunFolder(path), None
    if not run.is_run and RunFolder(path.parent).is_run:
        run, wanted = RunFolder(path.parent), path.name
    if not run.is_run:
        raise InputError(f"{name}: neither a run, a run's stage, a model folder (config.json) nor a .gguf file.")
    finished = {stage.name: stage for stage in run.finished()}
    if not finished:
        raise InputError(f"{run.path}: no stage has finished yet; `moreseek status {run.path}` shows where it stands.")
    if wanted is None:
        return list(finished.values())[-1].model
    for label, stage in finished.items():
        if wanted in (label, stage.path.name):
            return stage.model
    raise InputError(f"{run.path}: no finished stage '{wanted}'{did_you_mean(wanted, list(finished))}")


def read_json(path: Path, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Read one of the run folder's JSON files. Raises InputError where it is damaged or lacks one of the keys."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        missing = [key for key in keys if key not in value]
        if missing:
            raise ValueError(f"no '{missing[0]}' in it")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}). Remove it: the same `moreseek run` makes it anew."
        ) from error
    return value


def write_json(path: Path, value: Any) -> None:
    """Write beside and rename, so that a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
