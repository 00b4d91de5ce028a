"""Decoding from a cache, and rollouts laid out together, against one plain forward pass of each text."""

import pytest
import torch
from torch import Tensor

from moreseek.model.cache import Cache, CacheView
from moreseek.model.linear import decoding
from moreseek.model.losses import token_logprobs
from moreseek.model.transformer import Transformer
from moreseek.records import Problem
from moreseek.training import packing
from moreseek.training.packing import pack
from moreseek.training.rollouts import Rollout

pytestmark = pytest.mark.usefixtures("both_paths")

CLOSE = {"atol": 5e-5, "rtol": 1e-4}
LENGTHS = [7, 1, 12, 5]  # of the prompts
TOTAL = 30


class Decoder:
    """Feeds a cache and remembers every logit that came out, for rows that stand at different places."""

    def __init__(self, model: Transformer, texts: Tensor) -> None:
        self.model, self.texts = model, texts
        self.cache = Cache(model.config, len(texts), texts.shape[1], model.embed_tokens.weight)
        self.rows = list(range(len(texts)))  # which text sits in a row
        self.cached = [0] * len(texts)

    def prefill(self, lengths: list[int]) -> Tensor:
        ids = self.texts[:, : max(lengths)].clone()
        for row, length in enumerate(lengths):
            ids[row, length:] = 0
        start = torch.zeros(len(lengths), dtype=torch.int64)
        self.cached = list(lengths)
        return self._logits(ids, CacheView(self.cache, 0, start, ids.shape[1], 0))

    def go_on(self, tokens: int, slack: int = 0) -> Tensor:
        """The next tokens of every row. ``slack``: the bound on cached tokens may be too high, never too low."""
        start = torch.tensor(self.cached)
        ids = torch.stack([self.texts[t, c : c + tokens] for t, c in zip(self.rows, self.cached, strict=True)])
        view = CacheView(self.cache, 0, start, tokens, max(self.cached) + slack)
        self.cached = [c + tokens for c in self.cached]
        return self._logits(ids, view)

    def leave(self, row: int) -> None:
        last = len(self.rows) - 1
        self.cache.move_row(last, row, self.cached[last])
        self.rows[row], self.cached[row] = self.rows[last], self.cached[last]
        del self.rows[last], self.cached[last]

    def _logits(self, ids: Tensor, view: CacheView) -> Tensor:
        return self.model.logits(self.model.cached_hidden_states(ids, view))


@pytest.fixture(params=[False, True], ids=["plain-weights", "transposed-weights"])
def decoder(request, any_model):
    with decoding(any_model, copies=request.param):
        yield Decoder(any_model, torch.randint(89, (len(LENGTHS), TOTAL)))


def test_cached_decoding_equals_the_full_forward(decoder):
    with torch.no_grad():
        full = decoder.model(decoder.texts)
    first = decoder.prefill(LENGTHS)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(first[row, :length], full[row, :length], **CLOSE)
    for tokens, slack in [(4, 0), (1, 0), (1, 3), (3, 2)]:
        before = list(decoder.cached)
        logits = decoder.go_on(tokens, slack)
        for row, start in enumerate(before):
            torch.testing.assert_close(logits[row], full[row, start : start + tokens], **CLOSE)


def test_rows_that_move_into_free_slots_go_on_undisturbed(decoder):
    with torch.no_grad():
        full = decoder.model(decoder.texts)
    decoder.prefill(LENGTHS)
    decoder.go_on(1)
    decoder.leave(0)
    assert decoder.rows == [3, 1, 2]
    decoder.leave(1)
    assert decoder.rows == [3, 2]
    for _ in range(3):
        before = list(decoder.cached)
        logits = decoder.go_on(1)
        for row, text in enumerate(decoder.rows):
            torch.testing.assert_close(logits[row, 0], full[text, before[row]], **CLOSE)


def test_rows_copied_from_another_cache_go_on_as_there(decoder):
    """A prompt is read once and copied to its group."""
    model, prompt = decoder.model, decoder.texts[:1, :6]
    scratch = Cache(model.config, 1, 6, model.embed_tokens.weight)
    model.cached_hidden_states(prompt, CacheView(scratch, 0, torch.zeros(1, dtype=torch.int64), 6, 0))
    decoder.texts[1:3, :6] = prompt
    with torch.no_grad():
        full = model(decoder.texts)
    decoder.cache.copy_rows(scratch, torch.tensor([0, 0]), torch.tensor([1, 2]), 6)
    start = torch.tensor([6, 6])
    hidden = model.cached_hidden_states(decoder.texts[1:3, 6:9], CacheView(decoder.cache, 1, start, 3, 6))
    torch.testing.assert_close(model.logits(hidden), full[1:3, 6:9], **CLOSE)


def test_transposed_weights_are_gone_after_decoding_even_when_it_fails(any_model):
    def leftovers():
        return [name for name, module in any_model.named_modules() if module.__dict__.get("transposed") is not None]

    def fail():
        with decoding(any_model, copies=True):
            assert leftovers()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not leftovers()


def test_bytes_per_token_are_a_latent_and_a_rope_key_for_v3(make_model):
    model = make_model("v3")
    config, cache = model.config, Cache(model.config, 2, 10, model.embed_tokens.weight)
    per_layer = config.kv_lora_rank + config.qk_rope_head_dim
    assert cache.bytes_per_token == 4 * config.num_hidden_layers * per_layer


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
