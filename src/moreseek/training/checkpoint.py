"""Checkpoints: written beside, hashed, renamed. A half-written one is never read, a damaged one is noticed.

A checkpoint is a Hugging Face folder (``model/``) plus ``training.safetensors`` (optimizer, EMA, RNG) and
``state.json`` (step, loader, method), all listed with their SHA-256 in ``manifest.json``.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from moreseek.errors import FaultError, InputError
from moreseek.model.folder import save_tensors
from moreseek.model.transformer import Transformer
from moreseek.model.weights import save_model
from moreseek.text.tokenizer import Tokenizer

MANIFEST = "manifest.json"


def save_pair(model: Transformer, tokenizer: Tokenizer, folder: Path) -> None:
    """A model and its tokenizer as a Hugging Face folder, file by file."""
    save_model(model, folder)
    tokenizer.save(folder)


def write_pair(model: Transformer, tokenizer: Tokenizer, folder: Path) -> None:
    """The same, made atomically, with a manifest."""
    write_folder(folder, lambda target: save_pair(model, tokenizer, target))


@dataclass
class Checkpoint:
    """What a resume reads."""

    folder: Path
    tensors: dict[str, Tensor]
    state: dict[str, Any]

    @property
    def model_folder(self) -> Path:
        return self.folder / "model"


def write_folder(target: Path, fill: Callable[[Path], None]) -> None:
    """Make ``target`` atomically: fill a temporary folder, fsync, add the manifest, rename.

    On any failure the temporary folder is removed and what was there before stays. A full disk is a FaultError.
    """
    temporary = target.parent / f".writing-{target.name}"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        fill(temporary)
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        hashes = {
            str(path.relative_to(temporary)): {"sha256": _sha256(path), "bytes": path.stat().st_size} for path in files
        }
        (temporary / MANIFEST).write_text(json.dumps(hashes, indent=1), encoding="utf-8")
        for path in [*files, temporary / MANIFEST]:
            _fsync(path)
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
        _fsync(target.parent)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FaultError(
                f"{target}: the disk is full. Nothing was lost: the last complete checkpoint is still there. "
                "Make room and start the same command again."
            ) from error
        raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def save_checkpoint(
    root: Path,
    step: int,
    save_model: Callable[[Path], None],
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Write ``root/step-000123`` and remove all but the newest ``keep``."""
    target = root / f"step-{step:06d}"

    def fill(folder: Path) -> None:
        save_model(folder / "model")
        save_tensors({key: value.contiguous().cpu() for key, value in tensors.items()}, folder / "training.safetensors")
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

    write_folder(target, fill)
    for old in checkpoints(root)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def checkpoints(root: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    if not root.is_dir():
        return []
    complete = [path for path in root.glob("step-*") if (path / MANIFEST).is_file()]
    return sorted(complete, key=lambda path: (len(path.name), path.name))  # step 1,000,000 comes after 999,999


def load_latest(root: Path, warn: Callable[[str], None]) -> Checkpoint | None:
    """The newest checkpoint whose files match their hashes; a damaged one is named and passed over.

    Raises FaultError when checkpoints exist and none is whole.
    """
    found = checkpoints(root)
    for folder in reversed(found):
        damage = verify(folder)
        if damage is None:
            tensors = load_file(folder / "training.safetensors")
            return Checkpoint(folder, tensors, json.loads((folder / "state.json").read_text(encoding="utf-8")))
        warn(f"{folder}: {damage}; going back to the checkpoint before it.")
    if found:
        raise FaultError(f"{root}: no checkpoint is whole. Remove the stage's folder to start it again.")
    return None


def verify(folder: Path) -> str | None:
    """None when every file of the manifest is there and unchanged, else what is wrong."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        expected = {name: (facts["bytes"], facts["sha256"]) for name, facts in manifest.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # not JSON, or no longer the JSON we wrote
        return "its manifest cannot be read"
    if not expected:
        return "its manifest lists no files"
    for name, (size, sha256) in expected.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size or _sha256(path) != sha256:
            return f"{name} was damaged after it was written"
    return None


def require_whole(folder: Path) -> None:
    """Raise InputError when a folder has a manifest and does not match it."""
    if (folder / MANIFEST).is_file() and (damage := verify(folder)):
        raise InputError(f"{folder}: {damage}. Run the stage that made it again, or use another checkpoint.")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
