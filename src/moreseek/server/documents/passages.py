"""Files to passages: pieces of a sensible length that overlap, each with its heading and its place."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from moreseek.errors import InputError
from moreseek.records import read_numbered
from moreseek.server.documents.terms import dense

SUFFIXES = (".md", ".txt", ".jsonl")
LONGEST = 1_200  # of a passage, in letters; a Chinese character counts three times, as it does in most tokenizers
PIECE, OVERLAP = 600, 240  # what is never cut again; what two passages of a section may share
MOST_BYTES = 256 << 20  # of one file
_HEADING = re.compile(r" {0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")
_SENTENCE_END = re.compile(r"(?<=[。！？；\n])|(?<=[.!?;] )")


@dataclass(frozen=True, slots=True)
class Passage:
    """``file``: from the folder of the documents on, with slashes. ``line``: where it begins, from 1."""

    file: str
    line: int
    title: str
    text: str


class _Line(BaseModel):
    """A line of a .jsonl file. Other fields are the documents' own business."""

    model_config = ConfigDict(extra="ignore", strict=True)

    text: str
    title: str = ""


def find_files(folder: Path) -> list[Path]:
    """The documents in a folder, sorted; of a pack, those in its ``documents``. Hidden files are left alone.

    Raises InputError where there is none, and for a link that leads out of the folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of documents.")
    folder = documents_of(folder)
    found: list[Path] = []
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if file.suffix not in SUFFIXES or any(part.startswith(".") for part in parts) or not file.is_file():
            continue
        if not file.resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{file}: a link that leads out of the folder of documents. Copy what it points to.")
        if file.stat().st_size > MOST_BYTES:
            raise InputError(f"{file}: more than {MOST_BYTES >> 20} MiB. Split it into several files.")
        found.append(file)
    if not found:
        raise InputError(f"{folder}: no {', '.join(SUFFIXES)} file in it, so there is nothing to answer from.")
    return found


def documents_of(folder: Path) -> Path:
    """Where the documents of a folder lie: a pack has them in ``documents``."""
    return folder / "documents" if (folder / "pack.toml").is_file() else folder


def fingerprint(folder: Path, files: Iterable[Path]) -> str:
    """A hash of the documents' names and contents."""
    total = hashlib.sha256()
    for file in files:
        total.update(f"{_name(folder, file)}\0".encode("utf-8", "surrogatepass"))
        with file.open("rb") as opened:
            total.update(hashlib.file_digest(opened, "sha256").digest())
    return total.hexdigest()


def read_passages(folder: Path, files: Iterable[Path]) -> Iterator[Passage]:
    """All passages, file by file. Raises InputError that names file and line."""
    for file in files:
        name = _name(folder, file)
        if file.suffix == ".jsonl":
            for number, record in read_numbered(file, _Line):
                title = record.title.strip() or _readable(file.stem)
                yield from _section(name, title, [(number, record.text)], within=number)
        else:
            yield from _sections(name, _readable(file.stem), _text(file), headings=file.suffix == ".md")


def _name(folder: Path, file: Path) -> str:
    return _readable(file.relative_to(documents_of(folder)).as_posix())


def _readable(name: str) -> str:
    """Names of files may be no Unicode."""
    return os.fsencode(name).decode("utf-8", "replace")


def _text(file: Path) -> str:
    raw = file.read_bytes()
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InputError(f"{file}:{line}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error


def _sections(name: str, stem: str, text: str, headings: bool) -> Iterator[Passage]:
    """By headings, where there are any; a heading inside fenced code is none."""
    above: list[tuple[int, str]] = []  # the headings that the section stands under
    paragraphs: list[tuple[int, str]] = []
    fence, begun, lines = "", 1, list[str]()

    def title() -> str:
        return " › ".join(text for _, text in above) or stem

    def close() -> None:
        if lines:
            paragraphs.append((begun, "\n".join(lines)))
        lines.clear()

    for number, line in enumerate(text.split("\n"), 1):
        mark = _FENCE.match(line) if headings else None
        heading = _HEADING.match(line) if headings and not fence else None
        if heading:
            close()
            yield from _section(name, title(), paragraphs)
            paragraphs = []
            above = [(depth, text) for depth, text in above if depth < len(heading[1])]
            above.append((len(heading[1]), heading[2]))
            continue
        if mark:
            fence = "" if fence and mark[1].startswith(fence) else fence or mark[1]
        if line.strip() or fence:
            begun = begun if lines else number
            lines.append(line.rstrip())
        else:
            close()
    close()
    yield from _section(name, title(), paragraphs)


def _section(
    name: str, title: str, paragraphs: Iterable[tuple[int, str]], within: int | None = None
) -> Iterator[Passage]:
    """The passages of one section. ``within``: the line of all of them, where the text is one line of its file."""
    taken: list[tuple[int, str]] = []
    news = size = 0  # pieces that no passage has yet; letters of those taken
    for piece in (piece for number, text in paragraphs for piece in _pieces(number, text)):
        length = _length(piece[1])
        if taken and size + length > LONGEST:
            yield _passage(name, title, taken, within)
            taken = taken[-1:] if len(taken) > 1 and _length(taken[-1][1]) <= OVERLAP else []
            news, size = 0, sum(_length(text) for _, text in taken)
        taken.append(piece)
        news, size = news + 1, size + length
    if news and any(text.strip() for _, text in taken):
        yield _passage(name, title, taken, within)


def _passage(name: str, title: str, pieces: list[tuple[int, str]], within: int | None) -> Passage:
    text = "".join(text for _, text in pieces).strip()
    return Passage(name, pieces[0][0] if within is None else within, title, text)


def _pieces(number: int, paragraph: str) -> Iterator[tuple[int, str]]:
    """A paragraph, or its sentences a few at a time where it is long; the number of the line is that of each."""
    if _length(paragraph) <= PIECE:
        yield number, f"{paragraph}\n\n"
        return
    held = ""
    for sentence in _SENTENCE_END.split(paragraph):
        for start in range(0, len(sentence), PIECE // 3):  # a sentence without an end is cut
            part = sentence[start : start + PIECE // 3]
            if held and _length(held) + _length(part) > OVERLAP:
                yield number, held
                number, held = number + held.count("\n"), ""
            held += part
    yield number, f"{held}\n\n"


def _length(text: str) -> int:
    return len(text) + 2 * dense(text)
