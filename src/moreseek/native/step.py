"""One step of the engine in one call: the structures of csrc/step.h, and packing weights for it."""

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

PACKED = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.uint8}


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
        ("layer", POINTER(Layer)), ("embedding", c_void_p), ("embedding_format", c_int64), ("norm", c_void_p),
        ("head_matrix", Matrix),
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
            "first", "start", "computed", "known", "prompt", "limit", "owned", "going", "single", "table", "states",
            "phases", "tokens", "drafted",
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
            "known", "prompt", "limit", "stops", "table", "inverse", "phases", "draws", "tokens", "logprobs",
        )),
    ]  # fmt: skip


def sizes(precision: Precision, outputs: int, inputs: int) -> tuple[int, int]:
    """Numbers (of PACKED's type) and scales that an (outputs, inputs) matrix takes. Those of its first rows, where they
    are a multiple of PANEL, come first.
    """
    rows, groups = -(-outputs // PANEL) * PANEL, -(-inputs // GROUP)
    if precision == "int8":
        return rows * groups * GROUP, rows * groups
    return rows * (inputs if precision == "fp32" else -(-inputs // PAIRED) * PAIRED), 0


def pack(precision: Precision, weight: Tensor, panels: Tensor, scales: Tensor) -> None:
    """Fill ``panels`` and ``scales``, of ``sizes``, from weight (outputs, inputs) fp32 of any strides."""
    addresses = [weight.data_ptr(), *weight.stride(), *weight.shape, panels.data_ptr()]
    if precision == "int8":
        kernels().native_pack_bytes(*addresses, scales.data_ptr(), torch.get_num_threads())
    else:
        kernel = kernels().native_pack if precision == "fp32" else kernels().native_pack_bf16
        kernel(*addresses, torch.get_num_threads())


def matrix(
    precision: Precision, outputs: int, inputs: int, panels: Tensor, scales: Tensor, bias: Tensor | None = None
) -> Matrix:
    """Addresses alone: the tensors must live as long."""
    addresses = (None if tensor is None else tensor.data_ptr() for tensor in (panels, scales, bias))
    return Matrix(*addresses, inputs, outputs, FORMATS.index(precision))


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
