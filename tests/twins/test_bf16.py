"""Matrices in bf16 against their arithmetic in torch, by vectors and by (emulated) tiles."""

import ctypes
import subprocess
from pathlib import Path

import pytest
import torch

from moreseek.native import build, step
from moreseek.native.bindings import SIGNATURES, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason="no native kernels here")


@pytest.fixture(scope="module", params=["vectors", "tiles"])
def multiply(request, tmp_path_factory):
    """``multiply(matrix, x, threads)`` of this build, or of one whose tile instructions are emulated."""
    if request.param == "vectors":
        return lambda matrix, x: step.multiply(matrix, x)
    path = tmp_path_factory.mktemp("tiles") / "tiles.so"
    header = Path(__file__).parent / "tiles.h"
    flags = [*build.FLAGS, f'-DMORESEEK_TILES="{header}"']
    sources = sorted(str(source) for source in build.SOURCES.glob("*.cpp"))
    subprocess.run([*build.find_compiler(), *flags, *sources, "-o", str(path)], check=True, timeout=300)
    found = ctypes.CDLL(str(path)).native_multiply
    found.argtypes, found.restype = SIGNATURES["native_multiply"], None

    def by_tiles(matrix, x):
        y = torch.empty(len(x), matrix.outputs)
        found(ctypes.byref(matrix), x.contiguous().data_ptr(), len(x), y.data_ptr(), 1)
        return y

    return by_tiles


def packed(weight, bias=None):
    """And what must live as long."""
    numbers, _ = step.sizes("bf16", *weight.shape)
    room = torch.empty(numbers, dtype=torch.bfloat16), torch.empty(0)
    step.pack("bf16", weight, *room)
    return step.matrix("bf16", *weight.shape, *room, bias), room[0]


def rounded(x):
    return x.to(torch.bfloat16).double()


@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (100, 70), (7, 1), (192, 320), (33, 31)])
@pytest.mark.parametrize("rows", [1, 2, 5, 13, 16, 17, 32, 45])
def test_the_product_equals_its_arithmetic_in_torch(multiply, outputs, inputs, rows):
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    matrix, kept = packed(weight, bias)
    x = torch.randn(rows, inputs)
    x[rows // 2] = 0.0
    expected = rounded(x) @ rounded(weight).t() + bias
    assert torch.allclose(multiply(matrix, x).double(), expected, atol=2e-6 * inputs, rtol=1e-5)
    assert len(kept)


def test_numbers_are_rounded_as_torch_rounds_them():
    odd = torch.tensor([1.0, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 3.3895314e38, 1e-30, 65535.0, 0.1])
    weight = odd.repeat(2, 4)
    _, panels = packed(weight)
    assert torch.equal(panels.view(4, 16, 16, 2)[0, :, 0].flatten(), odd.repeat(4).to(torch.bfloat16))


def test_a_weight_may_lie_in_any_order(multiply):
    weight = torch.randn(70, 100)
    turned, plain = packed(weight.t()), packed(weight.t().contiguous())
    x = torch.randn(2, 70)
    assert torch.equal(multiply(turned[0], x), multiply(plain[0], x))


def test_a_row_does_not_depend_on_the_others(multiply):
    matrix, kept = packed(torch.randn(130, 96))
    x = torch.randn(70, 96)
    together = multiply(matrix, x)
    for count in (1, 2, 3, 5, 9, 16, 17, 31, 33, 69):
        assert torch.equal(multiply(matrix, x[:count]), together[:count])
    assert len(kept)


def test_a_row_of_nonsense_spoils_no_other(multiply):
    matrix, kept = packed(torch.randn(64, 64))
    x = torch.randn(4, 64)
    whole = multiply(matrix, x)
    x[1, 5] = float("nan")
    broken = multiply(matrix, x)
    assert torch.equal(broken[[0, 2, 3]], whole[[0, 2, 3]])
    assert broken[1].isnan().all()
    assert len(kept)


def test_a_damaged_weight_stays_damaged(multiply):
    weight = torch.randn(64, 64)
    weight[7, 40] = torch.tensor([0x7F800001], dtype=torch.int32).view(torch.float32)  # a NaN whose upper half is none
    matrix, kept = packed(weight)
    found = multiply(matrix, torch.randn(3, 64))
    assert found[:, 7].isnan().all()
    assert not found[:, :7].isnan().any()
    assert len(kept)
