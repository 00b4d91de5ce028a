"""The kernels' C signatures. Tensors go as addresses; sizes are int64, so every argument type is declared."""

import ctypes
import platform
from ctypes import POINTER, c_double, c_float, c_int, c_int64, c_void_p
from functools import lru_cache
from pathlib import Path

import torch

from moreseek.machine import describe_machine
from moreseek.native.build import UnavailableError, library


class AttentionArgs(ctypes.Structure):
    """struct Attention of attention.cpp, field by field."""

    _fields_ = [
        ("q", c_void_p), ("q_row", c_int64), ("q_head", c_int64),
        ("k", c_void_p), ("k_row", c_int64), ("k_head", c_int64),
        ("k_rope", c_void_p), ("k_rope_row", c_int64), ("k_rope_head", c_int64),
        ("v", c_void_p), ("v_row", c_int64), ("v_head", c_int64),
        ("phases", c_void_p), ("position", c_void_p), ("first", c_void_p),
        ("heads", c_int64), ("kv_heads", c_int64), ("plain", c_int64), ("rope", c_int64), ("value", c_int64),
        ("scale", c_float),
        ("stem_start", c_void_p), ("stem_length", c_void_p), ("branch_offset", c_void_p),
        ("branch_start", c_void_p), ("branch_length", c_void_p), ("groups", c_int64),
        ("out", c_void_p), ("lse", c_void_p), ("grad", c_void_p),
        ("dq", c_void_p), ("dk", c_void_p), ("dk_rope", c_void_p), ("dv", c_void_p),
        ("dq_row", c_int64), ("dk_row", c_int64), ("dk_rope_row", c_int64), ("dv_row", c_int64),
    ]  # fmt: skip


P, N, F, T = c_void_p, c_int64, c_float, c_int  # pointer, number, float, threads
SIGNATURES = {
    "native_start": (P, P),
    "native_choose_products": (T,),
    "native_lanes": (),
    "native_tiles": (),
    "native_rms_norm": (P, N, P, P, P, P, P, N, N, F, T),
    "native_rms_norm_backward": (P, P, P, N, P, P, P, P, N, N, T),
    "native_linear": (P, P, P, N, N, N, T),
    "native_linear_backward": (P, P, P, P, P, N, N, N, T),
    "native_swiglu": (P, P, P, P, P, N, N, N, T),
    "native_swiglu_backward": (P, P, P, P, P, P, P, P, N, N, N, T),
    "native_sort_slots": (P, N, N, P, P, P),
    "native_experts": (P, P, P, P, P, P, P, P, P, P, N, N, N, N, N, T),
    "native_experts_backward": (P, P, P, P, P, P, P, P, P, P, P, P, P, P, P, N, N, N, N, N, T),
    "native_cross_entropy": (P, P, P, P, P, N, N, N, T),
    "native_token_logprobs": (P, P, P, P, P, P, N, N, N, F, T),
    "native_token_logprobs_backward": (P, P, P, P, P, P, P, N, N, N, F, T),
    "native_choose": (P, P, P, P, P, N, N, T),
    "native_pack": (P, N, N, N, N, P, T),
    "native_pack_bf16": (P, N, N, N, N, P, T),
    "native_pack_bytes": (P, N, N, N, N, P, P, T),
    "native_read": (P, N, T),
    "native_multiply": (P, P, N, P, T),
    "native_step": (P, P, T),
    "native_draft": (P, P, T),
    "native_multi_step": (P, P, T),
    "native_attention": (POINTER(AttentionArgs), T),
    "native_attention_backward": (POINTER(AttentionArgs), P, N, T),
}


@lru_cache
def kernels() -> ctypes.CDLL:
    """The library, ready to call. Raises UnavailableError."""
    found = library()
    for name, arguments in SIGNATURES.items():
        function = getattr(found, name)
        function.argtypes, function.restype = arguments, None
    found.native_cross_entropy.restype = found.native_read.restype = c_double
    found.native_multi_step.restype = c_int64
    found.native_lanes.restype = found.native_tiles.restype = c_int
    found.native_start(_sgemm_address(), _team_address())
    found.native_choose_products(own_products())
    return found


def own_products() -> bool:
    """Whether training's large products are the kernels' own, until native_choose_products says otherwise: on x86 of
    other makers than Intel, whose MKL is the BLAS inside torch and takes a general path there. (By the CPU, not by a
    measurement: the same run gives the same sums.)
    """
    return platform.machine().lower() in ("x86_64", "amd64") and "Intel" not in describe_machine()["cpu"]


def _sgemm_address() -> int | None:
    """sgemm of the BLAS inside torch, so that both share one tuned library and one pool of threads."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib"):
        try:
            return ctypes.cast(ctypes.CDLL(str(folder / name)).sgemm_, c_void_p).value
        except (OSError, AttributeError):
            continue
    raise UnavailableError("this build of torch shows no sgemm_ to call")


def _team_address() -> int | None:
    """GOMP_parallel of the OpenMP runtime that torch has loaded. None: the kernels then keep to one thread."""
    maps = Path("/proc/self/maps")
    if not maps.is_file():
        return None
    for line in maps.read_text(encoding="utf-8", errors="replace").splitlines():
        path = line.partition("/")[2]
        if path.rsplit("/", 1)[-1].startswith(("libgomp", "libomp", "libiomp")):
            return ctypes.cast(ctypes.CDLL(f"/{path}").GOMP_parallel, c_void_p).value
    return None


def build_facts() -> str:
    """What this build multiplies with, in words."""
    return f"{kernels().native_lanes()} floats a vector{', AMX tiles' if kernels().native_tiles() else ''}"


@lru_cache
def why_not() -> str | None:
    """None when the kernels work here, else the reason in words."""
    try:
        kernels()
    except UnavailableError as reason:
        return str(reason)
    return None


def usable(*tensors: torch.Tensor) -> bool:
    """Whether the kernels exist and are for these tensors: fp32 on a CPU, outside autocast."""
    for tensor in tensors:
        if tensor.dtype != torch.float32 or tensor.device.type != "cpu":
            return False
    return why_not() is None and not torch.is_autocast_enabled("cpu")
