"""One step of the engine in one call: the structures of csrc/step.h, and packing weights for it."""

from collections.abc import Callable
from ctypes import POINTER, Structure, byref, c_float, c_int64, c_void_p
from typing import Literal

import torch
from torch import Tensor

from moreseek.native.bindings import kernels

PANEL = 64
"""Outputs that stand together in a packed weight."""

BLOCK_SIZE = 16
"""Tokens of a cache block."""

GROUP = 32
"""Inputs that share a scale where weights are bytes."""

PAIRED = 32
"""Inputs to a multiple of which a matrix in bf16 is filled up with zeros."""

Precision = Literal["fp32", "bf16", "int8"]
FORMATS: tuple[Precision, ...] = ("fp32", "bf16", "int8")
"""enum Format of csrc/step.h."""


class Matrix(Structure):
    """y = x · Wᵀ + bias, with packed weights; only bytes have scales. format: its place in FORMATS."""

    _fields_ = [
        ("panels", c_void_p), ("scales", c_void_p), ("bias", c_void_p), ("inputs", c_int64), ("outputs", c_int64),
        ("format", c_int64),
    ]  # fmt: skip


class FeedForward(Structure):
    """SwiGLU; without panels there is none."""

    _fields_ = [("gate_up", Matrix), ("down", Matrix)]


class Layer(Structure):
    """One block of the model with its part of the cache."""

    _fields_ = [
        ("input_norm", c_void_p), ("post_norm", c_void_p), ("qkv", Matrix), ("out", Matrix),
        ("q_norm", c_void_p), ("k_norm", c_void_p), ("q_up", Matrix), ("q_latent_norm", c_void_p),
        ("latent_norm", c_void_p), ("up_k", POINTER(Matrix)), ("up_v", POINTER(Matrix)), ("dense", FeedForward),
        ("router", POINTER(Matrix)), ("router_bias", c_void_p), ("experts", POINTER(FeedForward)),
        ("k_cache", c_void_p), ("v_cache", c_void_p),
    ]  # fmt: skip


class Model(Structure):
    """Sizes, and the parts around the layers."""

    _fields_ = [
        *((name, c_int64) for name in (
            "layers", "hidden", "heads", "kv_heads", "head", "nope", "rope", "value", "rank", "q_rank", "width",
            "cache_block", "experts", "top_k", "groups", "top_groups", "normalise", "latent",
        )),
        *((name, c_float) for name in ("eps", "latent_eps", "scale", "scaling")),
        ("layer", POINTER(Layer)), ("embedding", c_void_p), ("norm", c_void_p), ("head_matrix", Matrix),
        ("embedding_norm", c_void_p), ("state_norm", c_void_p), ("joint", Matrix),
    ]  # fmt: skip


class Step(Structure):
    """The new tokens of one step, where they go, and where the results are wanted."""

    _fields_ = [
        *((name, c_int64) for name in ("tokens", "rows", "outputs", "table_stride")),
        *((name, c_void_p) for name in (
            "ids", "first", "count", "start", "table", "phases", "output", "hidden", "logits", "all_hidden", "states",
        )),
    ]  # fmt: skip


class Draft(Structure):
    """Rows of the scheduler after a step, and its states: what draft.cpp guesses from."""

    _fields_ = [
        *((name, c_int64) for name in (
            "rows", "most", "draws", "vocabulary", "hidden", "table_stride", "token_stride",
        )),
        *((name, c_void_p) for name in (
            "first", "start", "computed", "known", "prompt", "limit", "going", "single", "table", "states", "phases",
            "tokens", "drafted",
        )),
    ]  # fmt: skip


class MultiStep(Structure):
    """Rows of the scheduler that all decode: what multi_step.cpp goes on with."""

    _fields_ = [
        *((name, c_int64) for name in (
            "rows", "most", "draw_stride", "vocabulary", "hidden", "table_stride", "token_stride", "logprob_stride",
            "stop_stride", "nanoseconds",
        )),
        *((name, c_void_p) for name in (
            "known", "prompt", "limit", "least", "stops", "table", "inverse", "phases", "draws", "tokens", "logprobs",
        )),
    ]  # fmt: skip


def packed_size(outputs: int, inputs: int) -> int:
    """Floats that a packed (outputs, inputs) matrix takes."""
    return -(-outputs // PANEL) * PANEL * inputs


def pack(weight: Tensor, panels: Tensor) -> None:
    """Fill ``panels`` (packed_size,) from weight (outputs, inputs), which may have any strides."""
    _pack(kernels().native_pack, weight, panels)


def half_size(outputs: int, inputs: int) -> int:
    """Numbers that an (outputs, inputs) matrix takes in bf16."""
    return -(-outputs // PANEL) * PANEL * -(-inputs // PAIRED) * PAIRED


def pack_bf16(weight: Tensor, panels: Tensor) -> None:
    """Fill ``panels`` (bf16) of half_size from weight (outputs, inputs) fp32 of any strides."""
    _pack(kernels().native_pack_bf16, weight, panels)


def byte_sizes(outputs: int, inputs: int) -> tuple[int, int]:
    """Bytes and scales that an (outputs, inputs) matrix takes where weights are bytes."""
    panels, groups = -(-outputs // PANEL), -(-inputs // GROUP)
    return panels * groups * GROUP * PANEL, panels * groups * PANEL


def pack_bytes(weight: Tensor, panels: Tensor, scales: Tensor) -> None:
    """Fill ``panels`` (uint8) and ``scales`` (fp32), of byte_sizes, from weight (outputs, inputs) of any strides."""
    _pack(kernels().native_pack_bytes, weight, panels, scales)


def _pack(kernel: Callable[..., None], weight: Tensor, *filled: Tensor) -> None:
    addresses = (tensor.data_ptr() for tensor in filled)
    kernel(weight.data_ptr(), *weight.stride(), *weight.shape, *addresses, torch.get_num_threads())


def multiply(matrix: Matrix, x: Tensor) -> Tensor:
    """x (rows, inputs) → (rows, outputs): the step's own product, alone."""
    x = x.contiguous()
    y = torch.empty(len(x), matrix.outputs)
    kernels().native_multiply(byref(matrix), x.data_ptr(), len(x), y.data_ptr(), torch.get_num_threads())
    return y


def run(model: Model, step: Step, threads: int) -> None:
    """Carry out one step."""
    kernels().native_step(byref(model), byref(step), threads)


def draft(module: Model, rows: Draft) -> None:
    """Guess the tokens after those known, by an MTP module."""
    kernels().native_draft(byref(module), byref(rows), torch.get_num_threads())


def multi_step(model: Model, rows: MultiStep, threads: int) -> int:
    """Steps until a row has ended, ``most`` are made or time is up; how many."""
    return kernels().native_multi_step(byref(model), byref(rows), threads)


def read_memory(numbers: Tensor) -> float:
    """Read all of ``numbers`` (fp32, contiguous) and do as little else as possible, to measure how fast that is."""
    return kernels().native_read(numbers.data_ptr(), numbers.numel(), torch.get_num_threads())
