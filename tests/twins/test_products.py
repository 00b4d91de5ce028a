"""The large products of training, by the kernels' own tiles and by BLAS, whichever this CPU would take, in float64."""

import pytest
import torch

from moreseek.native import bindings, ops

TINY = 1e-5  # of the largest value


@pytest.fixture(params=["own", "BLAS"], autouse=True)
def products(request):
    if (reason := bindings.why_not()) is not None:
        pytest.skip(f"no native kernels: {reason}")
    bindings.kernels().native_choose_products(request.param == "own")
    yield
    bindings.kernels().native_choose_products(bindings.own_products())


@pytest.fixture(params=[1, 3])
def threads(request):
    torch.set_num_threads(request.param)  # the fixture of all twins sets it back


def normal(*shape):
    return (torch.randn(*shape) / shape[-1] ** 0.5).requires_grad_()


def assert_same(fast, plain, inputs):
    """``plain`` takes the inputs in float64; values, and gradients for one random direction."""
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    found, expected = fast(*inputs), plain(*exact)
    direction = torch.randn_like(found)
    found_grads = torch.autograd.grad((found * direction).sum(), inputs)
    expected_grads = torch.autograd.grad((expected * direction).sum(), exact)
    for mine, theirs in zip((found.detach(), *found_grads), (expected.detach(), *expected_grads), strict=True):
        error = float((mine.double() - theirs).abs().max())
        assert error <= TINY * float(theirs.abs().max()), (tuple(mine.shape), error)


# Rows on both sides of what is laid out anew, widths on both sides of a vector, a panel, and a block's depth.
@pytest.mark.parametrize(
    ("rows", "size", "out"),
    [
        (1, 16, 64), (63, 40, 100), (64, 64, 128), (65, 7, 193), (200, 33, 71), (600, 513, 90), (130, 1100, 65),
        (700, 96, 1030),
    ],
)  # fmt: skip
def test_linear(rows, size, out, threads):
    assert_same(ops.linear, lambda x, w: x @ w.t(), [normal(rows, size), normal(out, size)])


def swiglu(x, gate_up, down):
    gate, up = (x @ gate_up.t()).chunk(2, dim=-1)
    return (torch.nn.functional.silu(gate) * up) @ down.t()


@pytest.mark.parametrize(
    ("rows", "size", "inner"), [(5, 48, 80), (64, 48, 80), (301, 40, 97), (1500, 64, 130), (90, 64, 700)]
)
def test_swiglu(rows, size, inner, threads):
    assert_same(ops.swiglu, swiglu, [normal(rows, size), normal(2 * inner, size), normal(size, inner)])


@pytest.mark.parametrize("tokens", [3, 90, 700])
def test_experts(tokens, threads):
    """One of them gets most tokens, and one none."""
    chosen = torch.stack([torch.zeros(tokens, dtype=torch.int64), torch.randint(1, 3, (tokens,))], dim=1)

    def plain(x, weights, gate_up, down):
        out = torch.zeros_like(x)
        for place in range(2):
            each = torch.stack([swiglu(x, gate_up[e], down[e]) for e in range(4)])
            out = out + weights[:, place : place + 1] * each[chosen[:, place], torch.arange(tokens)]
        return out

    inputs = [normal(tokens, 40), normal(tokens, 2), normal(4, 2 * 52, 40), normal(4, 40, 52)]
    assert_same(lambda x, weights, *matrices: ops.experts(x, weights, chosen, *matrices), plain, inputs)


@pytest.mark.parametrize(("rows", "vocab"), [(30, 89), (150, 530), (1200, 1100)])
def test_losses(rows, vocab, threads):
    targets = torch.randint(0, vocab, (rows,))

    def logprobs(hidden, head):
        return torch.log_softmax(3 * hidden @ head.t(), dim=-1).gather(1, targets[:, None])[:, 0]

    def ours(hidden, head):
        return ops.token_logprobs(hidden, head, targets, 1 / 3)[0]

    assert_same(ours, logprobs, [normal(rows, 72), normal(vocab, 72)])
    assert_same(
        lambda hidden, head: ops.cross_entropy_sum(hidden, head, targets, 0.5),
        lambda hidden, head: -0.5 * torch.log_softmax(hidden @ head.t(), dim=-1).gather(1, targets[:, None]).sum(),
        [normal(rows, 72), normal(vocab, 72)],
    )
