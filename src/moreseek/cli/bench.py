"""`moreseek bench`: what the engine does with a model on this machine, and how far that is from the machine's limit."""

import random
import time
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from moreseek.engine.engine import Engine
from moreseek.engine.llm import open_model
from moreseek.engine.precision import Asked, choose_precision
from moreseek.engine.sampling import SamplingParams
from moreseek.model.cache import bytes_per_token
from moreseek.model.transformer import Transformer, flops_per_token
from moreseek.native.bindings import usable
from moreseek.native.step import GROUP, Precision, read_memory
from moreseek.run_folder import resolve_model
from moreseek.training.device import measured_matmul_gflops, sampling_device, set_threads

COPIED = 1 << 28  # bytes, more than any cache holds
BYTES_OF_A_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "int8": 1 + 4 / GROUP}
INT8_FACTOR = 4  # byte products that an instruction makes for one of floats


def measure(
    model: str, batches: list[int], prompt_tokens: int, new_tokens: int, asked: Asked = "auto", rounds: int = 3
) -> dict[str, Any]:
    """Tokens a second of reading and of writing at several batch sizes, beside what arithmetic and memory allow.

    A decoded token of a batch needs the weights read once for all its rows, and each row's own cache; and its
    arithmetic. The limit is the slower of the two at the speeds that are measured here: of a large matrix product in
    the chosen type (int8: four times fp32's), and of reading memory.
    """
    device = sampling_device()
    threads = set_threads(None)
    loaded = open_model(resolve_model(model), asked, device)
    precision = choose_precision(loaded, asked)
    with torch.device("meta"):
        shapes = Transformer(loaded.config)  # of all matrices, which the opened model may not hold
    peak, bandwidth = _peak(precision, device.type), read_bandwidth()
    context = loaded.config.max_position_embeddings
    prompt_tokens = max(1, min(prompt_tokens, context - new_tokens))
    results = []
    for batch in batches:
        read, wrote = _measure_batch(loaded, precision, batch, prompt_tokens, new_tokens, rounds)
        limit = decode_limit(shapes, precision, batch, prompt_tokens + new_tokens // 2, peak, bandwidth)
        results.append({
            "batch": batch, "read_tokens_s": round(read), "write_tokens_s": round(wrote),
            "limit_tokens_s": round(limit), "share_of_limit": round(wrote / limit, 3),
        })  # fmt: skip
    return {
        "model": model, "device": str(device), "threads": threads, "precision": precision,
        "native": usable(loaded.embed_tokens.weight),
        "parameters": loaded.size, "prompt_tokens": prompt_tokens,
        "new_tokens": new_tokens, "matmul_gflops": round(peak / 1e9), "memory_gb_s": round(bandwidth / 1e9, 1),
        "cache_bytes_a_token": bytes_per_token(loaded.config), "full_cache_bytes_a_token": _full_bytes(loaded),
        "results": results,
    }  # fmt: skip


def _peak(precision: Precision, device: str) -> float:
    """Operations a second of a large product. A CPU that is slower in bf16 computes in fp32 what it reads in bf16."""
    if precision == "int8":
        return measured_matmul_gflops(torch.float32) * 1e9 * INT8_FACTOR
    exact = measured_matmul_gflops(torch.float32, device=device)
    return 1e9 * (exact if precision == "fp32" else max(exact, measured_matmul_gflops(torch.bfloat16, device=device)))


def read_bandwidth() -> float:
    """Bytes a second that this machine reads from memory; the best of a few."""
    numbers = torch.ones(COPIED // 4)
    read = read_memory if usable(numbers) else torch.sum
    spent = []
    for _ in range(5):
        started = time.perf_counter()
        read(numbers)
        spent.append(time.perf_counter() - started)
    return COPIED / min(spent)


def _measure_batch(
    model: Transformer, precision: Precision, batch: int, prompt: int, new: int, rounds: int
) -> tuple[float, float]:
    """(prompt tokens a second, decoded tokens a second): medians over rounds, prompts that share nothing."""
    rng = random.Random(1)
    vocabulary = model.config.vocab_size
    engine = Engine(model, batch, frozen=True, precision=precision)
    one, all_of_it = (SamplingParams(temperature=0, max_tokens=count, ignore_eos=True) for count in (1, new))
    reading, writing = [], []
    for turn in range(rounds + 1):
        prompts = [[rng.randrange(vocabulary) for _ in range(prompt)] for _ in range(batch)]
        started = time.perf_counter()
        engine.generate(prompts, one)
        first = time.perf_counter() - started
        started = time.perf_counter()
        engine.generate(prompts, all_of_it)  # the prompts' blocks are there now
        rest = time.perf_counter() - started
        if turn:
            reading.append(first)
            writing.append(rest)
    middle = rounds // 2
    return batch * prompt / sorted(reading)[middle], batch * new / sorted(writing)[middle]


def decode_limit(
    model: Transformer, precision: Precision, batch: int, tokens: int, peak: float, bandwidth: float
) -> float:
    """Decoded tokens a second that arithmetic and memory allow a batch whose texts are that long."""
    config = model.config
    each = BYTES_OF_A_WEIGHT[precision]
    arithmetic = flops_per_token(model, 2 * tokens, training=False) / peak  # a new token sees all that came before
    weights = 0.0
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and not name.startswith(("embed_tokens", "mtp.")):
            # Of a batch's rows each chooses its experts; all are read once there are enough rows.
            chosen = 1 - (1 - config.num_experts_per_tok / config.n_routed_experts) ** batch
            weights += each * parameter.numel() * (chosen if ".experts." in name else 1.0)
    if model.lm_head is None:
        weights += each * model.head.numel()
    memory = (weights / batch + tokens * bytes_per_token(config)) / bandwidth
    return 1 / max(arithmetic, memory)


def _full_bytes(model: Transformer) -> int:
    """What keys and values of all heads would take a token, all layers together."""
    config = model.config
    if config.is_deepseek:
        width = config.num_attention_heads * (config.qk_head_dim + config.v_head_dim)
    else:
        width = 2 * config.kv_heads * config.attention_head_dim
    return 4 * width * config.num_hidden_layers


def print_result(result: dict[str, Any]) -> None:
    """A table for people."""
    console = Console(highlight=False)
    how = f"{result['parameters']:,} parameters, {result['precision']}, {result['threads']} threads"
    table = Table(title=f"{result['model']} ({how})")
    for column in ("requests at once", "reads (tokens/s)", "writes (tokens/s)", "limit here", "of the limit"):
        table.add_column(column, justify="right")
    for row in result["results"]:
        table.add_row(
            str(row["batch"]), f"{row['read_tokens_s']:,}", f"{row['write_tokens_s']:,}", f"{row['limit_tokens_s']:,}",
            f"{row['share_of_limit']:.0%}",
        )  # fmt: skip
    console.print(table)
    console.print(
        f"Prompts of {result['prompt_tokens']} tokens, {result['new_tokens']} new ones. The limit: a matrix product at "
        f"{result['matmul_gflops']} GFLOP/s, or reading memory at {result['memory_gb_s']} GB/s. Cache: "
        f"{result['cache_bytes_a_token']:,} bytes a token (keys and values of all heads: "
        f"{result['full_cache_bytes_a_token']:,}). Native kernels: {'on' if result['native'] else 'off'}."
    )
