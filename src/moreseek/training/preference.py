"""Direct preference optimisation: learning from pairs of answers of which people or judges preferred one."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from moreseek.errors import InputError
from moreseek.model.transformer import Transformer
from moreseek.training.device import autocast
from moreseek.training.order import EpochOrder
from moreseek.training.packing import CompletionBatch, lay_out
from moreseek.training.pairs import EncodedPair, EncodedPairs
from moreseek.training.scoring import completion_logprobs
from moreseek.training.settings import PreferenceSettings


def preference_loss(margin: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """−(1 − ε) log σ(margin) − ε log σ(−margin), each (N,): DPO (Rafailov et al. 2023, eq. 7) where ε = 0.

    margin: how much higher the chosen answer's reward β log(π/π_ref) is than the rejected one's. ε is the share of
    labels that are taken to be wrong: conservative DPO (Mitchell 2023, "A note on DPO with noisy preferences").
    """
    return -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)


@dataclass
class PairedAnswers:
    """n whole pairs as one forward pass. Column 0 is the chosen answer, column 1 the rejected one."""

    completions: CompletionBatch
    place: Tensor  # (n, 2) int64: the owner that each answer has in ``completions``
    lengths: Tensor  # (n, 2) fp32: tokens of each answer

    def sums(self, logprobs: Tensor) -> Tensor:
        """(M,) log-probabilities of tokens → (n, 2) of answers."""
        sums = logprobs.new_zeros(self.place.numel()).index_add(0, self.completions.owner, logprobs)
        return sums[self.place]


@dataclass
class PairBatch(PairedAnswers):
    """Pairs with what their losses are made of."""

    reference: Tensor  # (n, 2) fp32: the starting model's log-probability of each answer
    weight: Tensor  # (n,) fp32: the pair's share of the update's loss
    update_tokens: int  # of all answers of the update


class PreferenceTraining:
    """The preference method. The reference is the model that the stage starts from: what it makes of each pair is
    computed once, before the first step, and kept in the checkpoints, so that no second model is held in memory.
    """

    mtp_alone = True

    def __init__(
        self, model: Transformer, pairs: EncodedPairs, settings: PreferenceSettings, seed: int,
        precision: torch.dtype = torch.float32, progress: Callable[..., None] = lambda *_: None,
    ) -> None:  # fmt: skip
        self.model, self.pairs, self.settings = model, pairs, settings
        self.precision, self.progress = precision, progress
        self.order = EpochOrder(len(pairs.train), seed)
        self.reference: Tensor | None = None  # (train + heldout, 2) fp32, on the CPU
        self.before: dict[str, float] = {}  # of the held-out pairs, under the starting model
        self.after: dict[str, float] = {}
        self._step, self._tokens, self._started = 0, 0, 0.0

    # --- one step ----------------------------------------------------------------------------------------------

    def updates(self, step: int) -> Iterator[Sequence[PairBatch]]:
        self._started, self._step = time.monotonic(), step
        if self.reference is None:
            self.reference = self._logprobs([*self.pairs.train, *self.pairs.heldout], self.progress)
            self.before = self._examine(self.reference[len(self.pairs.train) :])
        drawn = [next(self.order) for _ in range(self.settings.pairs_per_step)]
        pairs = [self.pairs.train[index] for index in drawn]
        self._tokens = sum(pair.tokens for pair in pairs)
        weight = torch.tensor([pair.agreement if self.settings.weight_by_votes else 1.0 for pair in pairs])
        weight, device = weight / weight.sum(), self.model.device
        answers = int(answer_lengths(pairs).sum())
        yield [
            PairBatch(
                **vars(lay_out_pairs([pairs[i] for i in part], device)),
                reference=self.reference[[drawn[i] for i in part]].to(device),
                weight=weight[part].to(device),
                update_tokens=answers,
            )
            for part in parts(pairs, self.settings.micro_batch_tokens)
        ]

    def loss(self, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
        settings = self.settings
        logprobs, _, ahead = completion_logprobs(self.model, batch.completions, mtp_weight=settings.mtp_weight)
        sums = batch.sums(logprobs)
        change = sums - batch.reference
        rewards = self._rewards(change, batch.lengths)
        margin = rewards[:, 0] - rewards[:, 1]
        nll = -sums[:, 0] / batch.lengths[:, 0]
        loss = (preference_loss(margin, settings.label_smoothing) * batch.weight).sum()
        if settings.nll_weight:
            loss = loss + settings.nll_weight * (nll * batch.weight).sum()
        with torch.no_grad():
            chosen, rejected = rewards.sum(0).tolist()
            parts = {
                "pairs": float(len(margin)), "reward_margin": float(margin.sum()), "reward_accuracy": right(margin),
                "chosen_reward": chosen, "rejected_reward": rejected, "nll": float(nll.sum()),
            }  # fmt: skip
            for column, side in enumerate(("chosen", "rejected")):
                parts[f"{side}_change"] = float(change[:, column].sum())
                parts[f"{side}_tokens"] = float(batch.lengths[:, column].sum())
        if ahead is not None:
            parts["mtp_loss"] = float(ahead.detach())
            loss = loss + settings.mtp_weight * ahead / batch.update_tokens
        return loss, parts

    def _rewards(self, change: Tensor, lengths: Tensor) -> Tensor:
        """β log(π/π_ref) of each answer, (n, 2); a token, where it is length-normalised."""
        return self.settings.beta * (change / lengths if self.settings.length_normalised else change)

    # --- what is measured ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def _logprobs(self, pairs: Sequence[EncodedPair], progress: Callable[..., None] = lambda *_: None) -> Tensor:
        """Log-probability of every answer under the model as it stands: (N, 2) fp32 on the CPU."""
        found, done = torch.zeros(len(pairs), 2), 0
        with autocast(self.model.device, self.precision):
            for part in parts(pairs, self.settings.micro_batch_tokens):
                batch = lay_out_pairs([pairs[i] for i in part], self.model.device)
                found[part] = batch.sums(completion_logprobs(self.model, batch.completions)[0]).float().cpu()
                done += len(part)
                progress("pairs scored", done, len(pairs))
        return found

    def _examine(self, logprobs: Tensor) -> dict[str, float]:
        """How the held-out pairs stand: logprobs (H, 2) are the policy's. Empty where there are none."""
        assert self.reference is not None
        if not self.pairs.heldout:
            return {}
        lengths = answer_lengths(self.pairs.heldout)
        rewards = self._rewards(logprobs - self.reference[len(self.pairs.train) :], lengths)
        margin = rewards[:, 0] - rewards[:, 1]
        own = logprobs / lengths if self.settings.length_normalised else logprobs
        return {
            "heldout_loss": float(preference_loss(margin, self.settings.label_smoothing).mean()),
            "heldout_reward_margin": float(margin.mean()),
            "heldout_reward_accuracy": right(margin) / len(margin),
            "heldout_likelier": right(own[:, 0] - own[:, 1]) / len(margin),
        }

    def step_metrics(self, sums: dict[str, float]) -> dict[str, float]:
        metrics = {"loss": sums["loss"]}
        for key in ("reward_margin", "reward_accuracy", "chosen_reward", "rejected_reward", "nll"):
            metrics[key] = sums[key] / sums["pairs"]
        for side in ("chosen", "rejected"):
            metrics[f"{side}_drift"] = sums[f"{side}_change"] / sums[f"{side}_tokens"]
        if "mtp_loss" in sums:
            metrics["mtp_loss"] = sums["mtp_loss"] / (sums["chosen_tokens"] + sums["rejected_tokens"])
        if self._step % self.settings.heldout_every_steps == 0 or self._step == self.settings.steps:
            self.after = self._examine(self._logprobs(self.pairs.heldout))
            metrics |= self.after
        metrics |= {"epoch": self.order.drawn / len(self.pairs.train), "tokens": float(self._tokens)}
        metrics["tokens_per_s"] = self._tokens / max(1e-9, time.monotonic() - self._started)
        return metrics

    def headline(self, metrics: dict[str, float]) -> str:
        shown = f"loss {metrics['loss']:.3f} · chosen over rejected {metrics['reward_accuracy']:.1%}"
        heldout = metrics.get("heldout_reward_accuracy")
        return shown if heldout is None else f"{shown}, held out {heldout:.1%}"

    def sample(self) -> None:
        return None

    def finished(self) -> bool:
        return False

    def facts(self) -> dict[str, Any]:
        texts = 2 * (len(self.pairs.train) + len(self.pairs.heldout))
        tokens = sum(pair.tokens for pair in (*self.pairs.train, *self.pairs.heldout))
        questions = len({tuple(pair.chosen.prompt_ids) for pair in self.pairs.heldout})
        found: dict[str, Any] = {"pairs": len(self.pairs.train), "heldout_pairs": len(self.pairs.heldout)}
        found |= {"heldout_questions": questions, "too_long": self.pairs.too_long, "tokens": tokens}
        found |= {"mean_tokens": round(tokens / texts), "before": self.before, "after": self.after}
        return {"preference": found}

    # --- state ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        return {"drawn": self.order.drawn, "before": self.before, "after": self.after, "pairs": self.pairs.digest}

    def load_state(self, state: dict[str, Any]) -> None:
        if state["pairs"] != self.pairs.digest:
            raise InputError(
                f"stage '{self.settings.name}': the pairs are not those of the checkpoint, whose starting model is no "
                "longer there to judge them. Start the stage again: remove its folder."
            )
        self.order.drawn, self.before, self.after = state["drawn"], state["before"], state["after"]

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.reference is None else {"reference": self.reference}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        self.reference = tensors["reference"]


def right(margin: Tensor) -> float:
    """How many of the margins (N,) are above 0; one that is 0 counts half."""
    return float((margin > 0).sum() + 0.5 * (margin == 0).sum())


def answer_lengths(pairs: Sequence[EncodedPair]) -> Tensor:
    """Tokens of the chosen and the rejected answers: (N, 2) fp32."""
    return torch.tensor([[float(len(side.completion_ids)) for side in pair.sides] for pair in pairs])


def lay_out_pairs(pairs: Sequence[EncodedPair], device: torch.device) -> PairedAnswers:
    """All of these pairs as one pass."""
    [completions] = lay_out([side for pair in pairs for side in pair.sides], sys.maxsize, device)
    place = torch.empty(2 * len(pairs), dtype=torch.int64)
    place[completions.members] = torch.arange(2 * len(pairs))
    return PairedAnswers(completions, place.view(-1, 2).to(device), answer_lengths(pairs).to(device))


def parts(pairs: Sequence[EncodedPair], tokens_at_once: int) -> list[list[int]]:
    """Pairs by falling length, cut into parts of at most about so many tokens; a pair is never parted."""
    found: list[list[int]] = []
    most = 0
    for index in sorted(range(len(pairs)), key=lambda i: (-pairs[i].longest, i)):
        if not found or (len(found[-1]) + 1) * most > tokens_at_once:
            found.append([])
            most = 2 * pairs[index].longest  # a pair of the part as the widest layout has it
        found[-1].append(index)
    return found
