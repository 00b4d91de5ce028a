"""Which columns of a file are the vote: our own format, and those of llmfao, LMArena and FastChat."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
}
_OWN = Format("moreseek", "a", "b", "outcome", _COMMON)
_LLMFAO = Format("llmfao", "left", "right", "winner", _COMMON)
_LMARENA = Format("lmarena", "model_a", "model_b", "winner", _COMMON)
_FASTCHAT = Format("fastchat", "model_a", "model_b", "winner", _COMMON)
_ONE_HOT = ("winner_model_a", "winner_model_b", "winner_tie")
_RAW_VOTES = {"leftvote", "rightvote", "tievote", "bothbad_vote"}


def read_votes(path: Path, format: str = "auto", style: bool = False, fast: bool = True) -> Votes:
    """All votes of a file; nothing of it when a line is wrong. Raises InputError that names file and line.

    ``style`` also reads, or counts in the answers, what style control needs. ``fast`` False has Python's own csv
    reader read every row: the slow twin.
    """
    if format not in FORMATS:
        raise InputError(f"--format {format}: no such format{did_you_mean(format, FORMATS)}")
    file = VoteFile(path, fast)
    collected: Collected | None = None
    for batch in file.batches():
        raw = "type" in batch.header and "models" in batch.header
        if raw and format in ("auto", "fastchat"):
            batch = _from_log(batch, file)
        elif set(_ONE_HOT) <= set(batch.header) and "winner" not in batch.header:
            batch = _from_one_hot(batch, file)
        if collected is None:
            collected = Collected(file, _choose(file, batch.header, format), style)
        collected.add(batch)
    if collected is None:
        raise InputError(f"{path}: a header but no votes.")
    return collected.votes()


def _choose(file: VoteFile, header: Sequence[str], wanted: str) -> Format:
    known = {"auto": (_OWN, _LLMFAO, _LMARENA), "llmfao": (_LLMFAO,), "lmarena": (_LMARENA,), "fastchat": (_FASTCHAT,)}
    for candidate in known[wanted]:
        if {candidate.a, candidate.b, candidate.outcome} <= set(header):
            return candidate
    needed = " or ".join(f"{each.a}, {each.b}, {each.outcome}" for each in known[wanted])
    shown = ", ".join(header[:12])
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
    """FastChat's raw log: one event a line, of which the votes count; names that were hidden stand in the states."""
    columns = dict(zip(batch.header, batch.columns, strict=True))
    empty: Callable[[str], Sequence[Any]] = lambda name: columns.get(name) or [None] * len(batch)  # noqa: E731
    out: dict[str, list[Any]] = {"model_a": [], "model_b": [], "winner": [], "voter": [], "time": []}
    for row, (kind, models, states, ip, when) in enumerate(
        zip(*(empty(name) for name in ("type", "models", "states", "ip", "tstamp")), strict=True)
    ):
        if kind not in _RAW_VOTES:
            continue
        try:
            a, b = (name or states[place]["model_name"] for place, name in enumerate(models))
        except (TypeError, ValueError, KeyError, IndexError):
            raise file.fault(batch.first + row, "a vote without two models.") from None
        for key, value in zip(out, (a, b, kind, ip, when), strict=True):
            out[key].append(value)
    return Batch(batch.first, tuple(out), list(out.values()))
