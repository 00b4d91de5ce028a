"""Learning-rate schedule, Muon for hidden matrices, AdamW for the rest; state as named tensors."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from moreseek.training.settings import OptimizerSettings


def lr_factor(step: int, total: int, settings: OptimizerSettings) -> float:
    """Warm-up, stable, decay. step counts from 1 to total; the result multiplies every learning rate."""
    if step <= settings.warmup_steps:
        return step / (settings.warmup_steps + 1)
    decay_steps = round(total * settings.decay_share)
    into_decay = step - (total - decay_steps)
    if decay_steps == 0 or into_decay <= 0:
        return 1.0
    done = into_decay / (decay_steps + 1)
    remaining = 1 - done if settings.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return settings.final_lr_share + (1 - settings.final_lr_share) * remaining


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalised by Newton-Schulz (Jordan et al. 2024), for matrices and stacks of matrices.

    Equal shapes are orthogonalised in one batched product, since on small models the price is ops, not FLOPs.
    A stacked tensor (E, rows, columns) is E separate matrices. The step is scaled by sqrt(max(1, rows / columns)).
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            buckets: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    buckets[parameter.shape].append(parameter)
            for bucket in buckets.values():
                self._step_bucket(bucket, group)

    def _step_bucket(self, bucket: list[nn.Parameter], group: dict[str, Any]) -> None:
        updates = []
        for parameter in bucket:
            assert parameter.grad is not None
            state = self.state[parameter]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - group["momentum"])
            updates.append(torch.lerp(parameter.grad, state["momentum"], group["momentum"]))  # Nesterov
        stacked = torch.stack(updates)
        matrices = stacked.view(-1, *stacked.shape[-2:])
        scale = max(1.0, matrices.shape[-2] / matrices.shape[-1]) ** 0.5
        orthogonal = orthogonalise(matrices).view(stacked.shape)
        for parameter, update in zip(bucket, orthogonal, strict=True):
            if group["weight_decay"]:
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-group["lr"] * scale)


def orthogonalise(matrices: Tensor, steps: int = 5) -> Tensor:
    """Push the singular values of each (rows, columns) matrix of a (N, rows, columns) stack towards 1.

    The quintic of Jordan et al.; they end between about 0.7 and 1.2.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.float().transpose(-2, -1) if tall else matrices.float()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = torch.bmm(x, x.transpose(-2, -1))
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return (x.transpose(-2, -1) if tall else x).to(matrices.dtype)


class Optimizers:
    """One or two torch optimizers under one schedule, with their state under parameter names."""

    def __init__(self, model: nn.Module, settings: OptimizerSettings, device: torch.device) -> None:
        self.settings = settings
        self.names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        hidden, rest = [], []
        for name, parameter in model.named_parameters():
            is_hidden = parameter.dim() >= 2 and not name.startswith(("embed_tokens", "lm_head"))
            (hidden if settings.name == "muon" and is_hidden and ".gate.weight" not in name else rest).append(parameter)
        self.fused = device.type in ("cpu", "cuda", "xpu")
        adamw = torch.optim.AdamW(
            _decay_groups(rest, settings.weight_decay),
            lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps, fused=self.fused,
        )  # fmt: skip
        self.parts: list[tuple[torch.optim.Optimizer, float]] = [(adamw, settings.lr)]
        if hidden:
            muon = Muon(hidden, settings.muon_lr, settings.muon_momentum, settings.weight_decay)
            self.parts.append((muon, settings.muon_lr))

    def step(self, factor: float) -> None:
        for optimizer, lr in self.parts:
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        for optimizer, _ in self.parts:
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """(parameter name / state name, tensor) of everything a resume needs."""
        for optimizer, _ in self.parts:
            for parameter, values in optimizer.state.items():
                for key, value in values.items():
                    yield f"{self.names[parameter]}/{key}", torch.as_tensor(value)

    @torch.no_grad()
    def load_state(self, tensors: dict[str, Tensor]) -> None:
        for optimizer, _ in self.parts:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    prefix = self.names[parameter] + "/"
                    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
                    if found:
                        optimizer.state[parameter] = {
                            # AdamW counts its steps on the CPU, unless it is fused
                            key: value.to("cpu" if key == "step" and not self.fused else parameter.device, copy=True)
                            for key, value in found.items()
                        }


def _decay_groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Norms and biases are never decayed."""
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
