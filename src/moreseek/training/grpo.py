"""GRPO and its relatives: reinforcement learning on verifiable problems, with no value network."""

import copy
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreseek.engine.engine import Engine
from moreseek.errors import FaultError, InputError
from moreseek.model.transformer import Transformer
from moreseek.records import Problem
from moreseek.rewards.rubric import Rubric
from moreseek.text.prompts import encode_problem
from moreseek.text.tokenizer import Tokenizer
from moreseek.training.device import autocast
from moreseek.training.objectives import (
    Clip,
    advantages,
    kl_penalty,
    policy_loss,
    sampler_ratios,
    token_weights,
)
from moreseek.training.order import EpochOrder
from moreseek.training.packing import RolloutBatch, pack
from moreseek.training.rollouts import Collector, Rollout, RolloutTimes, has_signal, measure
from moreseek.training.sampler import OutsideSampler
from moreseek.training.scoring import completion_logprobs
from moreseek.training.settings import GRPOSettings

MOST_MESSAGES, LONGEST_MESSAGE = 100, 300  # of verifiers that failed: what is kept of them
OTHERS = "others"


class GRPO:
    """The GRPO method: a step samples groups, scores them, and makes epochs × minibatches updates."""

    mtp_alone = True

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, problems: Sequence[Problem], settings: GRPOSettings, seed: int,
        outside: OutsideSampler | None = None, precision: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.settings, self.seed = model, tokenizer, settings, seed
        self.problems = list(problems)
        self.rubric = Rubric(settings.rubric)
        self.rubric.check(self.problems)
        if outside is None:
            self._check_room()
        self.outside, self.precision = outside, precision
        sampler = outside or Engine(model, settings.max_rows)
        self.collector = Collector(sampler, tokenizer, self.rubric, settings)
        self.reference = copy.deepcopy(model).eval().requires_grad_(False) if settings.kl_weight else None
        self.order = EpochOrder(len(self.problems), seed)
        self.recent: list[float] = []
        self._errors = Counter[str]()
        self._scored = 0
        self._groups: list[list[Rollout]] = []
        self._measured: dict[str, float] = {}
        self._started = 0.0

    def _check_room(self) -> None:
        """Raise InputError where a prompt and its longest completion pass the context: the engine would, later."""
        settings, context = self.settings, self.model.config.max_position_embeddings
        room = context - settings.max_completion_tokens
        around = len(self._prompt(Problem(prompt="?", answer="")))
        for problem in self.problems:
            if around + len(problem.prompt.encode()) <= room:  # a token is a byte or more
                continue
            tokens = len(self._prompt(problem))
            if tokens > room:
                raise InputError(
                    f"stage {settings.name}: the problem {problem.prompt[:80]!r} has {tokens} tokens; with "
                    f"max_completion_tokens {settings.max_completion_tokens} that passes the model's context of "
                    f"{context}. Lower max_completion_tokens, or leave the problem out."
                )

    def _prompt(self, problem: Problem) -> list[int]:
        return encode_problem(self.tokenizer, problem, self.settings.system_prompt, self.settings.prompt_template)

    # --- one step ----------------------------------------------------------------------------------------------

    def updates(self, step: int) -> Iterator[Sequence[RolloutBatch]]:
        self._started = time.monotonic()
        self._refresh_reference(step)
        if self.outside is not None:
            self.outside.renew(self.model, step)
        times = RolloutTimes()
        groups, drawn = self._collect(step, times)
        self._groups = groups or drawn
        self._measured = measure(drawn, self.settings) | {"sample_s": times.sample_s, "score_s": times.score_s}
        self._guard_verifiers(drawn)
        rollouts, advantage = self._with_advantages(groups)
        planned = [
            batches
            for epoch in range(self.settings.epochs)
            for part in self._minibatches(rollouts, step, epoch)
            if (batches := self._batches([rollouts[i] for i in part], [advantage[i] for i in part]))
        ]
        for number, batches in enumerate(planned):
            for batch in batches:
                batch.on_policy = number == 0
                if self.outside is not None and len(planned) > 1:
                    batch.old_logprobs = self._logprobs_now(batch)
        yield from planned

    def _collect(self, step: int, times: RolloutTimes) -> tuple[list[list[Rollout]], list[list[Rollout]]]:
        """The groups to learn from, and all that were drawn. Dynamic sampling draws again for silent groups."""
        wanted = self.settings.prompts_per_step
        kept: list[list[Rollout]] = []
        drawn: list[list[Rollout]] = []
        rounds = self.settings.max_sampling_rounds if self.settings.drops_silent_groups else 1
        for again in range(rounds):
            problems = [self._next_problem() for _ in range(wanted - len(kept))]
            seed = self.seed * 1_000_003 + step * 101 + again
            groups = self.collector.collect(problems, seed, times)
            drawn += groups
            kept += [group for group in groups if not self.settings.drops_silent_groups or has_signal(group)]
            if len(kept) >= wanted:
                break
        return kept, drawn

    def _next_problem(self) -> Problem:
        return self.problems[next(self.order)]

    def _with_advantages(self, groups: list[list[Rollout]]) -> tuple[list[Rollout], list[float]]:
        """Flat rollouts that give a gradient. Failed verifiers, and truncated ones if masked, are left out."""
        if not groups:
            return [], []
        rewards = np.array([[np.nan if r.reward is None else r.reward for r in group] for group in groups])
        values = advantages(rewards, self.settings.objective).ravel().tolist()
        flat = [rollout for group in groups for rollout in group]
        used = [
            index
            for index, rollout in enumerate(flat)
            if rollout.reward is not None and not (self.settings.mask_truncated and rollout.truncated)
        ]
        return [flat[i] for i in used], [values[i] for i in used]

    def _minibatches(self, rollouts: list[Rollout], step: int, epoch: int) -> list[list[int]]:
        order = list(range(len(rollouts)))
        count = min(self.settings.minibatches, len(order))
        if count == 0:
            return []
        if count > 1 or self.settings.epochs > 1:
            random.Random((self.seed * 1_000_003 + step) * 101 + epoch).shuffle(order)
        return [order[part::count] for part in range(count)]

    def _batches(self, rollouts: list[Rollout], advantage: list[float]) -> list[RolloutBatch]:
        settings = self.settings
        lengths = np.array([len(rollout.completion_ids) for rollout in rollouts])
        weight = token_weights(lengths, settings.objective, settings.max_completion_tokens)
        used = range(len(rollouts))
        if not settings.kl_weight and not settings.mtp_weight:
            # Without an advantage there is no gradient: computing it would change nothing but the time.
            used = [index for index in used if advantage[index] != 0]
        if not used:
            return []
        return pack(
            [rollouts[i] for i in used], [advantage[i] for i in used], [float(weight[i]) for i in used],
            settings.micro_batch_tokens, self.model.device,
        )  # fmt: skip

    def loss(self, batch: RolloutBatch) -> tuple[Tensor, dict[str, float]]:
        settings = self.settings
        logprobs, entropy, ahead = self._forward(self.model, batch)
        old, weight, parts = self._as_sampled(batch, logprobs.detach())
        clip = Clip(settings.clip_low, settings.clip_high)
        loss, clipped = policy_loss(settings.objective, logprobs, old, batch.advantage, weight, batch.owner, clip)
        parts |= {
            "trained_tokens": float(batch.targets.numel()),
            "entropy": float(entropy.sum()),
            "clipped": float(clipped.sum()),
        }
        if ahead is not None:
            parts["mtp_loss"] = float(ahead.detach())
            loss = loss + settings.mtp_weight * ahead / self._most_tokens
        if batch.on_policy:
            gap = (logprobs.detach() - batch.sampler_logprobs).abs()
            parts |= {"logprob_gap": float(gap.nansum()), "compared_tokens": float((~gap.isnan()).sum())}
        if self.reference is not None:
            with torch.no_grad():
                reference_logprobs, _, _ = self._forward(self.reference, batch)
            penalty = kl_penalty(logprobs, reference_logprobs)
            parts["kl"] = float(penalty.detach().sum())
            loss = loss + settings.kl_weight * (penalty * batch.weight).sum()
        return loss, parts

    def _as_sampled(self, batch: RolloutBatch, logprobs: Tensor) -> tuple[Tensor, Tensor, dict[str, float]]:
        """π_old and the tokens' weights, (M,) each. An outside engine's samples count π_old/μ times, up to the cap."""
        if self.outside is None:
            return batch.sampler_logprobs, batch.weight, {}
        old = logprobs if batch.old_logprobs is None else batch.old_logprobs
        ratio, cap = sampler_ratios(old, batch.sampler_logprobs), self.outside.ratio_cap
        parts = {"sampler_ratio": float(ratio.sum()), "sampler_unknown": float(batch.sampler_logprobs.isnan().sum())}
        if not cap:
            return old, batch.weight, parts
        return old, batch.weight * ratio.clamp(max=cap), parts | {"sampler_capped": float((ratio > cap).sum())}

    @torch.no_grad()
    def _logprobs_now(self, batch: RolloutBatch) -> Tensor:
        """Log-probabilities (M,) before the step's first update, in the precision of the updates."""
        with autocast(self.model.device, self.precision):
            return self._forward(self.model, batch)[0]

    def _forward(self, model: Transformer, batch: RolloutBatch) -> tuple[Tensor, Tensor, Tensor | None]:
        return completion_logprobs(model, batch, self.settings.temperature, self.settings.mtp_weight)

    @property
    def _most_tokens(self) -> int:
        """Completion tokens of a step at most: what sums over tokens are divided by, the same for all micro-batches."""
        settings = self.settings
        return settings.prompts_per_step * settings.group_size * settings.max_completion_tokens

    # --- what is kept and shown ----------------------------------------------------------------------------------

    def step_metrics(self, sums: dict[str, float]) -> dict[str, float]:
        count = max(1.0, sums.get("trained_tokens", 0.0))
        metrics = dict(self._measured)
        metrics["loss"] = sums.get("loss", 0.0)
        means = ("entropy", "clipped", "kl", "mtp_loss", "sampler_ratio", "sampler_capped", "sampler_unknown")
        metrics |= {key: sums[key] / count for key in means if key in sums}
        if "logprob_gap" in sums:
            metrics["logprob_gap"] = sums["logprob_gap"] / max(1.0, sums["compared_tokens"])
        total = time.monotonic() - self._started
        metrics["train_s"] = max(0.0, total - metrics["sample_s"] - metrics["score_s"])
        if "reward" in metrics:
            self.recent = [*self.recent, metrics["reward"]][-self.settings.stop_window :]
        return metrics

    def headline(self, metrics: dict[str, float]) -> str:
        alarm = " · logprob gap!" if metrics.get("logprob_gap", 0.0) > self.settings.logprob_gap_alarm else ""
        reward = f"{metrics['reward']:.3f}" if "reward" in metrics else "unknown"
        return f"reward {reward} · length {metrics['completion_tokens']:.1f}{alarm}"

    def sample(self) -> dict[str, Any] | None:
        if not self._groups:
            return None
        rollout = self._groups[0][0]
        return {"prompt": rollout.problem.prompt, "completion": rollout.text, "reward": rollout.reward}

    def finished(self) -> bool:
        goal, window = self.settings.stop_reward, self.settings.stop_window
        return goal is not None and len(self.recent) == window and sum(self.recent) / window >= goal

    def _guard_verifiers(self, groups: list[list[Rollout]]) -> None:
        """Stop once verifiers fail more often than allowed: a reward that is often missing trains on luck.

        A step without a single reward stops a run of any age: a verifier that is gone must not cost days of steps
        that learn nothing before the share of all completions tells.
        """
        limit = self.settings.max_verifier_error_share
        rollouts = [rollout for group in groups for rollout in group]
        failures = [next(iter(rollout.errors.items())) for rollout in rollouts if rollout.errors]
        self._scored += len(rollouts)
        self._errors.update(f"{name}: {message}"[:LONGEST_MESSAGE] for name, message in failures)
        self._forget_rare_errors()
        share = sum(self._errors.values()) / max(1, self._scored)
        if share > limit or (len(failures) == len(rollouts) and limit < 1):
            message, count = next(each for each in self._errors.most_common(2) if each[0] != OTHERS)
            raise FaultError(
                f"stage {self.settings.name}: verifiers failed on {share:.0%} of {self._scored} completions "
                f"(limit {limit:.0%}) and on {len(failures)} of the last {len(rollouts)}; {count} times: {message}. "
                "Mend the verifier and start the same command again: it goes on from the last checkpoint."
            )

    def _forget_rare_errors(self) -> None:
        """Of messages beyond the commonest only the number is kept: many quote what they could not read."""
        rare = [message for message, _ in self._errors.most_common()[MOST_MESSAGES:]]
        count = sum(self._errors.pop(message) for message in rare)
        if count:
            self._errors[OTHERS] += count

    # --- reference model and state -------------------------------------------------------------------------------

    def _refresh_reference(self, step: int) -> None:
        every = self.settings.reference_refresh_steps
        if self.reference is not None and every is not None and step > 1 and (step - 1) % every == 0:
            self.reference.load_state_dict(self.model.state_dict())

    def facts(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Any]:
        return {"cursor": self.order.drawn, "recent": self.recent, "errors": dict(self._errors), "scored": self._scored}

    def load_state(self, state: dict[str, Any]) -> None:
        self.order.drawn, self.recent, self._scored = state["cursor"], state["recent"], state["scored"]
        self._errors = Counter(state["errors"])

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.reference is None else {f"reference/{k}": v for k, v in self.reference.state_dict().items()}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        if self.reference is not None:
            self.reference.load_state_dict({k.removeprefix("reference/"): v for k, v in tensors.items()})
