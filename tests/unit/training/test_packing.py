"""Whatever the layout, every completion token gets the log-probability that its own text alone would give it."""

import pytest
import torch

from moreseek.model.config import ModelConfig
from moreseek.model.losses import token_logprobs
from moreseek.model.transformer import Transformer, build
from moreseek.records import Problem
from moreseek.training.packing import RolloutBatch, pack
from moreseek.training.rollouts import Rollout
from moreseek.training.scoring import completion_logprobs

CPU = torch.device("cpu")
SHAPE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 24,
}  # fmt: skip


@pytest.fixture(scope="module", params=["deepseek_v3", "llama"])
def model(request: pytest.FixtureRequest) -> Transformer:
    made = build(ModelConfig(model_type=request.param, **SHAPE), seed=1)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return made.eval()


def rollout(prompt: list[int], completion: list[int]) -> Rollout:
    logprobs = [-float(token) for token in completion]
    return Rollout(Problem(prompt="?", answer=""), prompt, completion, logprobs, "", truncated=False)


def ids(count: int, seed: int) -> list[int]:
    return torch.randint(1, 61, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


LONG_PROMPTS = [rollout(ids(length, length), ids(5 + i % 2, 10 * length + i)) for length in (20, 17) for i in range(4)]
EQUAL_PROMPTS = [rollout(ids(12, group), ids(6, 10 * group + i)) for group in (1, 2) for i in range(3)]
SHORT_PROMPTS = [rollout(ids(2, i), ids(length, 50 + i)) for i, length in enumerate((30, 3, 1, 12, 7))]
CASES = {
    "shared, prompts of two lengths": (LONG_PROMPTS, True),
    "shared, equal prompts": (EQUAL_PROMPTS, True),
    "shared, one token each": ([rollout(ids(9, 1), [5]), rollout(ids(9, 1), [6])], True),
    "packed": (SHORT_PROMPTS, False),
}


def logprobs(model: Transformer, batch: RolloutBatch) -> torch.Tensor:
    shared = model.start_pass(batch.ids, batch.documents, branches=batch.branches)
    hidden = model.hidden_states(batch.ids, shared=shared).flatten(0, 1).index_select(0, batch.positions)
    return token_logprobs(hidden, model.head, batch.targets)[0]


def alone(model: Transformer, rollout: Rollout) -> torch.Tensor:
    text = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
    logits = model(text)[0, len(rollout.prompt_ids) - 1 : -1].log_softmax(-1)
    return logits.gather(1, torch.tensor(rollout.completion_ids).unsqueeze(1)).squeeze(1)


@pytest.mark.parametrize("tokens_at_once", [1, 64, 10_000])
@pytest.mark.parametrize("case", CASES)
def test_every_token_is_scored_as_if_its_text_were_alone(model, case, tokens_at_once):
    rollouts, shares = CASES[case]
    advantage = [float(i) for i in range(len(rollouts))]
    batches = pack(rollouts, advantage, advantage, tokens_at_once, CPU)
    if tokens_at_once == 10_000:
        assert len(batches) == 1
        assert (batches[0].branches is not None) == shares
    seen = []
    for batch in batches:
        found = logprobs(model, batch)
        for owner in range(int(batch.owner.max()) + 1):
            mine = batch.owner == owner
            index = int(batch.advantage[mine][0])
            seen.append(index)
            assert batch.targets[mine].tolist() == rollouts[index].completion_ids
            assert batch.sampler_logprobs[mine].tolist() == rollouts[index].sampler_logprobs
            torch.testing.assert_close(found[mine], alone(model, rollouts[index]), atol=2e-5, rtol=1e-4)
    assert sorted(seen) == list(range(len(rollouts)))


def test_shared_prompts_give_the_gradient_of_separate_texts(model):
    rollouts = LONG_PROMPTS
    weights = [1.0 + i for i in range(len(rollouts))]
    (batch,) = pack(rollouts, weights, weights, 10_000, CPU)
    parameters = list(model.parameters())
    fast = torch.autograd.grad((logprobs(model, batch) * batch.weight).sum(), parameters, allow_unused=True)
    plain = sum(alone(model, r).sum() * w for r, w in zip(rollouts, weights, strict=True))
    for mine, theirs in zip(fast, torch.autograd.grad(plain, parameters, allow_unused=True), strict=True):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=1e-3)


def test_a_prompt_is_computed_once():
    (batch,) = pack(EQUAL_PROMPTS, [0.0] * 6, [0.0] * 6, 10_000, CPU)
    assert batch.ids.numel() == 2 * 12 + 6 * 5  # the last token of a completion predicts nothing


@pytest.mark.parametrize("case", CASES)
def test_padding_counts_for_no_expert(case):
    """In batches of unequal completions it may be the larger part, and it all goes to the same experts."""
    rollouts, shared = CASES[case]
    model = build(ModelConfig(model_type="deepseek_v3", **SHAPE), seed=1).train()
    [router] = model.routers()
    texts = sum(len(one.prompt_ids) + len(one.completion_ids) for one in rollouts)
    if shared:  # prompts are computed once, and a completion's last token predicts nothing
        prompts = {tuple(one.prompt_ids) for one in rollouts}
        texts = sum(map(len, prompts)) + sum(len(one.completion_ids) - 1 for one in rollouts)
    for batch in pack(rollouts, [1.0] * len(rollouts), [1.0] * len(rollouts), 10_000, CPU):
        completion_logprobs(model, batch)
    assert router.load.sum() == 2 * texts
