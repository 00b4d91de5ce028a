"""Decoding from a cache, and rollouts laid out together, against one plain forward pass of each text."""

import pytest
import torch
from torch import Tensor

from moreseek.model.cache import Cache, CacheView, bytes_per_token
from moreseek.model.losses import token_logprobs
from moreseek.model.transformer import Transformer
from moreseek.native.step import BLOCK_SIZE
from moreseek.records import Problem
from moreseek.training import packing
from moreseek.training.packing import pack
from moreseek.training.rollouts import Rollout
from moreseek.training.scoring import mtp_loss

pytestmark = pytest.mark.usefixtures("both_paths")

CLOSE = {"atol": 5e-5, "rtol": 1e-4}
LENGTHS = [7, 1, 12, 5]  # of the prompts
TOTAL = 30


class Decoder:
    """Feeds a paged cache whose blocks lie about in no order, for rows that stand at different places."""

    def __init__(self, model: Transformer, texts: Tensor) -> None:
        self.model, self.texts = model, texts
        rows, wide = len(texts), -(-texts.shape[1] // BLOCK_SIZE)
        self.cache = Cache(model.config, 1 + rows * wide, model.embed_tokens.weight)
        self.table = 1 + torch.randperm(rows * wide).view(rows, wide)
        self.cached = torch.zeros(rows, dtype=torch.int64)

    def read(self, counts: list[int]) -> Tensor:
        """Logits of the next tokens of every row, of each as many as ``counts`` says; (rows, most, V)."""
        count, most = torch.tensor(counts), max(counts)
        places = (self.cached.unsqueeze(1) + torch.arange(most)).clamp(max=self.texts.shape[1] - 1)
        view = CacheView(self.cache, self.cached, count, self.table, most)
        hidden = self.model.cached_hidden_states(self.texts.gather(1, places), view)
        self.cached = self.cached + count
        return self.model.logits(hidden)


@pytest.fixture
def decoder(any_model):
    return Decoder(any_model, torch.randint(89, (len(LENGTHS), TOTAL)))


@torch.no_grad()
def test_cached_decoding_equals_the_full_forward(decoder):
    full = decoder.model(decoder.texts)
    for counts in [LENGTHS, [4] * 4, [1] * 4, [3, 1, 2, 9], [0, 1, 1, 0], [1] * 4]:
        before = decoder.cached.tolist()
        logits = decoder.read(counts)
        for row, (start, count) in enumerate(zip(before, counts, strict=True)):
            torch.testing.assert_close(logits[row, :count], full[row, start : start + count], **CLOSE)


@torch.no_grad()
def test_a_copied_block_goes_on_as_the_first(decoder):
    """A prompt is read once; its last block, which is not full, is copied to each of its group."""
    decoder.texts[1:3, :6] = decoder.texts[0, :6]
    full = decoder.model(decoder.texts)
    decoder.read([6, 0, 0, 1])
    decoder.cache.copy_blocks(decoder.table[[0, 0], 0], decoder.table[[1, 2], 0])
    decoder.cached[1:3] = 6
    logits = decoder.read([3, 3, 3, 3])
    torch.testing.assert_close(logits[1:3], full[1:3, 6:9], **CLOSE)


def test_a_block_holds_its_layers_side_by_side_so_that_a_short_text_takes_few_pages(any_model):
    for tensor in Cache(any_model.config, 4, any_model.embed_tokens.weight).tensors:
        assert tensor[:, 2].is_contiguous()


def test_bytes_per_token_are_a_latent_and_a_rope_key_for_v3(make_model):
    config = make_model("v3-whole-vectors").config
    assert bytes_per_token(config) == 4 * config.num_hidden_layers * (config.kv_lora_rank + config.qk_rope_head_dim)


# --- rollouts laid out together ----------------------------------------------------------------------------------

LAYOUTS = {
    "group": [(4, 9), (4, 3), (4, 1), (4, 6)],
    "two-groups": [(4, 9), (4, 3), (8, 1), (8, 12)],
    "all-apart": [(3, 4), (5, 2), (9, 1), (2, 7), (4, 4)],
    "one-token-each": [(3, 1), (3, 1), (5, 1)],
    "alone": [(6, 5)],
}


def make_rollouts(lengths):
    prompts = {size: torch.randint(89, (size,)).tolist() for size, _ in lengths}
    made = []
    for index, (size, count) in enumerate(lengths):
        completion = torch.randint(89, (count,)).tolist()
        logprobs = [-0.01 * index - 0.001 * t for t in range(count)]
        problem = Problem(prompt="?", answer="!")
        made.append(Rollout(problem, prompts[size], completion, logprobs, text="", truncated=False))
    return made


def alone_logprobs(model, rollout):
    ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
    logprobs = torch.log_softmax(model(ids)[0], -1)
    first = len(rollout.prompt_ids) - 1
    return torch.stack([logprobs[first + t, token] for t, token in enumerate(rollout.completion_ids)])


def batch_logprobs(model, batch):
    shared = model.start_pass(batch.ids, batch.documents, branches=batch.branches)
    hidden = model.hidden_states(batch.ids, shared=shared).flatten(0, 1).index_select(0, batch.positions)
    return token_logprobs(hidden, model.head, batch.targets)[0]


@pytest.fixture(params=["packed", "shared", "cheaper"])
def layout(request, monkeypatch):
    """Force one of the two layouts, or leave the choice to ``pack``."""
    tokens = {"packed": 10**9, "shared": -1}
    if request.param in tokens:
        monkeypatch.setattr(packing, "_shared_tokens", lambda rollouts: tokens[request.param])
    return request.param


@pytest.mark.parametrize("tokens_at_once", [10**6, 20], ids=["one-batch", "small-batches"])
@pytest.mark.parametrize("lengths", LAYOUTS.values(), ids=LAYOUTS)
def test_rollouts_together_have_the_logprobs_and_gradients_of_each_alone(any_model, lengths, tokens_at_once, layout):
    rollouts = make_rollouts(lengths)
    advantage = [1.0 + index for index in range(len(rollouts))]
    weight = [0.1 * (index + 1) for index in range(len(rollouts))]
    batches = pack(rollouts, advantage, weight, tokens_at_once, torch.device("cpu"))
    assert all((batch.branches is not None) == (layout == "shared") for batch in batches if layout != "cheaper")
    alone = {advantage[i]: alone_logprobs(any_model, rollout) for i, rollout in enumerate(rollouts)}
    plain = sum((alone[a] * a * w).sum() for a, w in zip(advantage, weight, strict=True))
    plain.backward()
    expected = {name: p.grad for name, p in any_model.named_parameters() if p.grad is not None}
    any_model.zero_grad()

    seen = []
    for batch in batches:
        found = batch_logprobs(any_model, batch)
        for owner in range(int(batch.owner.max()) + 1):
            mine = batch.owner == owner
            which = batch.advantage[mine][0].item()
            rollout = rollouts[advantage.index(which)]
            seen.append(which)
            assert batch.targets[mine].tolist() == rollout.completion_ids
            torch.testing.assert_close(batch.sampler_logprobs[mine], torch.tensor(rollout.sampler_logprobs))
            torch.testing.assert_close(found[mine], alone[which], **CLOSE)
        (found * batch.advantage * batch.weight).sum().backward()
    assert sorted(seen) == advantage
    for name, parameter in any_model.named_parameters():
        if name in expected:
            assert torch.allclose(parameter.grad, expected[name], atol=2e-3, rtol=1e-3), name


@pytest.mark.parametrize(("lengths", "forced"), [("all-apart", "shared"), ("two-groups", "packed")])
def test_the_mtp_loss_on_rollouts_is_that_of_each_alone_and_moves_only_the_mtp_module(
    make_model, lengths, forced, monkeypatch
):
    model, rollouts = make_model("v3"), make_rollouts(LAYOUTS[lengths])
    monkeypatch.setattr(packing, "_shared_tokens", lambda rollouts: 10**9 if forced == "packed" else -1)
    alone = 0.0
    for rollout in rollouts:
        ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
        shared = model.start_pass(ids, None)
        ahead = model.mtp_hidden_states(model.hidden_states(ids, shared=shared), ids, shared)
        logprobs = torch.log_softmax(model.logits(ahead)[0], -1).detach()
        first = len(rollout.prompt_ids)
        alone -= sum(float(logprobs[i, ids[0, i + 2]]) for i in range(first, ids.shape[1] - 2))
    total = 0.0
    for batch in pack(rollouts, [1.0] * len(rollouts), [1.0] * len(rollouts), 10**6, torch.device("cpu")):
        assert (batch.branches is not None) == (forced == "shared")
        shared = model.start_pass(batch.ids, batch.documents, branches=batch.branches)
        loss = mtp_loss(model, model.hidden_states(batch.ids, shared=shared), batch, shared)
        loss.backward()
        total += float(loss.detach())
    assert total == pytest.approx(alone, rel=1e-4)
    moved = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved == {"mtp"}


def test_the_layout_that_computes_less_is_taken():
    many = make_rollouts([(20, 3)] * 8)
    [batch] = pack(many, [0.0] * 8, [0.0] * 8, 10**6, torch.device("cpu"))
    assert batch.branches is not None
    assert batch.ids.numel() == 20 + 8 * 2
    uneven = make_rollouts([(2, 40), *[(2, 4)] * 6])
    [batch] = pack(uneven, [0.0] * 7, [0.0] * 7, 10**6, torch.device("cpu"))
    assert batch.branches is None
    assert batch.ids.numel() == 2 * 42


def test_branches_under_autocast_are_near_fp32(any_model):
    [batch] = pack(make_rollouts([(9, 4), (9, 5), (3, 6), (3, 6)]), [1.0] * 4, [1.0] * 4, 10**6, torch.device("cpu"))
    assert batch.branches is not None
    plain = batch_logprobs(any_model, batch)
    with torch.autocast("cpu", torch.bfloat16):
        low = batch_logprobs(any_model, batch)
    assert (plain - low).abs().median() < 0.2
