"""GRPO: what is learnt from, what is counted, when it stops, and that a step does what it is for."""

import itertools
import json
import math

import pytest
import torch

from moreseek.errors import FaultError, InputError
from moreseek.model.losses import token_logprobs
from moreseek.training.grpo import has_signal
from moreseek.training.optimizer import Optimizers
from moreseek.training.rollouts import Rollout, RolloutTimes
from moreseek.training.settings import OptimizerSettings

CPU = torch.device("cpu")


def by_length(problem, text):
    return len(text) % 2 / 2 + 0.25


def all_different():
    """No two rewards are equal, so that every rollout has an advantage."""
    calls = itertools.count(1)
    return lambda problem, text: 1 / next(calls)


def always(value):
    return lambda problem, text: value


def updates(grpo, step=1):
    return [list(update) for update in grpo.updates(step)]


def backward(grpo, update):
    """Accumulate an update's gradients; what its losses reported, added up."""
    grpo.model.train()
    sums = {}
    for batch in update:
        loss, parts = grpo.loss(batch)
        loss.backward()
        parts["loss"] = loss.item()
        for key, value in parts.items():
            sums[key] = sums.get(key, 0.0) + value
    return sums


def train_step(grpo, optimizers, step):
    sums = {}
    for update in grpo.updates(step):
        for key, value in backward(grpo, update).items():
            sums[key] = sums.get(key, 0.0) + value
        optimizers.step(1.0)
    return grpo.step_metrics(sums)


def drawn(grpo):
    return [rollout for group in grpo._groups for rollout in group]


# --- it learns ---------------------------------------------------------------------------------------------------

OBJECTIVES = ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo"]


def starts_with_digit(problem, text):
    return float(text.removeprefix("<think>")[:1].isdigit())


def digit_probability(grpo):
    prompt = drawn(grpo)[0].prompt_ids
    digits = [grpo.tokenizer.encode(str(d))[0] for d in range(10)]
    with torch.no_grad():
        return float(grpo.model(torch.tensor([prompt]))[0, -1].softmax(-1)[digits].sum())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_one_step_makes_the_rewarded_token_more_likely(make_grpo, objective):
    grpo = make_grpo(
        starts_with_digit, objective=objective, count=1, prompts_per_step=1, group_size=256, max_completion_tokens=1
    )
    optimizers = Optimizers(grpo.model, OptimizerSettings(lr=3e-3), CPU)
    [update] = updates(grpo)
    assert any(rollout.reward == 1.0 for rollout in drawn(grpo))
    before = digit_probability(grpo)
    backward(grpo, update)
    optimizers.step(1.0)
    assert digit_probability(grpo) > before * 1.02


def test_many_steps_learn_the_task_and_the_reward_says_so(make_grpo):
    grpo = make_grpo(starts_with_digit, group_size=32, max_completion_tokens=1, stop_reward=0.9, stop_window=3)
    optimizers = Optimizers(grpo.model, OptimizerSettings(lr=1e-2), CPU)
    rewards = []
    while not grpo.finished() and len(rewards) < 80:
        rewards.append(train_step(grpo, optimizers, len(rewards) + 1)["reward"])
    assert rewards[0] < 0.3
    assert sum(rewards[-3:]) / 3 >= 0.9


# --- what a step learns from -------------------------------------------------------------------------------------


def test_groups_without_signal_are_not_computed(make_grpo):
    grpo = make_grpo(always(0.5))
    assert updates(grpo) == []
    assert grpo.step_metrics({})["groups_without_signal"] == 1.0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_they_would_have_given_no_gradient(make_grpo, objective):
    """Some groups without signal, some with it: the gradient is that of the whole batch."""
    numbers = all_different()
    score = lambda problem, text: 0.5 if problem.answer in "123" else numbers(problem, text)  # noqa: E731
    grpo = make_grpo(score, objective=objective, prompts_per_step=6, dynamic_sampling=False)
    found = []
    for kl_weight in (0.0, 1e-30):  # with a KL term, here of no weight, all are computed
        grpo.settings = grpo.settings.model_copy(update={"kl_weight": kl_weight})
        [update] = updates(grpo)
        sums = backward(grpo, update)
        found.append({name: p.grad for name, p in grpo.model.named_parameters() if p.grad is not None})
        tokens = sums["trained_tokens"]
        grpo.model.zero_grad()
        grpo.order.drawn = 0
        numbers = all_different()
    assert tokens == sum(len(rollout.completion_ids) for rollout in drawn(grpo))
    assert 0 < grpo.step_metrics({})["groups_without_signal"] < 1
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-6), name


def test_with_a_kl_term_they_are_computed(make_grpo):
    assert len(updates(make_grpo(always(0.5), kl_weight=0.1))) == 1


def test_on_policy_ratios_are_one_and_the_gap_is_tiny(make_grpo):
    grpo = make_grpo(all_different(), temperature=0.7)
    [update] = updates(grpo)
    for batch in update:
        logprobs, _, _ = grpo._forward(grpo.model, batch)
        torch.testing.assert_close(logprobs, batch.sampler_logprobs, atol=2e-5, rtol=1e-4)
    sums = backward(grpo, update)
    metrics = grpo.step_metrics(sums)
    assert metrics["logprob_gap"] < 2e-5
    assert metrics["clipped"] == 0
    assert sums["trained_tokens"] == sum(len(rollout.completion_ids) for rollout in drawn(grpo))


def test_the_gap_compares_what_the_sampler_sampled_from_and_not_what_updates_made_of_it(make_grpo):
    grpo = make_grpo(by_length, epochs=2)
    sums = {}
    for update in grpo.updates(1):
        for batch in update:
            _, parts = grpo.loss(batch)
            sums = {key: sums.get(key, 0.0) + parts.get(key, 0.0) for key in sums.keys() | parts.keys()}
        shift(grpo.model)  # a large step
    metrics = grpo.step_metrics(sums)
    assert metrics["clipped"] > 0  # the second epoch is off-policy,
    assert metrics["logprob_gap"] < 2e-5  # which is not the sampler's fault


def test_the_loss_is_that_of_separate_completions(make_grpo):
    """The gradient of −A·log p, a mean over each completion's tokens, then over completions."""
    grpo = make_grpo(all_different(), micro_batch_tokens=30)
    [update] = updates(grpo)
    assert len(update) > 1
    backward(grpo, update)
    found = {name: p.grad.clone() for name, p in grpo.model.named_parameters() if p.grad is not None}
    grpo.model.zero_grad()
    for group in grpo._groups:
        rewards = torch.tensor([rollout.reward for rollout in group])
        advantage = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        for rollout, value in zip(group, advantage, strict=True):
            ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
            first = len(rollout.prompt_ids) - 1
            hidden = grpo.model.hidden_states(ids)[0, first:-1]
            logprobs, _ = token_logprobs(hidden, grpo.model.head, ids[0, first + 1 :])
            (-value * logprobs.mean() / len(drawn(grpo))).backward()
    for name, gradient in found.items():
        expected = dict(grpo.model.named_parameters())[name].grad
        assert torch.allclose(gradient, expected, atol=1e-5, rtol=1e-3), name


def test_every_rollout_of_a_group_answers_its_problem_in_its_own_way(make_grpo):
    grpo = make_grpo(by_length, group_size=6)
    updates(grpo)
    for group in grpo._groups:
        assert len({rollout.problem.id for rollout in group}) == 1
        assert len({tuple(rollout.prompt_ids) for rollout in group}) == 1
        assert len({tuple(rollout.completion_ids) for rollout in group}) > 1


def test_the_same_seed_gives_the_same_rollouts_and_another_step_others(make_grpo):
    def ids(grpo, step):
        updates(grpo, step)
        return [(rollout.problem.prompt, rollout.completion_ids) for rollout in drawn(grpo)]

    assert ids(make_grpo(by_length), 3) == ids(make_grpo(by_length), 3)
    same = [ids(make_grpo(by_length, count=1, prompts_per_step=1), step) for step in (3, 4)]
    assert same[0] != same[1]
    assert ids(make_grpo(by_length, seed=1), 3) != ids(make_grpo(by_length, seed=2), 3)


def test_every_problem_is_seen_once_an_epoch_in_a_new_order(make_grpo):
    grpo = make_grpo(by_length, prompts_per_step=3)
    epochs = [[grpo._next_problem().prompt for _ in range(6)] for _ in range(3)]
    assert all(sorted(epoch) == sorted(epochs[0]) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_truncated_completions_give_no_gradient_when_masked(make_grpo):
    def tokens(**settings):
        grpo = make_grpo(by_length, max_completion_tokens=3, group_size=16, **settings)
        end = list(range(0, grpo.tokenizer.vocab_size, 3))
        grpo.model.config = grpo.model.config.model_copy(update={"eos_token_id": end})
        [update] = updates(grpo)
        ended = [r for r in drawn(grpo) if not r.truncated]
        assert 0 < len(ended) < len(drawn(grpo))
        return sum(batch.targets.numel() for batch in update), drawn(grpo), ended

    trained, everything, _ = tokens()
    assert trained == sum(len(r.completion_ids) for r in everything)
    trained, _, ended = tokens(mask_truncated=True)
    assert trained == sum(len(r.completion_ids) for r in ended)


def test_a_step_in_which_everything_is_truncated_makes_no_update(make_grpo):
    grpo = make_grpo(by_length, max_completion_tokens=1, mask_truncated=True)
    grpo.model.config = grpo.model.config.model_copy(update={"eos_token_id": None})
    assert updates(grpo) == []
    assert grpo.step_metrics({})["truncated"] == 1.0


# --- dynamic sampling --------------------------------------------------------------------------------------------


def easy_or_open(problem, text):
    """Problems with an even number are always solved; the others sometimes."""
    return 1.0 if int(problem.answer) % 2 else by_length(problem, text)


def test_dynamic_sampling_draws_others_for_groups_without_signal(make_grpo):
    grpo = make_grpo(easy_or_open, objective="dapo", max_sampling_rounds=8, group_size=8)
    [update] = updates(grpo)
    assert len(grpo._groups) == 2
    assert all(has_signal(group) for group in grpo._groups)
    assert all(int(group[0].problem.answer) % 2 == 0 for group in grpo._groups)
    metrics = grpo.step_metrics(backward(grpo, update))
    assert metrics["rollouts"] > 2 * 8  # silent groups are measured and paid for
    assert metrics["groups_without_signal"] > 0


def test_dynamic_sampling_gives_up_after_its_rounds(make_grpo):
    grpo = make_grpo(always(1.0), dynamic_sampling=True, max_sampling_rounds=3)
    assert updates(grpo) == []
    assert grpo.step_metrics({})["rollouts"] == 3 * 2 * 4
    assert grpo.order.drawn == 6
    assert grpo.sample() is not None


def test_dynamic_sampling_is_dapo_s_unless_it_is_set(make_grpo):
    for settings, rounds in [
        ({}, 1),
        ({"objective": "dapo"}, 4),
        ({"objective": "dapo", "dynamic_sampling": False}, 1),
    ]:
        grpo = make_grpo(always(1.0), **settings)
        grpo._collect(1, RolloutTimes())
        assert grpo.order.drawn == 2 * rounds


def test_a_group_has_signal_when_known_rewards_differ():
    def group(*rewards):
        return [Rollout(None, [1], [2], [-1.0], "", False, reward=reward) for reward in rewards]  # type: ignore[arg-type]

    assert has_signal(group(0.0, 1.0, 1.0))
    assert not has_signal(group(1.0, 1.0))
    assert not has_signal(group(1.0, None, None))
    assert not has_signal(group(None, None))


# --- verifiers that fail -----------------------------------------------------------------------------------------


def fails_on_odd(problem, text):
    if len(text) % 2:
        raise RuntimeError("cannot read it")
    return 1.0


def test_a_failed_verifier_is_counted_and_its_completion_is_left_out(make_grpo):
    grpo = make_grpo(fails_on_odd, group_size=16, max_verifier_error_share=1.0, kl_weight=0.1)
    [update] = updates(grpo)
    failed = [rollout for rollout in drawn(grpo) if rollout.reward is None]
    assert 0 < len(failed) < len(drawn(grpo))
    assert not any(batch.advantage.any() for batch in update)  # the others were equally good: nothing to learn
    metrics = grpo.step_metrics(backward(grpo, update))
    assert metrics["verifier_errors"] == len(failed)
    assert metrics["reward"] == 1.0  # not pulled down by zeros
    good = [rollout for rollout in drawn(grpo) if rollout.reward is not None]
    assert sum(batch.targets.numel() for batch in update) == sum(len(r.completion_ids) for r in good)


def test_too_many_failures_stop_the_run_and_say_which(make_grpo):
    grpo = make_grpo(fails_on_odd, group_size=16, max_verifier_error_share=0.05)
    with pytest.raises(
        FaultError, match=r"stage zero: verifiers failed on \d+% .*limit 5%.*answer: RuntimeError: cannot"
    ):
        updates(grpo)


def test_verifiers_that_are_gone_stop_an_old_run_at_once(make_grpo):
    """A long past without errors keeps the share low; a step without any reward teaches nothing all the same."""
    grpo = make_grpo(always(None), max_verifier_error_share=0.5)
    grpo.load_state({"cursor": 0, "recent": [], "errors": {}, "scored": 1_000_000})
    with pytest.raises(FaultError, match="on 8 of the last 8"):
        updates(grpo)


def test_messages_that_are_all_different_do_not_fill_the_checkpoints(make_grpo):
    """Verifiers like to quote the completion. Ten thousand steps of that would be megabytes in each state.json."""
    numbers = itertools.count()

    def score(problem, text):
        raise (
            ValueError("I cannot read it") if next(numbers) % 10 == 0 else ValueError(f"{next(numbers)} " + "?" * 9999)
        )

    grpo = make_grpo(score, group_size=128, max_verifier_error_share=1.0)
    for step in range(1, 4):
        updates(grpo, step)
    state = grpo.state()
    assert len(json.dumps(state)) < 50_000
    assert sum(state["errors"].values()) == state["scored"] == 3 * 256
    grpo.settings = grpo.settings.model_copy(update={"max_verifier_error_share": 0.5})
    with pytest.raises(FaultError, match=r"100% of 1024 .* times: answer: ValueError: I cannot read it"):
        updates(grpo, 4)


def test_a_completion_on_which_two_verifiers_fail_counts_once(make_grpo, verifier):
    rubric = [{"name": name, "verifier": verifier(always(None))} for name in ("one", "two")]
    with pytest.raises(FaultError, match="verifiers failed on 100% of 8 completions"):
        updates(make_grpo(always(1.0), rubric=rubric))


@pytest.mark.parametrize("value", [None, math.nan, 2.0, "1"], ids=repr)
def test_a_value_that_is_no_reward_is_an_error(make_grpo, value):
    grpo = make_grpo(always(value))
    with pytest.raises(FaultError, match="verifiers failed on 100%"):
        updates(grpo)


def test_a_verifier_that_always_fails_on_a_tolerant_run_makes_no_update(make_grpo):
    grpo = make_grpo(always(None), max_verifier_error_share=1.0)
    assert updates(grpo) == []
    metrics = grpo.step_metrics({})
    assert metrics["verifier_errors"] == 8
    assert "reward" not in metrics  # an unknown reward is not 0
    assert "reward unknown" in grpo.headline(metrics)
    assert grpo.recent == []


def test_a_problem_that_leaves_no_room_is_told_before_the_first_step(make_grpo):
    """The engine would refuse it in the step that draws it, hours later and at every resume."""
    make_grpo(always(1.0), max_completion_tokens=100)
    with pytest.raises(InputError, match=r"problem '\d\+1=' has \d+ tokens.*max_completion_tokens 123.*context of 128"):
        make_grpo(always(1.0), max_completion_tokens=123)


def test_a_wrong_verifier_is_refused_before_the_first_step(make_grpo):
    with pytest.raises(InputError, match="verifier 'answer'"):
        make_grpo(by_length, rubric=[{"name": "answer", "verifier": "builtins:len"}])


# --- the reference model -----------------------------------------------------------------------------------------


def shift(model, amount=0.3):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)) * amount)


def test_the_kl_term_is_zero_at_first_and_pulls_back_to_the_reference(make_grpo):
    grpo = make_grpo(always(0.5), kl_weight=0.1)
    [update] = updates(grpo)
    sums = backward(grpo, update)
    assert sums["kl"] == pytest.approx(0.0, abs=1e-6)
    shift(grpo.model)
    grpo.model.zero_grad()
    before = backward(grpo, update)
    assert before["kl"] > 0
    assert grpo.step_metrics(before)["kl"] == pytest.approx(before["kl"] / before["trained_tokens"])
    optimizers = Optimizers(grpo.model, OptimizerSettings(lr=1e-3), CPU)
    optimizers.step(1.0)
    assert backward(grpo, update)["kl"] < before["kl"]


@pytest.mark.parametrize("objective", ["grpo", "rloo"])
def test_the_kl_term_weighs_tokens_as_the_objective_does(make_grpo, objective):
    grpo = make_grpo(always(0.5), kl_weight=0.25, objective=objective, micro_batch_tokens=30)
    [update] = updates(grpo)
    shift(grpo.model)
    expected = 0.0
    for batch in update:
        with torch.no_grad():
            policy, _, _ = grpo._forward(grpo.model, batch)
            reference, _, _ = grpo._forward(grpo.reference, batch)
        difference = reference - policy
        expected += 0.25 * float(((difference.exp() - difference - 1) * batch.weight).sum())
    assert len(update) > 1
    assert backward(grpo, update)["loss"] == pytest.approx(expected, rel=1e-4)  # all advantages are 0


def test_the_reference_is_refreshed_every_few_steps(make_grpo):
    grpo = make_grpo(by_length, kl_weight=0.1, reference_refresh_steps=2)

    def refreshed(step):
        shift(grpo.model)
        updates(grpo, step)
        pairs = zip(grpo.model.parameters(), grpo.reference.parameters(), strict=True)
        return all(torch.equal(mine, theirs) for mine, theirs in pairs)

    assert [refreshed(step) for step in range(1, 6)] == [False, False, True, False, True]


def test_the_reference_never_trains(make_grpo):
    grpo = make_grpo(by_length, kl_weight=0.1)
    before = [parameter.clone() for parameter in grpo.reference.parameters()]
    optimizers = Optimizers(grpo.model, OptimizerSettings(), CPU)
    train_step(grpo, optimizers, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, grpo.reference.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in grpo.reference.parameters())


def test_without_a_kl_term_there_is_no_reference(make_grpo):
    grpo = make_grpo(by_length)
    assert grpo.reference is None
    assert grpo.tensors() == {}


# --- several updates from one batch of rollouts ------------------------------------------------------------------


def test_epochs_times_minibatches_cover_every_rollout_once_an_epoch(make_grpo):
    grpo = make_grpo(all_different(), epochs=3, minibatches=2)
    made = updates(grpo)
    assert len(made) == 6
    everything = sorted(tuple(r.sampler_logprobs) for r in drawn(grpo))

    def members(update):
        return [
            tuple(batch.sampler_logprobs[batch.owner == owner].tolist())
            for batch in update
            for owner in range(int(batch.owner.max()) + 1)
        ]

    epochs = [[members(made[2 * e]), members(made[2 * e + 1])] for e in range(3)]
    for first, second in epochs:
        assert len(first) == len(second) == 4
        found = sorted(first + second)
        assert all(a == pytest.approx(b) for a, b in zip(found, everything, strict=True))
    assert len({tuple(sorted(first)) for first, _ in epochs}) > 1, "the split is drawn again in each epoch"


def test_later_epochs_go_off_policy_and_are_clipped(make_grpo):
    grpo = make_grpo(by_length, epochs=4, clip_low=0.01, clip_high=0.01)
    optimizers = Optimizers(grpo.model, OptimizerSettings(lr=1e-2), CPU)
    clipped = []
    for update in grpo.updates(1):
        clipped.append(backward(grpo, update)["clipped"])
        optimizers.step(1.0)
    assert clipped[0] == 0
    assert clipped[-1] > 0


def test_more_minibatches_than_rollouts_make_one_each(make_grpo):
    assert len(updates(make_grpo(all_different(), minibatches=50))) == 8


# --- stopping, metrics, state ------------------------------------------------------------------------------------


def test_it_stops_at_a_steady_reward_and_not_at_a_lucky_step(make_grpo):
    grpo = make_grpo(by_length, stop_reward=0.9, stop_window=3)
    rewards = [1.0, 1.0, 0.5, 1.0, 1.0, 0.8, 0.9, 1.0]
    finished = []
    for reward in rewards:
        grpo._measured = {"reward": reward, "sample_s": 0.0, "score_s": 0.0}
        grpo.step_metrics({})
        finished.append(grpo.finished())
    assert finished == [False, False, False, False, False, True, True, True]
    assert not make_grpo(always(1.0)).finished()


def test_metrics_add_up(make_grpo):
    rubric = [{"name": "answer"}, {"name": "format", "verifier": "moreseek.rewards.format:think", "weight": 0.5}]
    grpo = make_grpo(by_length, rubric=rubric)
    [update] = updates(grpo)
    metrics = grpo.step_metrics(backward(grpo, update))
    lengths = [len(rollout.completion_ids) for rollout in drawn(grpo)]
    assert metrics["completion_tokens"] == pytest.approx(sum(lengths) / 8)
    assert metrics["rollouts"] == 8
    assert metrics["tokens"] == sum(lengths) + sum(len(rollout.prompt_ids) for rollout in drawn(grpo))
    assert metrics["reward"] == pytest.approx(metrics["reward/answer"] + 0.5 * metrics["reward/format"])
    assert 0 < metrics["entropy"] <= math.log(grpo.tokenizer.vocab_size)
    assert metrics["truncated"] == sum(rollout.truncated for rollout in drawn(grpo)) / 8
    assert "logprob gap!" not in grpo.headline(metrics)
    assert "logprob gap!" in grpo.headline(metrics | {"logprob_gap": 1.0})
    sample = grpo.sample()
    assert sample["reward"] == drawn(grpo)[0].reward
    assert sample["completion"] == drawn(grpo)[0].text


def test_a_resumed_run_goes_on_with_the_same_problems_and_rollouts(make_grpo):
    one = make_grpo(by_length, kl_weight=0.1, prompts_per_step=4)  # 4 of 6 problems: the second step is mid-epoch
    for step in (1, 2):
        updates(one, step)
        one.step_metrics({})
    shift(one.reference)
    other = make_grpo(by_length, kl_weight=0.1, prompts_per_step=4)
    other.load_state(one.state())
    other.load_tensors({name: tensor.clone() for name, tensor in one.tensors().items()})
    assert other.state() == one.state()
    assert other.recent == one.recent
    for step in (3, 4):
        [mine], [theirs] = updates(one, step), updates(other, step)
        seen = [[(rollout.problem.id, rollout.completion_ids) for rollout in drawn(grpo)] for grpo in (one, other)]
        assert seen[0] == seen[1]
        assert backward(one, mine)["kl"] == backward(other, theirs)["kl"]


def test_verifier_errors_are_remembered_over_a_resume(make_grpo):
    one = make_grpo(fails_on_odd, max_verifier_error_share=1.0)
    updates(one)
    other = make_grpo(always(1.0), max_verifier_error_share=0.01)
    other.load_state(one.state())
    with pytest.raises(FaultError, match="cannot read it"):
        updates(other, 2)
