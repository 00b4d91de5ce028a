"""Which columns of a file are the vote: our own format, and those of llmfao, LMArena and FastChat."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from moreseek.arena.vote_columns import Collected, Format
from moreseek.arena.vote_files import Batch, VoteFile
from moreseek.arena.votes import A_WINS, B_WINS, OUTCOMES, TIE, Votes
from moreseek.config import did_you_mean
from moreseek.errors import InputError

FORMATS = ("auto", "llmfao", "lmarena", "fastchat")


_COMMON = {
    "voter": ("voter", "worker", "judge", "judge_hash", "user", "user_id", "evaluation_session_id", "ip"),
    "prompt": ("prompt", "prompt_id", "question", "conversation_a", "conversation"),
    "category": ("category",),
    "language": ("language",),
    "time": ("time", "timestamp", "tstamp"),
    "anony": ("anony",),
}
_OWN = Format("moreseek", "a", "b", "outcome", _COMMON)
_LLMFAO = Format("llmfao", "left", "right", "winner", _COMMON)
_LMARENA = Format("lmarena", "model_a", "model_b", "winner", _COMMON)
_FASTCHAT = Format("fastchat", "model_a", "model_b", "winner", _COMMON)
_ONE_HOT = ("winner_model_a", "winner_model_b", "winner_tie")
_HIDDEN = (None, "", "Model A", "Model B")  # what FastChat writes in place of a name that was not shown
_RAW_VOTES = {"leftvote", "rightvote", "tievote", "bothbad_vote"}


def read_votes(path: Path, format: str = "auto", style: bool = False, fast: bool = True) -> Votes:
    """The blind votes of a file; nothing of it when a line is wrong. Raises InputError that names file and line.

    ``style`` also reads, or counts in the answers, what style control needs. ``fast`` False has Python's own csv
    reader read every row: the slow twin.
    """
    votes = read_every_vote(path, format, style, fast)
    named = is_named(votes)
    kept = {name: labels for name, labels in votes.labels.items() if name != "anony"}
    votes = replace(votes, labels=kept)
    if not named.any():
        return votes
    if named.all():
        raise InputError(f"{path}: every vote is on a battle whose names were shown (anony is false).")
    said = f"{named.sum():,} votes on battles whose names were shown (anony is false) were left out."
    return replace(votes.where(~named), warnings=(*votes.warnings, said)).present()


def read_every_vote(path: Path, format: str = "auto", style: bool = False, fast: bool = True) -> Votes:
    """All votes of a file in its order, with a label ``anony`` where it says which battles were blind."""
    if format not in FORMATS:
        raise InputError(f"--format {format}: no such format{did_you_mean(format, FORMATS)}")
    file = VoteFile(path, fast)
    collected: Collected | None = None
    for chosen, batch in batches_of(file, format):
        if collected is None:
            collected = Collected(file, chosen, style)
        collected.add(batch)
    if collected is None:
        raise InputError(f"{path}: a header but no votes.")
    return collected.votes()


def is_named(votes: Votes) -> np.ndarray:
    """Which votes are on battles whose names were shown, (n,) bool."""
    if "anony" not in votes.labels:
        return np.zeros(len(votes), bool)
    labels = votes.labels["anony"]
    named = [place for place, name in enumerate(labels.names) if name.strip().lower() in ("false", "0")]
    return np.isin(labels.codes, named)


def batches_of(file: VoteFile, format: str) -> Iterator[tuple[Format, Batch]]:
    """The records of a file as columns of votes, all in the format of the first."""
    chosen: Format | None = None
    for batch in file.batches():
        raw = "type" in batch.header and "models" in batch.header
        if raw and format in ("auto", "fastchat"):
            batch = _from_log(batch, file)
        elif set(_ONE_HOT) <= set(batch.header) and "winner" not in batch.header:
            batch = _from_one_hot(batch, file)
        chosen = chosen or _choose(file, batch.header, format)
        yield chosen, batch


def _choose(file: VoteFile, header: Sequence[str], wanted: str) -> Format:
    known = {"auto": (_OWN, _LLMFAO, _LMARENA), "llmfao": (_LLMFAO,), "lmarena": (_LMARENA,), "fastchat": (_FASTCHAT,)}
    for candidate in known[wanted]:
        if {candidate.a, candidate.b, candidate.outcome} <= set(header):
            return candidate
    needed = " or ".join(f"{each.a}, {each.b}, {each.outcome}" for each in known[wanted])
    shown = ", ".join(header[:12])
    if len(header) == 1 and ";" in shown:
        shown += " (columns are parted by commas, or in a .tsv file by tabs, and these by semicolons)"
    raise (
        file.fault(0, f"no columns {needed}; found {shown}.")
        if file.is_json
        else InputError(f"{file.path}:1: the header needs the columns {needed}; found {shown}.")
    )


def _from_one_hot(batch: Batch, file: VoteFile) -> Batch:
    """LMArena's competition files: three columns of 0 and 1 in place of the winner."""
    columns = dict(zip(batch.header, batch.columns, strict=True))
    names = {(1, 0, 0): OUTCOMES[A_WINS], (0, 1, 0): OUTCOMES[B_WINS], (0, 0, 1): OUTCOMES[TIE]}
    winners = []
    for row, marks in enumerate(zip(*(columns[name] for name in _ONE_HOT), strict=True)):
        try:
            winners.append(names[tuple(int(mark) for mark in marks)])  # pyright: ignore[reportArgumentType]
        except (KeyError, TypeError, ValueError):
            shown = ", ".join(map(str, marks))
            raise file.fault(
                batch.first + row, f"{', '.join(_ONE_HOT)} are {shown}; one 1 and two 0 are needed."
            ) from None
    return Batch(batch.first, (*batch.header, "winner"), [*batch.columns, winners])


def _from_log(batch: Batch, file: VoteFile) -> Batch:
    """FastChat's raw log: one event a line, of which the votes count.

    Of a blind battle the names stand in the states alone; those of one whose names were shown stand in ``models``.
    """
    columns = dict(zip(batch.header, batch.columns, strict=True))
    empty: Callable[[str], Sequence[Any]] = lambda name: columns.get(name) or [None] * len(batch)  # noqa: E731
    keys = ("model_a", "model_b", "winner", "voter", "time", "anony", "conversation_a", "conversation_b")
    out: dict[str, list[Any]] = {key: [] for key in keys}
    for row, (kind, models, states, ip, when) in enumerate(
        zip(*(empty(name) for name in ("type", "models", "states", "ip", "tstamp")), strict=True)
    ):
        if kind not in _RAW_VOTES:
            continue
        try:
            shown = [None if name in _HIDDEN else name for name in models]
            a, b = (name or states[place]["model_name"] for place, name in enumerate(shown))
        except (TypeError, ValueError, KeyError, IndexError):
            raise file.fault(batch.first + row, "a vote without two models.") from None
        said = [_conversation(states, place) for place in (0, 1)]
        for key, value in zip(out, (a, b, kind, ip, when, not any(shown), *said), strict=True):
            out[key].append(value)
    if not any(out["conversation_a"]):
        del out["conversation_a"], out["conversation_b"]
    return Batch(batch.first, tuple(out), list(out.values()))


def _conversation(states: Any, place: int) -> list[dict[str, Any]] | None:
    """What one side was asked and said, out of FastChat's state: (role, words) after the template's own examples."""
    try:
        state = states[place]
        roles = state.get("roles") or ("USER", "ASSISTANT")
        said = state["messages"][state.get("offset", 0) :]
        return [
            {
                "role": "user" if role == roles[0] else "assistant",
                "content": words[0] if isinstance(words, list) else words,  # words with pictures
            }
            for role, words in said
        ]
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        return None  # a log without texts
