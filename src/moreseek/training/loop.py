"""The training loop. There is one: a method supplies ``updates()`` and ``loss()``, never a loop of its own."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

from moreseek.errors import FaultError
from moreseek.model.transformer import Transformer
from moreseek.text.tokenizer import Tokenizer
from moreseek.training.checkpoint import Checkpoint, load_latest, save_checkpoint, save_pair
from moreseek.training.device import autocast, calm_collector
from moreseek.training.metrics import MetricsFile, TensorBoard
from moreseek.training.optimizer import Optimizers, lr_factor
from moreseek.training.progress import StageProgress
from moreseek.training.settings import StageSettings


class Method(Protocol):
    """What a training method supplies.

    A step may hold several optimizer updates (GRPO's inner epochs), an update several micro-batches whose losses
    add up to the update's loss. Everything random is derived from the seed and the step, or kept in the state.
    """

    mtp_alone: bool
    """Whether the loss of the MTP module moves no other weight; its gradients then are clipped by themselves."""

    def updates(self, step: int) -> Iterator[Sequence[Any]]:
        """The updates of a step, each a list of micro-batches. Steps count from 1."""
        ...

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float]]:
        """The micro-batch's share of the loss, and sums to add to the step's metrics."""
        ...

    def step_metrics(self, sums: dict[str, float]) -> dict[str, float]:
        """Metrics of the step that just ended, from what its losses added up to."""
        ...

    def headline(self, metrics: dict[str, float]) -> str: ...

    def sample(self) -> dict[str, Any] | None:
        """A sample for samples.jsonl and the screen, when there is a new one."""
        ...

    def finished(self) -> bool:
        """True when the goal is reached before the last step."""
        ...

    def facts(self) -> dict[str, Any]:
        """What stage.json says of the stage beside what every method has."""
        ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...

    def tensors(self) -> dict[str, Tensor]:
        """Tensors beyond model and optimizer that a resume needs (a reference model)."""
        ...

    def load_tensors(self, tensors: dict[str, Tensor]) -> None: ...


class StoppedError(FaultError):
    """The user or the system asked to stop; everything up to the last step is saved."""

    exit_code = 130


class Loop:
    """Runs one stage of training in its folder, resuming where a checkpoint says."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        method: Method,
        settings: StageSettings,
        folder: Path,
        precision: torch.dtype = torch.float32,
        tensorboard: bool = False,
    ) -> None:
        self.model, self.tokenizer, self.method, self.settings, self.folder = model, tokenizer, method, settings, folder
        self.precision = precision
        self.optimizers = Optimizers(model, settings.optimizer, model.device)
        self.routers = model.routers()
        self.ema = {n: p.detach().clone() for n, p in model.named_parameters()} if settings.ema_decay else {}
        self.step, self.elapsed_s, self.tokens = 0, 0.0, 0
        self.resumed_s = 0.0  # of elapsed_s, what earlier processes spent
        self._complete = False
        self._stop = threading.Event()
        self._metrics = MetricsFile(folder / "metrics.jsonl")
        self._samples = MetricsFile(folder / "samples.jsonl")
        self._tensorboard = TensorBoard(folder / "tensorboard", tensorboard)

    def run(self, on_step: Callable[[int], None] | None = None) -> None:
        """Train to the end, or raise: FaultError on NaN or a full disk, StoppedError on SIGINT or SIGTERM."""
        progress = StageProgress(self.settings.name, self.settings.steps, self.step)
        self._resume(progress.note)
        progress = StageProgress(self.settings.name, self.settings.steps, self.step)
        calm_collector()
        with progress, _StopOnSignal(self._stop, progress.note):
            while self.step < self.settings.steps and not self._complete:
                started = time.monotonic()
                metrics = self._train_step(self.step + 1)
                self.step += 1
                self.elapsed_s += time.monotonic() - started
                self._complete = self.method.finished()
                self._record(metrics, progress)
                last = self._complete or self.step == self.settings.steps
                if last or self.step % self.settings.checkpoint_every_steps == 0 or self._stop.is_set():
                    self._save()
                if on_step is not None:
                    on_step(self.step)
                if self._stop.is_set():
                    raise StoppedError(f"stopped at step {self.step}; saved. The same command goes on from here.")
        for file in (self._metrics, self._samples, self._tensorboard):
            file.close()
        self._use_ema()

    def _train_step(self, step: int) -> dict[str, float]:
        factor = lr_factor(step, self.settings.steps, self.settings.optimizer)
        sums: dict[str, float] = {}
        norms: list[float] = []
        self.model.train()
        for update in self.method.updates(step):
            total = torch.zeros((), device=self.model.device)
            for batch in update:
                with autocast(self.model.device, self.precision):
                    loss, parts = self.method.loss(batch)
                loss.backward()
                total += loss.detach().float()
                for key, value in parts.items():
                    sums[key] = sums.get(key, 0.0) + value
            norms.append(self._apply(step, float(total), factor))
            sums["loss"] = sums.get("loss", 0.0) + float(total)
        imbalance = [router.update_bias(self.settings.bias_step) for router in self.routers]
        metrics = self.method.step_metrics(sums)
        self.tokens += int(metrics.get("tokens", 0))
        if imbalance and norms:
            metrics["expert_load_max"] = max(imbalance)
        if norms:
            metrics |= {"grad_norm": sum(norms) / len(norms), "lr": self.settings.optimizer.lr * factor}
        return metrics

    def _apply(self, step: int, loss: float, factor: float) -> float:
        """Clip, check, step. Returns the gradient norm before clipping."""
        together, apart = list[Tensor](), list[Tensor]()
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None:
                (apart if self.method.mtp_alone and name.startswith("mtp.") else together).append(parameter)
        norm, mtp_norm = (
            float(torch.nn.utils.clip_grad_norm_(part, self.settings.optimizer.clip_norm, foreach=True))
            for part in (together, apart)
        )
        if not math.isfinite(loss + norm + mtp_norm):
            self.optimizers.zero_grad()
            raise FaultError(self._diverged(step, f"the loss is {loss}, the gradient norm {norm + mtp_norm}"))
        self.optimizers.step(factor)
        if self.ema:
            names = dict(self.model.named_parameters())
            torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
                list(self.ema.values()), [names[name].detach() for name in self.ema], 1 - (self.settings.ema_decay or 0)
            )
        return norm

    def _diverged(self, step: int, what: str) -> str:
        return (
            f"stage {self.settings.name}, step {step}: {what}. The last good checkpoint is kept. "
            "A lower learning rate, or precision = 'fp32', usually helps; "
            "change it with --set and add --accept-changes to go on from there."
        )

    def _record(self, metrics: dict[str, float], progress: StageProgress) -> None:
        line = {"step": self.step, **metrics, "elapsed_s": round(self.elapsed_s, 3)}
        self._metrics.write(line)
        self._tensorboard.write(line)
        sample = self.method.sample()
        if sample is not None:
            self._samples.write({"step": self.step, **sample})
        shown = None if sample is None else f"{sample['prompt']} {sample['completion']}"
        progress.update(self.step, self.method.headline(metrics), shown)

    # --- checkpoints -------------------------------------------------------------------------------------------

    def _save(self) -> None:
        self._refuse_broken_weights()
        tensors = dict(self.optimizers.state())
        tensors |= {f"ema/{name}": tensor for name, tensor in self.ema.items()}
        tensors |= {f"method/{name}": tensor for name, tensor in self.method.tensors().items()}
        tensors["rng/torch"] = torch.get_rng_state()
        state = {
            "step": self.step, "elapsed_s": self.elapsed_s, "tokens": self.tokens, "complete": self._complete,
            "method": self.method.state(),
        }  # fmt: skip
        fill = partial(save_pair, self.model, self.tokenizer)
        save_checkpoint(self.folder / "checkpoints", self.step, fill, tensors, state, self.settings.keep_checkpoints)

    def _refuse_broken_weights(self) -> None:
        """A loss is finite one step longer than the weights that give it: such a checkpoint would end every resume."""
        for name, parameter in self.model.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise FaultError(self._diverged(self.step, f"{name} holds values that are not finite"))

    def _resume(self, note: Callable[[str], None]) -> None:
        found = load_latest(self.folder / "checkpoints", note)
        if found is not None:
            self._load(found)
            self.resumed_s = self.elapsed_s
            note(f"going on after step {self.step}")
        self._metrics.truncate_after(self.step)
        self._samples.truncate_after(self.step)

    def _load(self, found: Checkpoint) -> None:
        from moreseek.model.weights import import_tensors, read_tensors

        import_tensors(self.model, read_tensors(found.model_folder), str(found.model_folder))
        tensors = found.tensors
        self.optimizers.load_state(tensors)
        for name in self.ema:
            self.ema[name].copy_(tensors[f"ema/{name}"])
        method = {k.removeprefix("method/"): v for k, v in tensors.items() if k.startswith("method/")}
        self.method.load_tensors(method)
        torch.set_rng_state(tensors["rng/torch"])
        state = found.state
        self.step, self.elapsed_s, self.tokens = state["step"], state["elapsed_s"], state["tokens"]
        self._complete = state["complete"]
        self.method.load_state(state["method"])

    @torch.no_grad()
    def _use_ema(self) -> None:
        for name, parameter in self.model.named_parameters():
            if name in self.ema:
                parameter.copy_(self.ema[name])


class _StopOnSignal(AbstractContextManager[None]):
    """SIGINT and SIGTERM finish the step, save and stop; a second one ends at once. Main thread only."""

    def __init__(self, stop: threading.Event, note: Callable[[str], None]) -> None:
        self.stop, self.note = stop, note
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.stop.is_set():
            raise KeyboardInterrupt
        self.stop.set()
        self.note("stopping after this step; once more to stop at once and lose it")

    def __exit__(self, *_: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
