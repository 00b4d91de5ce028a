"""Next-token training on packed documents, with multi-token prediction and expert balancing."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreseek.data.loader import PackedBatch, PackedLoader
from moreseek.model.losses import cross_entropy
from moreseek.model.transformer import Transformer
from moreseek.training.settings import PretrainSettings


@dataclass
class _MicroBatch:
    ids: Tensor  # (b, T)
    targets: Tensor  # (b, T), −100 where nothing is predicted
    documents: Tensor | None  # (b, T), negative in padding; None when every row is one document
    share: float  # of the update's rows, for the balance loss
    denominator: float  # targets in the whole update
    mtp_denominator: float


class Pretrain:
    """The pretraining method: batches from the loader, cross-entropy + MTP + balance loss."""

    mtp_alone = False

    def __init__(self, model: Transformer, loader: PackedLoader, settings: PretrainSettings) -> None:
        self.model, self.loader, self.settings = model, loader, settings
        self._tokens, self._started = 0, time.monotonic()

    def updates(self, step: int) -> Iterator[Sequence[_MicroBatch]]:
        self._started = time.monotonic()
        batch = self.loader.next_batch()
        self._tokens = int((batch.document_ids >= 0).sum())
        yield self._split(batch)

    def _split(self, batch: PackedBatch) -> list[_MicroBatch]:
        rows, tokens = batch.input_ids.shape
        at_once = max(1, self.settings.micro_batch_tokens // tokens)
        counted = float((batch.targets >= 0).sum())
        mtp_counted = float((mtp_targets(batch.targets) >= 0).sum())
        device = self.model.device
        micro = []
        for low in range(0, rows, at_once):
            part = slice(low, low + at_once)
            documents = batch.document_ids[part]
            one_each = bool((documents == documents[:, :1]).all())
            micro.append(
                _MicroBatch(
                    ids=torch.from_numpy(batch.input_ids[part]).to(device),
                    targets=torch.from_numpy(batch.targets[part]).to(device),
                    documents=None if one_each else torch.from_numpy(documents).to(device),
                    share=len(documents) / rows,
                    denominator=max(1.0, counted),
                    mtp_denominator=max(1.0, mtp_counted),
                )
            )
        return micro

    def loss(self, batch: _MicroBatch) -> tuple[Tensor, dict[str, float]]:
        model = self.model
        real = None if batch.documents is None else batch.documents >= 0
        shared = model.start_pass(batch.ids, batch.documents, self.settings.balance_weight, real=real)
        hidden = model.hidden_states(batch.ids, shared=shared)
        main = cross_entropy(hidden, model.head, batch.targets, batch.denominator)
        parts = {"main": float(main.detach())}
        loss = main
        if model.mtp is not None and self.settings.mtp_weight:
            ahead = model.mtp_hidden_states(hidden, batch.ids, shared)
            targets = torch.from_numpy(mtp_targets(batch.targets.cpu().numpy())).to(batch.ids.device)
            mtp = cross_entropy(ahead, model.head, targets, batch.mtp_denominator)
            parts["mtp_loss"] = float(mtp.detach())
            loss = loss + self.settings.mtp_weight * mtp
        if shared.balance_losses:
            balance = torch.stack(shared.balance_losses).sum() * batch.share
            parts["balance_loss"] = float(balance.detach())
            loss = loss + balance
        return loss, parts

    def step_metrics(self, sums: dict[str, float]) -> dict[str, float]:
        metrics = {"loss": sums["main"], "total_loss": sums["loss"], "tokens": float(self._tokens)}
        metrics |= {key: sums[key] for key in ("mtp_loss", "balance_loss") if key in sums}
        metrics["tokens_per_s"] = self._tokens / max(1e-9, time.monotonic() - self._started)
        return metrics

    def headline(self, metrics: dict[str, float]) -> str:
        return f"loss {metrics['loss']:.3f} · {metrics['tokens_per_s'] / 1000:.1f}k tokens/s"

    def sample(self) -> None:
        return None

    def finished(self) -> bool:
        return False

    def facts(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"loader": self.loader.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state["loader"])

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        del tensors


def mtp_targets(targets: np.ndarray) -> np.ndarray:
    """Targets two tokens ahead, inside documents only: position i predicts what i+1 predicts, if i predicts at all."""
    ahead = np.full_like(targets, -100)
    inside = (targets[:, :-1] >= 0) & (targets[:, 1:] >= 0)
    ahead[:, :-1][inside] = targets[:, 1:][inside]
    return ahead
