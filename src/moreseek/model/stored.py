"""A model whose matrices stay in its file: an engine reads them part by part, packs them, and they are given back.

So serving a model takes the memory of the packed weights and little more, also while it starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moreseek.model.config import ModelConfig
from moreseek.model.slots import EMBEDDING, HEAD, Slot, parts, slots
from moreseek.model.transformer import Block, Transformer
from moreseek.model.weights import fill, load_model, open_weights
from moreseek.native.bindings import usable
from moreseek.native.pages import fresh_pages

ROWS = 4096  # of the head that are floats at a time: a multiple of 64
PIECES, PIECE = 1024, 64  # of a file, by which it is known again; bytes of each


class StoredTransformer(Transformer):
    """A Transformer with its embeddings, norms and biases; its matrices are empty but while they are at hand.

    Embeddings that are bf16 in the file stay so: of a small model with a large vocabulary they are most of what would
    lie in memory twice as large.
    """

    def __init__(self, config: ModelConfig, tensors: Mapping[str, Tensor], files: list[Path]) -> None:
        super().__init__(config)  # its weights are memory that nobody has touched yet
        self._tensors, self._files = tensors, files
        self._shapes = {p: p.shape for p in self.parameters() if p.dim() > 1}
        self._embeddings = _own(tensors[EMBEDDING])
        fill(filter(_stays, slots(self)), tensors)
        for matrix in self._shapes:
            matrix.data = torch.empty(0)
        self.eval()

    @property
    def embeddings(self) -> Tensor:
        return self._embeddings

    def head_in_turn(self) -> Iterator[Tensor]:
        head = self._embeddings if self.lm_head is None else self._tensors[HEAD]
        room = _room(ROWS * head.shape[1]).view(ROWS, -1)
        return (room[: len(rows)].copy_(rows) for rows in head.split(ROWS))

    @contextmanager
    def at_hand(self, part: nn.Module) -> Iterator[None]:
        with self._read(part, _room(self._size(part))):
            yield

    def layers_in_turn(self) -> Iterator[Block]:
        layers = cast(list[Block], list(self.layers))
        room = _room(max(map(self._size, layers)))  # for all: pages that are new cost more than what is read into them
        for layer in layers:
            with self._read(layer, room):
                yield layer

    def _size(self, part: nn.Module) -> int:
        return sum(math.prod(self._shapes[p]) for p in part.parameters() if p in self._shapes)

    @contextmanager
    def _read(self, part: nn.Module, room: Tensor) -> Iterator[None]:
        matrices = [p for p in part.parameters() if p in self._shapes]
        sizes = [math.prod(self._shapes[matrix]) for matrix in matrices]
        try:
            for matrix, data in zip(matrices, room[: sum(sizes)].split(sizes) if sizes else (), strict=True):
                matrix.data = data.view(self._shapes[matrix])
            found = (slot for module, slots in parts(self) if part is module for slot in slots)
            fill((slot for slot in found if not _stays(slot)), self._tensors)
            yield
        finally:
            for matrix in matrices:
                matrix.data = torch.empty(0)

    def embed(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self._embeddings).float()

    def logits(self, hidden: Tensor) -> Tensor:
        """As of any model, but each pass reads all of the file, part by part."""
        return torch.cat([hidden @ rows.t() for rows in self.head_in_turn()], -1)

    @property
    def size(self) -> int:
        return super().size + sum(map(math.prod, self._shapes.values()))

    def samples(self) -> Iterator[bytes]:
        for path in self._files:
            size = path.stat().st_size
            with path.open("rb") as file:
                for piece in range(PIECES):
                    file.seek(size * piece // PIECES)
                    yield file.read(PIECE)


def _room(size: int) -> Tensor:
    """For so many floats."""
    return fresh_pages(4 * size).view(torch.float32) if size else torch.empty(0)


def _own(embeddings: Tensor) -> Tensor:
    """Not the file's, which somebody may write anew, and in a type that the kernels look up."""
    kind = torch.bfloat16 if embeddings.dtype == torch.bfloat16 else torch.float32
    room = fresh_pages(embeddings.numel() * kind.itemsize).view(kind).view(embeddings.shape)
    return room.copy_(embeddings)


def _stays(slot: Slot) -> bool:
    """Whether a weight is read once and kept."""
    return len(slot.shape) == 1


def open_stored(path: Path) -> Transformer:
    """The model of a Hugging Face folder or a .gguf file for an engine: stored where the native kernels are, which pack
    its matrices, and else as load_model gives it. Raises InputError as that does.
    """
    if not usable(torch.empty(1)):
        return load_model(path)
    config, tensors = open_weights(path)
    return StoredTransformer(config, tensors, tensors.files)
