"""The small files of a model folder, which may be a stranger's: no link out of it, no file that fills the memory."""

import json
from pathlib import Path
from typing import Any

from moreseek.errors import InputError

MAX_TEXT_BYTES = 64_000_000
"""Of one file. The largest tokenizer.json of the field have half of it."""

MAX_CONFIG_BYTES = 1_000_000
"""Of a config.json. The largest of the field, with their lists of layers, have a twentieth of it."""


def member(folder: Path, name: str) -> Path:
    """The path of a file in a folder. Raises InputError where it is a link to somewhere else.

    A downloaded folder could link to a private file, which a conversion would then copy into the new model and a
    server show to its clients. Hugging Face's own cache is made of links, from anywhere in a snapshot to the blobs/
    beside snapshots/, and is let through. The folder itself may be a link: its user named it.
    """
    path = folder / name
    if path.is_symlink():
        home, target = folder.resolve(), _target(path)
        snapshots = next((parent for parent in home.parents if parent.name == "snapshots"), None)
        blobs = home if snapshots is None else snapshots.parent / "blobs"
        if not (target.is_relative_to(home) or target.is_relative_to(blobs)):
            raise InputError(
                f"{path}: a link that leads out of its folder, to {target}. If you trust it, put the file itself there."
            )
    return path


def _target(link: Path) -> Path:
    try:
        return link.resolve()
    except (OSError, RuntimeError) as error:  # which of them depends on Python's version
        raise InputError(f"{link}: a link that leads back to itself.") from error


def check_size(path: Path, most: int = MAX_TEXT_BYTES) -> None:
    """Raise InputError where a file has more than ``most`` bytes."""
    size = path.stat().st_size
    if size > most:
        raise InputError(f"{path}: {size} bytes, more than any such file has ({most}).")


def read_text(path: Path, most: int = MAX_TEXT_BYTES) -> str:
    """The text in a file. Raises InputError where it has more than ``most`` bytes or is not UTF-8."""
    check_size(path, most)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}).") from error


def read_json_object(path: Path, most: int = MAX_TEXT_BYTES) -> dict[str, Any]:
    """The JSON object in a file of at most so many bytes. Raises InputError for anything else."""
    try:
        text = read_text(path, most)
        table = json.loads(text)
        if "\\u" in text:  # half of a character, written as an escape, could not be written or shown again
            json.dumps(table, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(table, dict):
        raise InputError(f"{path}: a JSON object is needed, found {type(table).__name__}.")
    return table
