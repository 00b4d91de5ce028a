"""int8 matrices against their arithmetic in torch."""

import pytest
import torch

from moreseek.engine.engine import Engine
from moreseek.engine.packed import PackedModel
from moreseek.native import step
from moreseek.native.bindings import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason="no native kernels here")


def to_bytes(x):
    """(rows, inputs) → what bytes with a scale for each group make of it."""
    inputs = x.shape[1]
    padded = torch.nn.functional.pad(x, (0, -inputs % step.GROUP)).unflatten(1, (-1, step.GROUP))
    scale = padded.abs().amax(-1, keepdim=True) / 127
    return torch.where(scale > 0, (padded / scale).round() * scale, 0.0).flatten(1)[:, :inputs]


def packed(weight, bias=None):
    """And what must live as long."""
    numbers, scales = step.sizes("int8", *weight.shape)
    room = torch.empty(numbers, dtype=torch.uint8), torch.empty(scales)
    step.pack("int8", weight, *room)
    return step.matrix("int8", *weight.shape, *room, bias), *room


@pytest.mark.parametrize(("outputs", "inputs"), [(64, 64), (100, 70), (7, 1), (192, 320)])
def test_the_product_equals_its_arithmetic_in_torch(outputs, inputs):
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs)
    matrix, *kept = packed(weight, bias)
    x = torch.randn(13, inputs)
    x[3] = 0.0
    expected = to_bytes(x).double() @ to_bytes(weight).double().t() + bias
    assert torch.allclose(step.multiply(matrix, x).double(), expected, atol=1e-4 * inputs**0.5)
    assert kept


def test_a_weight_may_lie_in_any_order():
    weight = torch.randn(70, 100)
    turned, plain = packed(weight.t()), packed(weight.t().contiguous())
    x = torch.randn(2, 70)
    assert torch.equal(step.multiply(turned[0], x), step.multiply(plain[0], x))


def test_a_row_does_not_depend_on_the_others():
    matrix, *kept = packed(torch.randn(130, 96))
    x = torch.randn(20, 96)
    together = step.multiply(matrix, x)
    for count in (1, 2, 3, 5, 9, 19):
        assert torch.equal(step.multiply(matrix, x[:count]), together[:count])
    assert kept


def test_a_row_of_nonsense_spoils_no_other():
    matrix, *kept = packed(torch.randn(64, 64))
    x = torch.randn(4, 64)
    whole = step.multiply(matrix, x)
    x[1, 5] = float("nan")
    broken = step.multiply(matrix, x)
    assert torch.equal(broken[[0, 2, 3]], whole[[0, 2, 3]])
    assert broken[1].isnan().all()
    assert kept


def test_a_damaged_weight_is_not_hidden_by_its_byte():
    weight = torch.randn(64, 64)
    weight[7, 40] = float("nan")
    matrix, *kept = packed(weight)
    found = step.multiply(matrix, torch.randn(3, 64))
    assert found[:, 7].isnan().all()
    assert not found[:, :7].isnan().any()
    assert kept


def test_routers_and_the_latents_matrices_stay_exact(make_model):
    model = make_model("v3")
    runner = Engine(model, precision="int8").runner
    assert isinstance(runner.packed, PackedModel)
    layers = [runner.packed.model.layer[i] for i in range(len(model.layers))]
    assert all(not layer.up_k[0].scales and not layer.up_v[0].scales for layer in layers)
    assert all(not layer.router[0].scales for layer in layers if layer.router)
    assert all(layer.qkv.scales and layer.out.scales for layer in layers)
