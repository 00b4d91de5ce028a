"""Document sources for pretraining: text files, JSONL, or any function that is named in the recipe."""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moreseek.config import Settings
from moreseek.data.sources import call_source
from moreseek.errors import InputError
from moreseek.records import Conversation, Message, read_jsonl

Document = str | Conversation


class DocumentSource(Settings):
    """Where documents come from.

    ``source`` is "file" (``path``: a .txt or .jsonl file, or a folder of them) or "package.module:function",
    called with ``seed`` and ``settings``. ``weight`` is its share of the documents when sources are mixed.
    """

    source: str = "file"
    path: str | None = None
    settings: dict[str, Any] = {}
    weight: float = Field(1.0, gt=0.0, allow_inf_nan=False)


class _Line(BaseModel):
    """One line of a .jsonl: either a text or the messages of a conversation."""

    model_config = ConfigDict(extra="ignore")

    text: str | None = None
    messages: tuple[Message, ...] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> "_Line":
        if (self.text is None) == (self.messages is None):
            raise ValueError('a line needs either "text" or "messages"')
        if self.messages is not None:
            _check_turns([message.role for message in self.messages])
        return self


def iter_documents(sources: Sequence[DocumentSource], seed: int) -> Iterator[Document]:
    """Documents of all sources, mixed by weight, the same order for the same seed.

    A source that ends drops out and the others go on; the stream ends when all have. Raises InputError
    where a source is missing, malformed or empty.
    """
    if not sources:
        raise InputError("no document source: name at least one.")
    draw = random.Random(seed)
    streams = [_open(source, seed + i) for i, source in enumerate(sources)]
    weights = [source.weight for source in sources]
    while streams:
        chosen = draw.choices(range(len(streams)), weights)[0] if len(streams) > 1 else 0
        try:
            yield next(streams[chosen])
        except StopIteration:
            del streams[chosen], weights[chosen]


def _open(source: DocumentSource, seed: int) -> Iterator[Document]:
    if source.source != "file":
        where = {} if source.path is None else {"path": source.path}
        return iter(call_source(source.source, source.settings, seed=seed, **where))
    if source.settings:
        raise InputError(f"source = 'file' has no settings, found {', '.join(source.settings)}.")
    if source.path is None:
        raise InputError("source = 'file' needs a path: a .txt or .jsonl file, or a folder of them.")
    return _read_all(_files(Path(source.path)))


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _READERS and file.is_file())
        if not files:
            raise InputError(f"{path}: no .txt or .jsonl file in this folder.")
        return files
    if not path.is_file():
        raise InputError(f"{path}: no such file. Check the path in the recipe.")
    if path.suffix not in _READERS:
        raise InputError(f"{path}: a .txt or .jsonl file is needed, found '{path.suffix}'.")
    return [path]


def _read_all(files: Sequence[Path]) -> Iterator[Document]:
    for file in files:
        found = False
        for document in _READERS[file.suffix](file):
            found = True
            yield document
        if not found:
            raise InputError(f"{file}: holds no document.")


def _read_text(path: Path) -> Iterator[Document]:
    """One document a block; blocks are parted by blank lines. Only one block is in memory at a time."""
    block: list[str] = []
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(f"{path}:{number}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error
            if line.strip():
                block.append(line)
            elif block:
                yield "\n".join(block)
                block = []
    if block:
        yield "\n".join(block)


def _read_json_lines(path: Path) -> Iterator[Document]:
    for line in read_jsonl(path, _Line):
        if line.messages is not None:
            yield Conversation(messages=line.messages)
        elif line.text:
            yield line.text


_READERS = {".txt": _read_text, ".jsonl": _read_json_lines}


def _check_turns(roles: Sequence[str]) -> None:
    """A system message only first, then user and assistant in turn, an assistant last."""
    turns = roles[1:] if roles and roles[0] == "system" else roles
    expected = ["user", "assistant"] * (len(turns) // 2)
    if not turns or list(turns) != expected:
        found = ", ".join(roles) or "none"
        raise ValueError(f"turns must be user, assistant, user, assistant, … after any system message, found {found}")
