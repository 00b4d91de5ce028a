"""The loader: whole documents packed into sequences, an order that follows from the seed, and exact resume."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from moreseek.data.shards import TokenShards
from moreseek.errors import InputError

IGNORE = -100
"""A target that the loss leaves out (torch's cross_entropy default)."""

PADDING = -1
_OPEN_SEQUENCES = 32
"""Sequences that are being filled at one time: more of them leave less padding. Small data sets open fewer, so
that no document waits for much of an epoch."""


@dataclass(frozen=True)
class PackedBatch:
    """One batch; all arrays are (batch_size, sequence_length).

    input_ids: int64. targets: int64, the next token of the same document, IGNORE at a document's end and in
    padding. document_ids: int32, counted from 0 in each sequence, PADDING where nothing stands.
    """

    input_ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    document_ids: NDArray[np.int32]

    @property
    def tokens(self) -> int:
        """Tokens that are not padding."""
        return int((self.document_ids != PADDING).sum())


class Piece(NamedTuple):
    """A run of one document's tokens: the whole of it, unless it is longer than a sequence."""

    shard: int
    document: int
    start: int
    length: int


class PackedLoader:
    """Batches of packed documents without end, epoch after epoch.

    Documents go first-fit into a bounded number of open sequences. All ranks plan the same sequences and each
    builds only its own, so a state saved by any rank resumes all of them. Raises InputError where the data set
    is empty or a size is impossible.
    """

    def __init__(
        self,
        shards: TokenShards,
        sequence_length: int,
        batch_size: int,
        seed: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        pad_id: int = 0,
    ) -> None:
        if not shards.tokens:
            raise InputError(f"{shards.folder}: the data set is empty.")
        if sequence_length < 2 or batch_size < 1 or not 0 <= rank < world_size:
            raise InputError(
                f"loader: sequence_length {sequence_length} (at least 2), batch_size {batch_size} (at least 1), "
                f"rank {rank} of {world_size}: these do not go together."
            )
        self._shards = shards
        self._sequence_length = sequence_length
        self._batch_size = batch_size
        self._rank, self._world_size = rank, world_size
        self._pad_id = pad_id
        self._packer = _Packer(shards, sequence_length, seed)

    @property
    def epoch(self) -> int:
        """Times that the whole data set has been read, counted by the planned documents."""
        return self._packer.epoch

    def next_batch(self) -> PackedBatch:
        """The next batch of this rank."""
        planned = [self._packer.next_sequence() for _ in range(self._batch_size * self._world_size)]
        shape = (self._batch_size, self._sequence_length)
        input_ids = np.full(shape, self._pad_id, dtype=np.int64)
        targets = np.full(shape, IGNORE, dtype=np.int64)
        document_ids = np.full(shape, PADDING, dtype=np.int32)
        for row, pieces in enumerate(planned[self._rank :: self._world_size]):
            self._fill(pieces, input_ids[row], targets[row], document_ids[row])
        return PackedBatch(input_ids, targets, document_ids)

    def state_dict(self) -> dict[str, Any]:
        """Where the loader stands: plain numbers, small, the same on every rank."""
        return self._packer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises InputError where it belongs to other data, seed or sequence length."""
        self._packer.load_state_dict(state)

    def _fill(
        self,
        pieces: list[Piece],
        input_ids: NDArray[np.int64],
        targets: NDArray[np.int64],
        document_ids: NDArray[np.int32],
    ) -> None:
        at = 0
        for number, (shard, document, start, length) in enumerate(pieces):
            tokens = self._shards.document(shard, document)[start : start + length + 1]
            input_ids[at : at + length] = tokens[:length]
            # One token more than the piece where the document goes on: a cut loses no target.
            targets[at : at + len(tokens) - 1] = tokens[1:]
            document_ids[at : at + length] = number
            at += length


class _Packer:
    """Plans sequences from document lengths alone. Its whole state is a place in the order and what is open."""

    def __init__(self, shards: TokenShards, sequence_length: int, seed: int) -> None:
        self._shards = shards
        self._room = sequence_length
        self._seed = seed
        self._most_open = max(1, min(_OPEN_SEQUENCES, shards.tokens // (8 * sequence_length)))
        self.epoch = 0
        self._taken = 0
        self._open: list[list[Piece]] = []
        self._free: list[int] = []
        self._ready: deque[list[Piece]] = deque()
        self._documents = self._order(skip=0)

    def next_sequence(self) -> list[Piece]:
        while not self._ready:
            self._add_document()
        return self._ready.popleft()

    def state_dict(self) -> dict[str, Any]:
        return {
            "identity": self._identity(),
            "epoch": self.epoch,
            "taken": self._taken,
            "open": [[list(piece) for piece in pieces] for pieces in self._open],
            "ready": [[list(piece) for piece in pieces] for pieces in self._ready],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["identity"] != self._identity():
            differing = [key for key, value in self._identity().items() if state["identity"].get(key) != value]
            raise InputError(
                f"loader: the saved state belongs to another {', '.join(differing)}. Start this stage anew."
            )
        self.epoch, self._taken = state["epoch"], state["taken"]
        self._open = [[Piece(*piece) for piece in pieces] for pieces in state["open"]]
        self._free = [self._room - sum(piece.length for piece in pieces) for pieces in self._open]
        self._ready = deque([Piece(*piece) for piece in pieces] for pieces in state["ready"])
        self._documents = self._order(skip=self._taken)

    def _identity(self) -> dict[str, Any]:
        """What a state is only good for."""
        return {"seed": self._seed, "sequence_length": self._room, "data": self._shards.digest}

    def _order(self, skip: int) -> Iterator[tuple[int, int, int]]:
        """(shard, document, length) in this epoch's order: shards shuffled, then the documents of each."""
        draw = np.random.default_rng([self._seed, self.epoch])
        for shard in draw.permutation(len(self._shards.lengths)).tolist():
            lengths = self._shards.lengths[shard]
            order = draw.permutation(len(lengths))
            if skip >= len(order):
                skip -= len(order)
                continue
            order, skip = order[skip:], 0
            for document, length in zip(order.tolist(), lengths[order].tolist(), strict=True):
                yield shard, document, length

    def _add_document(self) -> None:
        following = next(self._documents, None)
        if following is None:
            self.epoch += 1
            self._taken = 0
            self._documents = self._order(skip=0)
            following = next(self._documents)
        self._taken += 1
        shard, document, length = following
        for start in range(0, length, self._room):
            self._place(Piece(shard, document, start, min(self._room, length - start)))

    def _place(self, piece: Piece) -> None:
        length, free = piece.length, self._free
        i = next((number for number, room in enumerate(free) if room >= length), None)
        if i is None:
            if len(free) == self._most_open:
                self._close(0)  # the oldest, so that none waits for ever
            i = len(free)
            free.append(self._room)
            self._open.append([])
        self._open[i].append(piece)
        free[i] -= length
        if not free[i]:
            self._close(i)

    def _close(self, i: int) -> None:
        del self._free[i]
        self._ready.append(self._open.pop(i))
