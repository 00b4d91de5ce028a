"""Advantages and objectives against numbers worked out by hand and loops that follow the papers' formulas."""

import math

import numpy as np
import pytest
import torch

from moreseek.training.objectives import STD_FLOOR, Clip, advantages, kl_penalty, policy_loss, token_weights

CLIP = Clip(0.2, 0.3)
OBJECTIVES = ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo"]
NAN = math.nan

# --- advantages --------------------------------------------------------------------------------------------------


def test_grpo_standardises_within_the_group():
    found = advantages(np.array([[1.0, 0.0, 0.0, 0.0], [2.0, 4.0, 6.0, 8.0]]), "grpo")
    np.testing.assert_allclose(found[0], np.array([0.75, -0.25, -0.25, -0.25]) / (0.5 + STD_FLOOR))
    np.testing.assert_allclose(found[1], np.array([-3, -1, 1, 3]) / (math.sqrt(20 / 3) + STD_FLOOR))
    for other in ("dapo", "gspo"):
        np.testing.assert_array_equal(advantages(np.array([[1.0, 0.0, 0.0, 0.0]]), other), found[:1])


def test_dr_grpo_only_centres():
    np.testing.assert_allclose(advantages(np.array([[1.0, 0.0, 0.0, 0.0]]), "dr_grpo"), [[0.75, -0.25, -0.25, -0.25]])


def test_rloo_compares_with_the_mean_of_the_others():
    np.testing.assert_allclose(advantages(np.array([[1.0, 0.0, 0.5]]), "rloo"), [[0.75, -0.75, 0.0]])


def test_cispo_divides_by_the_spread_of_the_whole_batch():
    found = advantages(np.array([[1.0, 0.0], [3.0, 0.0]]), "cispo")
    spread = np.array([0.5, -0.5, 1.5, -1.5])
    np.testing.assert_allclose(found.ravel(), spread / (spread.std() + STD_FLOOR))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_failed_verifier_is_no_reward_of_zero(objective):
    """NaN gets advantage 0, and the others get what they would have got without it."""
    with_failure = advantages(np.array([[1.0, NAN, 0.0, 0.0], [1.0, 0.0, 0.0, NAN]]), objective)
    without = advantages(np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), objective)
    assert with_failure[0, 1] == with_failure[1, 3] == 0
    np.testing.assert_allclose(with_failure[0, [0, 2, 3]], without[0])
    np.testing.assert_allclose(with_failure[1, :3], without[1])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("group", [[0.3] * 4, [NAN] * 4, [NAN, NAN, 0.5, NAN]], ids=["equal", "failed", "one-left"])
def test_a_group_that_teaches_nothing_has_advantage_zero(objective, group):
    assert advantages(np.array([group]), objective) == pytest.approx(np.zeros((1, 4)), abs=1e-9)


# --- token weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("grpo", [1 / (2 * 4), 1 / (2 * 1)]),
        ("gspo", [1 / (2 * 4), 1 / (2 * 1)]),
        ("dr_grpo", [1 / (2 * 100), 1 / (2 * 100)]),
        ("rloo", [1 / 2, 1 / 2]),
        ("dapo", [1 / 5, 1 / 5]),
        ("cispo", [1 / 5, 1 / 5]),
    ],
)
def test_token_weights(objective, expected):
    np.testing.assert_allclose(token_weights(np.array([4, 1]), objective, 100), expected)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_empty_completions_count_for_nothing_and_divide_by_nothing(objective):
    weights = token_weights(np.array([4, 0, 1]), objective, 100)
    np.testing.assert_allclose(weights[[0, 2]], token_weights(np.array([4, 1]), objective, 100))
    assert np.isfinite(token_weights(np.array([0, 0]), objective, 100)).all()
    assert np.isfinite(token_weights(np.array([], dtype=np.int64), objective, 100)).all()


# --- policy losses -----------------------------------------------------------------------------------------------

LENGTHS = [3, 1, 4]
OWNER = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])
ADVANTAGE = torch.tensor([1.5, 1.5, 1.5, -0.8, -2.0, -2.0, -2.0, -2.0])
WEIGHT = torch.tensor([0.1, 0.1, 0.1, 0.3, 0.2, 0.2, 0.2, 0.2])
OLD = torch.tensor([-1.0, -2.0, -0.5, -1.0, -3.0, -0.1, -1.2, -0.7])
# ratios 1, e^.4 (clipped above), e^-.5; e^.6 (A < 0: kept); e^-.4 (clipped below), 1, e^.1, e^-.1
NEW = OLD + torch.tensor([0.0, 0.4, -0.5, 0.6, -0.4, 0.0, 0.1, -0.1])


def plain_loss(objective, new):
    """One token after another, as the formulas stand in the papers."""
    total, clipped = torch.zeros(()), []
    ratios = [(new[t] - OLD[t]).exp() for t in range(8)]
    if objective == "gspo":
        mean = [torch.stack([new[t] - OLD[t] for t in range(8) if OWNER[t] == i]).mean() for i in range(3)]
        ratios = [mean[OWNER[t]].exp() for t in range(8)]
    for t, ratio in enumerate(ratios):
        a = float(ADVANTAGE[t])
        if objective == "rloo":
            term, cut = a * new[t], False
        elif objective == "cispo":
            kept = min(float(ratio.detach()), 1.3)
            term, cut = kept * a * new[t], float(ratio.detach()) > 1.3
        else:
            bounded = ratio.clamp(0.8, 1.3)
            term, cut = (ratio * a, False) if ratio * a <= bounded * a else (bounded * a, True)
        total = total - WEIGHT[t] * term
        clipped.append(bool(cut))
    return total, clipped


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_gradient_and_clipped_tokens_equal_a_loop_over_tokens(objective):
    fast, plain = NEW.clone().requires_grad_(), NEW.clone().requires_grad_()
    loss, clipped = policy_loss(objective, fast, OLD, ADVANTAGE, WEIGHT, OWNER, CLIP)
    expected, expected_clipped = plain_loss(objective, plain)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(fast.grad, plain.grad)
    assert clipped.tolist() == expected_clipped


def gradient(objective, new):
    new = new.clone().requires_grad_()
    policy_loss(objective, new, OLD, ADVANTAGE, WEIGHT, OWNER, CLIP)[0].backward()
    return new.grad


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_on_policy_every_objective_is_the_policy_gradient(objective):
    expected = -ADVANTAGE * WEIGHT
    if objective == "gspo":  # a token carries its sequence's mean
        expected = torch.stack([expected[i == OWNER].mean() for i in OWNER])
    torch.testing.assert_close(gradient(objective, OLD), expected)


def test_clipping_ends_the_gradient_only_where_the_step_goes_further_away():
    found = gradient("grpo", NEW)
    assert found[1] == 0  # already 1.49 times as likely, and good
    assert found[4] == 0  # already 0.67 times as likely, and bad
    assert found[[0, 2, 3, 5, 6, 7]].abs().min() > 0  # e.g. 3: 1.8 times as likely, and bad


def test_dapo_s_higher_upper_bound_is_a_bound_of_its_own():
    new = OLD + math.log(1.25)
    assert gradient("dapo", new)[:3].abs().min() > 0  # 1.25 ≤ 1 + 0.3
    assert not gradient("dapo", OLD + math.log(1.35))[:3].any()
    assert gradient("dapo", OLD + math.log(1.35))[3:].abs().min() > 0


def test_cispo_s_gradient_survives_clipping_with_a_bounded_weight():
    new = OLD + 2.0
    torch.testing.assert_close(gradient("cispo", new), -1.3 * ADVANTAGE * WEIGHT)


def test_gspo_clips_whole_sequences_by_their_mean_ratio():
    new = OLD + torch.tensor([0.9, -0.9, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0])  # mean log-ratio 0.2 < log 1.3
    assert gradient("gspo", new)[:3].abs().min() > 0
    new = OLD + torch.tensor([0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # mean 0.3 > log 1.3: all three tokens stop
    assert not gradient("gspo", new)[:3].any()


def test_gspo_with_one_token_a_rollout_is_grpo():
    owner = torch.arange(8)
    for new in (OLD, NEW):
        one = policy_loss("gspo", new, OLD, ADVANTAGE, WEIGHT, owner, CLIP)
        other = policy_loss("grpo", new, OLD, ADVANTAGE, WEIGHT, owner, CLIP)
        torch.testing.assert_close(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_tokens_give_no_loss(objective):
    none = torch.zeros(0)
    loss, clipped = policy_loss(objective, none, none, none, none, torch.zeros(0, dtype=torch.int64), CLIP)
    assert loss == 0
    assert clipped.shape == (0,)


# --- the KL term -------------------------------------------------------------------------------------------------


def test_k3_is_never_negative_and_zero_only_where_policies_agree():
    policy, reference = torch.randn(1000), torch.randn(1000)
    assert (kl_penalty(policy, reference) >= 0).all()
    assert not kl_penalty(policy, policy).any()
    assert kl_penalty(torch.tensor([0.0]), torch.tensor([1.0])).item() == pytest.approx(math.e - 2)
    assert kl_penalty(torch.tensor([1.0]), torch.tensor([0.0])).item() == pytest.approx(1 / math.e)


def test_k3_is_an_unbiased_estimate_of_the_divergence():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    expected = (p * (p / q).log()).sum()
    torch.testing.assert_close((p * kl_penalty(p.log(), q.log())).sum(), expected)


def test_k3_pulls_towards_the_reference():
    policy = torch.tensor([-1.0, -1.0], requires_grad=True)
    kl_penalty(policy, torch.tensor([-2.0, -0.5])).sum().backward()
    assert policy.grad[0] > 0  # descent makes a token less likely that the reference finds less likely
    assert policy.grad[1] < 0
