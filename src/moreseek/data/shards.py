"""Token shards: tokenised documents on disk, read by memory map, for corpora larger than memory.

A folder holds ``shard-00000.tokens`` (little-endian uint16 or uint32, documents end to end),
``shard-00000.lengths`` (uint32, one a document) and ``index.json`` (counts, hashes, the tokenizer's fingerprint).
"""

import hashlib
import json
import os
import shutil
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from moreseek.errors import FaultError, InputError

INDEX = "index.json"
FORMAT = 1
SHARD_TOKENS = 2**25
_CODES = {"uint16": "H", "uint32": "I"}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShardEntry(_Record):
    """One shard's counts and the SHA-256 of its two files."""

    name: str
    documents: int
    tokens: int
    tokens_sha256: str
    lengths_sha256: str


class ShardIndex(_Record):
    """What index.json holds."""

    format: int = FORMAT
    dtype: Literal["uint16", "uint32"]
    vocab_size: int
    tokenizer_fingerprint: str
    documents: int
    tokens: int
    shards: tuple[ShardEntry, ...]


class TokenShards:
    """A folder of token shards, memory-mapped. ``len()`` is the number of documents.

    ``lengths[s]`` are the document lengths of shard s, (documents,) uint32; ``document(s, i)`` is the i-th one.
    """

    def __init__(self, folder: Path, index: ShardIndex) -> None:
        self.folder = folder
        self.index = index
        self._tokens = [_map(folder / f"{shard.name}.tokens", index.dtype) for shard in index.shards]
        self.lengths = [_map(folder / f"{shard.name}.lengths", "uint32") for shard in index.shards]
        self._starts = [_starts(lengths) for lengths in self.lengths]

    @classmethod
    def open(
        cls, folder: Path | str, tokenizer_fingerprint: str | None = None, *, verify: bool = True
    ) -> "TokenShards":
        """Open a folder that write_shards wrote.

        ``verify`` reads every byte once to compare the hashes; sizes are checked in any case. Raises InputError
        where a file is missing, cut short or altered, or the tokenizer is another one.
        """
        folder = Path(folder)
        index = _read_index(folder)
        if tokenizer_fingerprint is not None and tokenizer_fingerprint != index.tokenizer_fingerprint:
            raise InputError(f"{folder}: made with another tokenizer. Delete this folder to tokenise again.")
        for shard in index.shards:
            width = np.dtype(index.dtype).itemsize
            _check_file(folder / f"{shard.name}.tokens", shard.tokens * width, shard.tokens_sha256, verify)
            _check_file(folder / f"{shard.name}.lengths", shard.documents * 4, shard.lengths_sha256, verify)
        return cls(folder, index)

    def __len__(self) -> int:
        return self.index.documents

    @property
    def tokens(self) -> int:
        """How many tokens all documents hold."""
        return self.index.tokens

    @property
    def digest(self) -> str:
        """A hash of the data: other documents, another digest."""
        hashes = [f"{shard.tokens_sha256} {shard.lengths_sha256}" for shard in self.index.shards]
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:16]

    def document(self, shard: int, number: int) -> NDArray[np.unsignedinteger[Any]]:
        """Token ids of one document, (length,), a view of the file."""
        starts = self._starts[shard]
        return self._tokens[shard][starts[number] : starts[number + 1]]


def write_shards(
    folder: Path | str,
    documents_as_ids: Iterable[Sequence[int]],
    vocab_size: int,
    tokenizer_fingerprint: str,
    tokens: int | None = None,
    *,
    shard_tokens: int = SHARD_TOKENS,
) -> TokenShards:
    """Write tokenised documents as shards and open them.

    Stops after the document that reaches ``tokens``, or where the documents end; empty documents are left out.
    The folder appears whole or not at all. Raises InputError where the folder exists, there is no document,
    or an id is outside 0..vocab_size-1; FaultError where the disk is full.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder}: exists already. Open it, or delete it to tokenise again.")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed run left
    partial.mkdir(parents=True)
    try:
        writer = _Writer(partial, vocab_size, tokenizer_fingerprint, shard_tokens)
        for ids in documents_as_ids:
            writer.add(ids)
            if tokens is not None and writer.tokens >= tokens:
                break
        writer.close()
        partial.replace(folder)
        _sync_folder(folder.parent)
    except OSError as error:
        raise FaultError(f"{folder}: writing the shards failed ({error}). Is the disk full? Then run again.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return TokenShards.open(folder, verify=False)


class _Writer:
    """Collects documents in memory, one shard's worth at a time."""

    def __init__(self, folder: Path, vocab_size: int, fingerprint: str, shard_tokens: int) -> None:
        self._folder = folder
        self._dtype: Literal["uint16", "uint32"] = "uint16" if vocab_size <= 2**16 else "uint32"
        self._vocab_size = vocab_size
        self._fingerprint = fingerprint
        self._shard_tokens = shard_tokens
        self._entries: list[ShardEntry] = []
        self._written = 0
        self._clear()

    @property
    def tokens(self) -> int:
        return self._written + len(self._ids)

    def add(self, ids: Sequence[int]) -> None:
        if not ids:
            return
        try:
            self._ids.extend(ids)
        except OverflowError as error:
            raise self._wrong_id(ids) from error
        self._lengths.append(len(ids))
        if len(self._ids) >= self._shard_tokens:
            self._flush()

    def close(self) -> None:
        self._flush()
        if not self._entries:
            raise InputError("no documents: the sources gave nothing to tokenise.")
        index = ShardIndex(
            dtype=self._dtype,
            vocab_size=self._vocab_size,
            tokenizer_fingerprint=self._fingerprint,
            documents=sum(entry.documents for entry in self._entries),
            tokens=self._written,
            shards=tuple(self._entries),
        )
        _write(self._folder / INDEX, index.model_dump_json(indent=2).encode())
        _sync_folder(self._folder)

    def _flush(self) -> None:
        if not self._lengths:
            return
        ids = np.asarray(self._ids)
        if ids.max() >= self._vocab_size:
            raise self._wrong_id([int(ids.max())])
        name = f"shard-{len(self._entries):05d}"
        hashes = [
            _write(self._folder / f"{name}.{kind}", np.asarray(values).astype(dtype).tobytes())
            for kind, values, dtype in (
                ("tokens", ids, np.dtype(self._dtype).newbyteorder("<")),
                ("lengths", self._lengths, np.dtype("<u4")),
            )
        ]
        self._entries.append(
            ShardEntry(
                name=name,
                documents=len(self._lengths),
                tokens=len(self._ids),
                tokens_sha256=hashes[0],
                lengths_sha256=hashes[1],
            )
        )
        self._written += len(self._ids)
        self._clear()

    def _clear(self) -> None:
        self._ids = array(_CODES[self._dtype])
        self._lengths = array("I")

    def _wrong_id(self, ids: Sequence[int]) -> InputError:
        wrong = next(id for id in ids if not 0 <= id < self._vocab_size)
        return InputError(f"token id {wrong} is outside the vocabulary of {self._vocab_size}: does the tokenizer fit?")


def _write(path: Path, data: bytes) -> str:
    """Write and fsync a file; its SHA-256."""
    with path.open("wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    return hashlib.sha256(data).hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Not every system can; then the files' own fsync has to do."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _read_index(folder: Path) -> ShardIndex:
    path = folder / INDEX
    if not path.is_file():
        raise InputError(f"{folder}: no token shards here ({INDEX} is missing).")
    try:
        index = ShardIndex.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError, RecursionError) as error:
        raise InputError(f"{path}: not an index of token shards. Delete the folder to tokenise again.") from error
    if index.format != FORMAT:
        raise InputError(f"{path}: format {index.format}; this version reads {FORMAT}. Delete the folder.")
    if not index.documents or any("/" in shard.name or "\\" in shard.name for shard in index.shards):
        raise InputError(f"{path}: names no documents of its own folder. Delete the folder to tokenise again.")
    return index


def _check_file(path: Path, size: int, sha256: str, verify: bool) -> None:
    if not path.is_file():
        raise InputError(f"{path}: this shard is missing. Delete the folder to tokenise again.")
    found = path.stat().st_size
    if found != size:
        raise InputError(f"{path}: {size} bytes wanted, {found} found. Delete the folder to tokenise again.")
    if verify:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise InputError(f"{path}: its bytes were altered. Delete the folder to tokenise again.")


def _map(path: Path, dtype: str) -> NDArray[np.unsignedinteger[Any]]:
    """The file as a read-only array; a plain view of the map, whose slices are cheap."""
    return np.asarray(np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r"))


def _starts(lengths: NDArray[np.unsignedinteger[Any]]) -> NDArray[np.int64]:
    starts = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, dtype=np.int64, out=starts[1:])
    return starts
