"""Each hand-written layer and loss against its plain twin: values and gradients."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from moreseek.model import losses, swiglu
from moreseek.model.attention import Pass
from moreseek.model.blockwise import BLOCK, block_attention
from moreseek.model.layers import RMSNorm, rotate
from moreseek.model.losses import cross_entropy, token_logprobs
from moreseek.model.moe import balance_loss
from moreseek.model.scores import attend
from moreseek.model.swiglu import MLP
from moreseek.model.transformer import document_mask
from moreseek.training.pretrain import mtp_targets

pytestmark = pytest.mark.usefixtures("both_paths")


def assert_same(fast, plain, inputs, atol=2e-5):
    """Values, and gradients by every input for one random direction."""
    torch.testing.assert_close(fast, plain, atol=atol, rtol=1e-4)
    direction = torch.randn_like(plain)
    found = torch.autograd.grad((fast * direction).sum(), inputs)
    expected = torch.autograd.grad((plain * direction).sum(), inputs)
    for index, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        torch.testing.assert_close(mine, theirs, atol=atol, rtol=1e-4, msg=lambda m, i=index: f"gradient {i}: {m}")


def leaf(*shape, scale=1.0, dtype=torch.float32):
    return (torch.randn(*shape, dtype=dtype) * scale).requires_grad_()


# --- layers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])  # at 1e-3 eps counts
def test_rms_norm(scale):
    norm, x = RMSNorm(24, 1e-5), leaf(2, 7, 3, 24, scale=scale)
    norm.weight.data.normal_()
    plain = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * norm.weight
    assert_same(norm(x), plain, [x, norm.weight], atol=1e-4 if scale == 1e-3 else 2e-5)


def test_rms_norm_of_a_view_with_gaps():
    norm, whole = RMSNorm(8, 1e-6), leaf(4, 5, 20)
    x = whole[..., 3:11]
    plain = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * norm.weight
    assert_same(norm(x), plain, [whole, norm.weight])


def test_rotation_turns_neighbouring_pairs_by_position_times_frequency():
    x = leaf(2, 5, 3, 8)
    angles = torch.outer(torch.arange(5.0), torch.tensor([1.0, 0.5, 0.1, 0.01]))
    cos, sin = angles.cos()[None, :, None], angles.sin()[None, :, None]
    even, odd = x[..., 0::2], x[..., 1::2]
    plain = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)
    phases = torch.polar(torch.ones_like(angles), angles)[None, :, None]
    assert_same(rotate(x, phases), plain, [x])


def test_widths_of_mla_may_be_odd(make_model):
    """But for the rope's: complex numbers want an even place in memory, which a part of an odd row does not have."""
    model = make_model("v3", q_lora_rank=5, kv_lora_rank=7, qk_nope_head_dim=9, v_head_dim=11)
    ids = torch.randint(0, 89, (2, 9))
    expected = model(ids)[:, -1]
    shared = model.start_pass(ids, torch.zeros_like(ids))
    torch.testing.assert_close(model.logits(model.hidden_states(ids, shared=shared))[:, -1], expected)
    expected.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.layers[0].parameters())


def random_mlp(hidden, inner):
    mlp = MLP(hidden, inner)  # which alone has weights of no meaning
    for weight in mlp.parameters():
        torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
    return mlp


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200])
def test_swiglu_in_chunks(rows, monkeypatch):
    monkeypatch.setattr(swiglu, "CHUNK_VALUES", 1)  # 64 rows at a time
    mlp, x = random_mlp(12, 20), leaf(rows, 12)
    gate_up, down = mlp.gate_up_proj.weight, mlp.down_proj.weight
    gate, up = (x @ gate_up.t()).chunk(2, dim=-1)
    assert_same(mlp(x), (F.silu(gate) * up) @ down.t(), [x, gate_up, down])


def test_swiglu_gradients_by_finite_differences():
    mlp, x = random_mlp(5, 6).double(), leaf(2, 3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(mlp, (x,))


@pytest.mark.parametrize("batch_mask", [None, 1, 3])
@pytest.mark.parametrize("tokens", [1, 7, BLOCK, BLOCK + 1, 2 * BLOCK + 5])
def test_block_attention(tokens, batch_mask):
    q, k, v = leaf(3, tokens, 4, 6), leaf(3, tokens, 2, 6), leaf(3, tokens, 2, 5)
    mask = None
    if batch_mask is not None:
        mask = document_mask(torch.arange(tokens).div(5, rounding_mode="floor").expand(batch_mask, -1), torch.float32)
    assert_same(block_attention(q, k, v, 0.3, mask), plain_attention(q, k, v, 0.3, mask), [q, k, v])


def test_block_attention_of_the_last_queries_over_more_keys():
    q, k, v = leaf(2, BLOCK + 3, 2, 6), leaf(2, BLOCK + 40, 2, 6), leaf(2, BLOCK + 40, 2, 6)
    assert_same(block_attention(q, k, v, 0.5, None), plain_attention(q, k, v, 0.5, None), [q, k, v])


def test_block_attention_gradients_by_finite_differences():
    q, k, v = (leaf(1, 4, heads, 3, dtype=torch.float64) for heads in (4, 2, 2))
    assert torch.autograd.gradcheck(lambda q, k, v: block_attention(q, k, v, 0.7, None), (q, k, v))


@pytest.mark.parametrize("value_width", [3, 6, 9])
def test_attention_without_the_block_path_agrees(value_width, monkeypatch):
    monkeypatch.setattr("moreseek.model.scores.fits", lambda q, k, v: False)
    q, k, v = leaf(2, 9, 4, 6), leaf(2, 9, 2, 6), leaf(2, 9, 2, value_width)
    assert_same(attend(q, k, v, 0.3, None), plain_attention(q, k, v, 0.3, None), [q, k, v])
    k, v = leaf(2, 14, 2, 6), leaf(2, 14, 2, value_width)  # more keys than queries
    assert_same(attend(q, k, v, 0.3, None), plain_attention(q, k, v, 0.3, None), [q, k, v])


def plain_attention(q, k, v, scale, mask):
    groups = q.shape[2] // k.shape[2]
    k, v = k.repeat_interleave(groups, 2), v.repeat_interleave(groups, 2)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) * scale
    queries, keys = scores.shape[-2:]
    future = torch.ones(queries, keys, dtype=torch.bool).triu(1 + keys - queries)
    scores = scores.masked_fill(future, float("-inf"))
    if mask is not None:
        scores = scores + mask
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)


# --- mixture of experts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"n_group": 4, "topk_group": 2}, {"norm_topk_prob": False}], ids=str)
@pytest.mark.parametrize("tokens", [1, 5, 70])
def test_experts_equal_a_loop_over_tokens(make_model, changes, tokens):
    model = make_model("v3", **changes).train()
    moe, x = model.layers[1].mlp, leaf(2, tokens, model.config.hidden_size)
    inputs = [x, moe.gate.weight, moe.experts.gate_up_proj, moe.experts.down_proj]
    inputs += moe.shared_experts.parameters()
    assert_same(moe(x, Pass(phases=torch.empty(0))), plain_moe(moe, x, model.config), inputs, atol=1e-4)


def test_an_expert_that_no_token_chose_gets_a_zero_gradient(make_model):
    moe = make_model("v3").layers[1].mlp
    moe.gate.bias[3] = -100.0
    moe(leaf(1, 6, 48), Pass(phases=torch.empty(0))).sum().backward()
    assert not moe.experts.gate_up_proj.grad[3].any()
    assert not moe.experts.down_proj.grad[3].any()
    assert moe.experts.gate_up_proj.grad.abs().sum((1, 2)).count_nonzero() > 0


def test_groups_whose_scores_are_all_negative_are_still_chosen_before_shut_ones(make_model):
    model = make_model("v3", n_group=4, topk_group=1, num_experts_per_tok=2)
    gate = model.layers[1].mlp.gate
    gate.bias.fill_(-5.0)
    _, chosen, _ = gate(torch.randn(50, 48))
    assert (chosen // 2 == chosen[:, :1] // 2).all()  # both experts of one group


def test_the_routing_bias_chooses_and_does_not_weigh(make_model):
    gate, x = make_model("v3", routed_scaling_factor=1.0).layers[1].mlp.gate, torch.randn(40, 48)
    gate.bias.zero_()
    gate.bias[5] = 10.0
    weights, chosen, scores = gate(x)
    assert (chosen == 5).any(1).all()
    expected = scores.gather(1, chosen)
    torch.testing.assert_close(weights, expected / expected.sum(1, keepdim=True))


def test_the_routing_bias_moves_against_the_load(make_model):
    model = make_model("v3").train()
    moe = model.layers[1].mlp
    before = moe.gate.bias.clone()
    moe(leaf(3, 20, 48), Pass(phases=torch.empty(0)))
    load = moe.gate.load.clone()
    assert load.sum() == 60 * model.config.num_experts_per_tok
    imbalance = moe.gate.update_bias(0.01)
    assert imbalance == pytest.approx(float(load.max() / load.mean()))
    torch.testing.assert_close(moe.gate.bias, before + 0.01 * torch.sign(load.mean() - load))
    assert not moe.gate.load.any()


def test_sampling_leaves_no_trace_in_the_load(make_model):
    moe = make_model("v3").layers[1].mlp
    with torch.no_grad():
        moe.train()(torch.randn(1, 5, 48), Pass(phases=torch.empty(0)))
    moe.eval()(torch.randn(1, 5, 48), Pass(phases=torch.empty(0)))
    assert not moe.gate.load.any()


def test_balance_loss_equals_v3_s_equations():
    scores, top_k, batch = torch.rand(3 * 7, 5).requires_grad_(), 2, 3
    total = torch.zeros(())
    for sequence in scores.view(batch, 7, 5):
        for expert in range(5):
            hits = sum(int(expert in token.topk(top_k).indices) for token in sequence)
            frequency = 5 / (top_k * 7) * hits
            total = total + frequency * (sequence[:, expert] / sequence.sum(1)).mean()
    assert_same(balance_loss(scores, top_k, batch), total / batch, [scores])


def plain_moe(moe, x, config):
    out = []
    for token in x.reshape(-1, x.shape[-1]):
        scores = torch.sigmoid(moe.gate.weight @ token)
        chosen = choose_experts((scores + moe.gate.bias).tolist(), config)
        weights = scores[chosen]
        if config.norm_topk_prob:
            weights = weights / weights.sum()
        routed = sum(
            weight * plain_swiglu(token, moe.experts.gate_up_proj[expert], moe.experts.down_proj[expert])
            for weight, expert in zip(weights, chosen, strict=True)
        )
        always = plain_swiglu(token, moe.shared_experts.gate_up_proj.weight, moe.shared_experts.down_proj.weight)
        out.append(config.routed_scaling_factor * routed + always)
    return torch.stack(out).view_as(x)


def choose_experts(biased, config):
    size = config.n_routed_experts // config.n_group
    groups = [range(g * size, (g + 1) * size) for g in range(config.n_group)]
    if config.n_group > 1:
        groups.sort(key=lambda group: -sum(sorted((biased[e] for e in group), reverse=True)[:2]))
    allowed = [e for group in groups[: config.topk_group] for e in group]
    return sorted(allowed, key=lambda e: -biased[e])[: config.num_experts_per_tok]


def plain_swiglu(x, gate_up, down):
    gate, up = gate_up.chunk(2)
    return down @ (F.silu(gate @ x) * (up @ x))


# --- losses ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_VALUES", 1)
    assert losses.chunk_rows(50_000) == 16


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 48, 50])
def test_cross_entropy(tokens):
    hidden, head, targets = leaf(2, tokens, 6), leaf(11, 6), torch.randint(11, (2, tokens))
    targets[:, ::3] = -100
    targets[0, -1] = 4
    plain = F.cross_entropy((hidden @ head.t()).flatten(0, 1), targets.flatten(), ignore_index=-100)
    assert_same(cross_entropy(hidden, head, targets), plain, [hidden, head])


def test_cross_entropy_over_micro_batches_adds_up_to_the_whole():
    hidden, head, targets = leaf(6, 6), leaf(11, 6), torch.tensor([1, -100, 3, -100, 5, 6])
    parts = sum(cross_entropy(hidden[i : i + 2], head, targets[i : i + 2], denominator=4.0) for i in (0, 2, 4))
    assert_same(parts, cross_entropy(hidden, head, targets), [hidden, head])


def test_cross_entropy_of_nothing_is_zero_with_zero_gradients():
    hidden, head = leaf(4, 6), leaf(11, 6)
    loss = cross_entropy(hidden, head, torch.full((4,), -100))
    loss.backward()
    assert loss == 0
    assert not hidden.grad.any()
    assert not head.grad.any()


@pytest.mark.parametrize("target", [11, 10**6])
def test_a_target_outside_the_vocabulary_is_an_error(target):
    with pytest.raises((IndexError, RuntimeError)):
        cross_entropy(leaf(2, 6), leaf(11, 6), torch.tensor([0, target]))


def test_cross_entropy_with_a_large_vocabulary_and_extreme_logits():
    hidden, head, targets = leaf(40, 4, scale=30), leaf(30_000, 4), torch.randint(30_000, (40,))
    plain = F.cross_entropy(hidden @ head.t(), targets)
    assert_same(cross_entropy(hidden, head, targets), plain, [hidden, head], atol=1e-3)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("saved_values", [0, 1 << 26], ids=["recomputed", "saved"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("tokens", [1, 16, 17, 40])
def test_token_logprobs(tokens, temperature, saved_values, monkeypatch):
    monkeypatch.setattr(losses, "SAVED_VALUES", saved_values)
    hidden, head, targets = leaf(tokens, 6), leaf(11, 6), torch.randint(11, (tokens,))
    logprobs = torch.log_softmax(hidden @ head.t() / temperature, -1)
    chosen, entropy = token_logprobs(hidden, head, targets, temperature)
    plain = logprobs.gather(1, targets.unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(entropy, -(logprobs.exp() * logprobs).sum(-1), atol=1e-5, rtol=1e-5)
    assert not entropy.requires_grad
    assert_same(chosen, plain, [hidden, head])


def test_the_head_s_gradient_in_bf16_loses_nothing_over_many_chunks(monkeypatch):
    """A sum of hundreds of chunks that is rounded to 8 bits after each of them stands still."""
    monkeypatch.setattr(losses, "CHUNK_VALUES", 1)  # 16 rows at a time, as with a vocabulary of 65,536
    hidden, head = torch.randn(8192, 16).bfloat16(), (torch.randn(24, 16) * 0.3).bfloat16()
    targets, weights = torch.randint(0, 24, (8192,)), torch.rand(8192) + 0.5
    exact = head.float().requires_grad_()
    (F.log_softmax(hidden.float() @ exact.t(), -1).gather(1, targets[:, None]).squeeze(1) * weights).sum().backward()
    head.requires_grad_()
    (token_logprobs(hidden, head, targets)[0] * weights).sum().backward()
    assert (head.grad.float() - exact.grad).norm() < 0.01 * exact.grad.norm()


def test_token_logprobs_without_tokens():
    hidden, head = leaf(0, 6), leaf(11, 6)
    chosen, entropy = token_logprobs(hidden, head, torch.zeros(0, dtype=torch.int64))
    assert chosen.shape == entropy.shape == (0,)


def test_entropy_of_impossible_tokens_is_finite():
    hidden, head = torch.tensor([[10.0]]), torch.tensor([[1.0], [-1e38], [-3.0]])  # the second logit is −inf
    _, entropy = token_logprobs(hidden, head, torch.tensor([0]))
    assert entropy.item() == pytest.approx(0.0, abs=1e-6)


# --- masks and targets -------------------------------------------------------------------------------------------


def test_document_mask_shows_the_past_of_the_same_document_alone():
    documents = torch.tensor([[0, 0, 1, 1, 1, -1], [3, 3, 3, 3, 4, 4]])
    mask = document_mask(documents, torch.float32)
    assert mask.shape == (2, 1, 6, 6)
    for row in range(2):
        for query in range(6):
            for key in range(6):
                seen = key <= query and documents[row, key] == documents[row, query]
                assert mask[row, 0, query, key] == (0.0 if seen else -math.inf)


def test_documents_in_one_row_do_not_see_each_other(any_model):
    first, second = torch.randint(89, (1, 9)), torch.randint(89, (1, 14))
    packed = torch.cat([first, second], dim=1)
    documents = torch.tensor([[0] * 9 + [1] * 14])
    with torch.no_grad():
        logits = any_model(packed, documents)
        torch.testing.assert_close(logits[:, :9], any_model(first), atol=5e-5, rtol=1e-4)
        torch.testing.assert_close(logits[:, 9:], any_model(second), atol=5e-5, rtol=1e-4)  # rope is relative


def test_mtp_targets_are_two_ahead_inside_documents():
    ids = [10, 11, 12, 13, 20, 21, 30, 40, 41, 42]
    documents = [0, 0, 0, 0, 1, 1, 2, 3, 3, -1]
    targets, expected = [np.full((1, 10), -100) for _ in range(2)]
    for i in range(10):
        same = [j for j in (i + 1, i + 2) if j < 10 and documents[j] == documents[i] != -1]
        if i + 1 in same:
            targets[0, i] = ids[i + 1]
        if i + 2 in same:
            expected[0, i] = ids[i + 2]
    assert (mtp_targets(targets) == expected).all()
    assert (expected >= 0).sum() == 2  # at 10 and 11


def test_mtp_sees_the_next_token_and_none_after_it(make_model):
    model, ids = make_model("v3"), torch.randint(89, (1, 8))
    changed = ids.clone()
    changed[0, 5] = (ids[0, 5] + 1) % 89

    def ahead(tokens):
        shared = model.start_pass(tokens, None)
        return model.mtp_hidden_states(model.hidden_states(tokens, shared=shared), tokens, shared)

    with torch.no_grad():
        difference = (ahead(ids) - ahead(changed)).abs().amax(-1)[0]
    assert difference[:4].max() < 1e-5  # position 3 has seen token 4
    assert difference[4] > 1e-2


# --- lower precision ---------------------------------------------------------------------------------------------


def test_a_training_step_under_autocast_is_near_the_fp32_one(any_model):
    ids = torch.randint(89, (2, 20))
    gradients = []
    for enabled in (False, True):
        any_model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            hidden = any_model.hidden_states(ids)
            loss = cross_entropy(hidden[:, :-1], any_model.head, ids[:, 1:])
        loss.backward()
        gradients.append([p.grad.flatten() for p in any_model.parameters() if p.grad is not None])
    plain, low = (torch.cat(g) for g in gradients)
    assert torch.isfinite(low).all()
    assert F.cosine_similarity(plain, low, dim=0) > 0.9
