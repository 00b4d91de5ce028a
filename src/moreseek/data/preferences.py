"""Preference pairs from JSONL: what an arena exports, or anybody's, as pairs to train on and pairs held out."""

from dataclasses import dataclass
from pathlib import Path

from moreseek.data.split import check_apart, is_heldout
from moreseek.errors import InputError
from moreseek.records import Preference, read_jsonl


@dataclass(frozen=True)
class PreferenceSplit:
    """Pairs in their files' order, apart by their questions."""

    train: tuple[Preference, ...]
    heldout: tuple[Preference, ...]


def load_preferences(path: Path | str, heldout_path: Path | str | None = None) -> PreferenceSplit:
    """Read a file of pairs. An eighth of the questions is held out by their hash, unless a second file is.

    Raises InputError that names file, line and key where a line is wrong, and where there is nothing to train on.
    """
    pairs = _read(path)
    if heldout_path is not None:
        heldout = _read(heldout_path)
        check_apart((pair.question for pair in pairs), (pair.question for pair in heldout), "pairs")
        return PreferenceSplit(pairs, heldout)
    train = tuple(pair for pair in pairs if not is_heldout(pair.question))
    if not train:
        raise InputError(
            f"{path}: the questions of all {len(pairs)} pairs are held out (an eighth of all questions is, by their "
            "hash), so nothing is left to train on. That is so for battles on the problems of an evaluation."
        )
    return PreferenceSplit(train, tuple(pair for pair in pairs if is_heldout(pair.question)))


def _read(path: Path | str) -> tuple[Preference, ...]:
    pairs = tuple(read_jsonl(path, Preference))
    if not pairs:
        raise InputError(f"{path}: no preference pairs.")
    return pairs
