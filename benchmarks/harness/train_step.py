"""Our side of benchmarks/train.py: seconds of one training step. Prints the JSON line of peers/transformers_train.py.

    python benchmarks/harness/train_step.py --model FOLDER --steps 5

A step is the loop's: forward, cross-entropy, backward, clip to 1.0, AdamW (fused), gradients dropped. fp32, not
compiled. Tokens and settings are those of the peer, so that the losses can be held to each other.
"""

import argparse
import json
import time
from pathlib import Path

import torch

from moreseek.model.losses import cross_entropy
from moreseek.model.transformer import Transformer, flops_per_token
from moreseek.model.weights import load_model
from moreseek.training.device import calm_collector, keep_freed_memory
from moreseek.training.optimizer import Optimizers
from moreseek.training.settings import OptimizerSettings


def step(model: Transformer, optimizers: Optimizers, ids: torch.Tensor, targets: torch.Tensor) -> float:
    loss = cross_entropy(model.hidden_states(ids), model.head, targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), optimizers.settings.clip_norm, foreach=True)
    optimizers.step(1.0)
    return loss.item()


def matmul_peak(size: int = 1024, seconds: float = 1.0) -> float:
    """FLOP a CPU second of a large fp32 product, the best of a second's worth."""
    a, out = torch.ones(size, size), torch.empty(size, size)
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.thread_time()
        torch.mm(a, a, out=out)
        best = min(best, time.thread_time() - started)
    return 2 * size**3 / best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a Hugging Face folder")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sequence", type=int, default=256)
    parser.add_argument("--steps", type=int, default=5, help="measured steps, after one warm-up step")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    model = load_model(args.model).train()
    optimizers = Optimizers(model, OptimizerSettings(lr=3e-4, weight_decay=0.1, clip_norm=1.0), model.device)
    generator = torch.Generator().manual_seed(args.seed)
    shape = (args.steps + 1, args.batch, args.sequence)
    batches = torch.randint(0, model.config.vocab_size, shape, generator=generator)
    calm_collector()  # as the loop does
    wall, cpu, losses = [], [], []
    for ids in batches:
        targets = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], -100)], dim=1)
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        losses.append(step(model, optimizers, ids, targets))
        wall.append(round(time.perf_counter() - wall_start, 4))
        cpu.append(round(time.process_time() - cpu_start, 4))
    tokens = args.batch * args.sequence
    result = {"seconds_per_step": wall[1:], "cpu_seconds_per_step": cpu[1:], "tokens_per_step": tokens, "loss": losses}
    result |= {"flops_per_step": flops_per_token(model, args.sequence, training=True) * tokens}
    print(json.dumps(result | {"matmul_peak": matmul_peak()}))


if __name__ == "__main__":
    main()
