"""DPO: the loss is the paper's, whatever the layout; it moves the right way; nothing is lost over a resume."""

import math
from typing import Any

import pytest
import torch
from tests.unit.training.conftest import make_model

from moreseek.data.preferences import PreferenceSplit
from moreseek.errors import InputError
from moreseek.model.config import ModelConfig
from moreseek.model.transformer import Transformer, build
from moreseek.records import Preference
from moreseek.text.tokenizer import Tokenizer
from moreseek.training.device import autocast
from moreseek.training.optimizer import Optimizers
from moreseek.training.pairs import EncodedPair, EncodedPairs, encode_pairs
from moreseek.training.preference import PreferenceTraining, parts, preference_loss
from moreseek.training.settings import OptimizerSettings, PreferenceSettings

V3 = {
    "model_type": "deepseek_v3", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 2, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "num_nextn_predict_layers": 1,
    "max_position_embeddings": 256,
}  # fmt: skip


def line(number: int, **more: Any) -> Preference:
    """Pairs whose answers have several lengths, some of one token, some with thinking; questions come back."""
    long = "+1" * (number % 4)
    return Preference(
        prompt=f"{number % 5}{'+2' * (number % 3)}=", chosen=f"{number}", rejected=f"{number}{long}0",
        chosen_reasoning=f"{number}{long}={number}" if number % 2 else None, **more,
    )  # fmt: skip


def encoded(tokenizer: Tokenizer, count: int = 9, heldout: int = 4, **more: Any) -> EncodedPairs:
    lines = [line(number, **more) for number in range(count + heldout)]
    return encode_pairs(tokenizer, PreferenceSplit(tuple(lines[:count]), tuple(lines[count:])), 128)


def shaken(model: Transformer, seed: int = 5) -> Transformer:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model


@pytest.fixture(params=["llama", "deepseek_v3"])
def model(request: pytest.FixtureRequest, tokenizer: Tokenizer) -> Transformer:
    if request.param == "llama":
        return make_model(tokenizer)
    ids = {"vocab_size": tokenizer.vocab_size, "eos_token_id": list(tokenizer.eos_ids)}
    return shaken(build(ModelConfig.model_validate(V3 | ids), seed=1))


def settings(**more: Any) -> PreferenceSettings:
    table = {"method": "preference", "name": "p", "start_from": "base", "data": "x", "steps": 4, "pairs_per_step": 9}
    return PreferenceSettings.model_validate(table | more)


def alone(model: Transformer, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """log p(completion | prompt): one text, the whole (T, V) table, no packing."""
    logprobs = model(torch.tensor([prompt + completion]))[0, len(prompt) - 1 : -1].log_softmax(-1)
    return logprobs.gather(1, torch.tensor(completion)[:, None]).sum()


def slow_loss(
    model: Transformer, reference: dict[int, tuple[float, float]], pairs: list[EncodedPair], s: PreferenceSettings
) -> torch.Tensor:
    """Rafailov et al. 2023, eq. 7, pair by pair, with what the settings add to it."""
    total, weights = torch.zeros(()), 0.0
    for pair in pairs:
        rewards = []
        for side, before in zip(pair.sides, reference[id(pair)], strict=True):
            ratio = alone(model, side.prompt_ids, side.completion_ids) - before
            rewards.append(s.beta * ratio / (len(side.completion_ids) if s.length_normalised else 1))
        p = torch.sigmoid(rewards[0] - rewards[1])
        loss = -(1 - s.label_smoothing) * torch.log(p) - s.label_smoothing * torch.log(1 - p)
        nll = -alone(model, pair.chosen.prompt_ids, pair.chosen.completion_ids) / len(pair.chosen.completion_ids)
        weight = pair.agreement if s.weight_by_votes else 1.0
        total, weights = total + weight * (loss + s.nll_weight * nll), weights + weight
    return total / weights


def step(method: PreferenceTraining, number: int = 1) -> dict[str, float]:
    """The gradients of a step and its metrics."""
    sums: dict[str, float] = {}
    method.model.train()
    for update in method.updates(number):
        for batch in update:
            loss, found = method.loss(batch)
            loss.backward()
            for key, value in {**found, "loss": float(loss.detach())}.items():
                sums[key] = sums.get(key, 0.0) + value
    return method.step_metrics(sums)


SETTINGS = {
    "plain": {},
    "one pair at a time": {"micro_batch_tokens": 1},
    "a few at a time": {"micro_batch_tokens": 100},
    "everything": {
        "beta": 0.7, "label_smoothing": 0.1, "nll_weight": 0.3, "weight_by_votes": True, "micro_batch_tokens": 60,
    },
    "length-normalised": {"beta": 5.0, "length_normalised": True},
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_loss_and_gradient_are_those_of_the_papers_formula_pair_by_pair(
    case: str, model: Transformer, tokenizer: Tokenizer
) -> None:
    votes = {"votes": {"for": 3, "against": 1, "neither": 1}} if case == "everything" else {}
    pairs = encoded(tokenizer, **votes)
    object.__setattr__(pairs.train[0], "agreement", 1.0)  # one on which all agreed
    method = PreferenceTraining(model, pairs, settings(**SETTINGS[case]), seed=1)
    list(method.updates(1))  # the reference is the model as it is now …
    with torch.no_grad():
        reference = {id(p): tuple(float(alone(model, s.prompt_ids, s.completion_ids)) for s in p.sides)
                     for p in pairs.train}  # fmt: skip
    shaken(model, 9)  # … and the policy has moved
    found = step(method, 2)
    expected = slow_loss(model, reference, pairs.train, method.settings)
    assert found["loss"] == pytest.approx(float(expected.detach()), rel=1e-4)
    parameters = [p for n, p in model.named_parameters() if not n.startswith("mtp")]
    for fast, slow in zip(
        [p.grad for p in parameters], torch.autograd.grad(expected, parameters, allow_unused=True), strict=True
    ):
        assert (fast is None or not fast.any()) == (slow is None or not slow.any())
        if fast is not None and slow is not None:
            torch.testing.assert_close(fast, slow, atol=2e-4, rtol=2e-3)


def test_the_formula_at_its_landmarks() -> None:
    margins = torch.tensor([0.0, 2.0, -2.0])
    assert preference_loss(margins).tolist() == pytest.approx([math.log(2), 0.126928, 2.126928], abs=1e-5)
    smoothed = preference_loss(torch.linspace(-6, 6, 1201), 0.1)
    best = float(torch.linspace(-6, 6, 1201)[smoothed.argmin()])
    assert best == pytest.approx(math.log(0.9 / 0.1), abs=0.02)  # cDPO stops at the odds that the labels have
    assert torch.isfinite(preference_loss(torch.tensor([1e4, -1e4]), 0.1)).all()


def test_before_the_first_update_nothing_is_preferred(tokenizer: Tokenizer) -> None:
    method = PreferenceTraining(make_model(tokenizer), encoded(tokenizer), settings(), seed=1)
    found = step(method)
    assert found["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert found["reward_margin"] == pytest.approx(0, abs=1e-5)
    assert method.before["heldout_reward_accuracy"] == 0.5  # exactly: equal rewards count half
    assert method.before["heldout_loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_the_reference_is_computed_in_the_precision_of_the_policy(model: Transformer, tokenizer: Tokenizer) -> None:
    method = PreferenceTraining(model, encoded(tokenizer), settings(), seed=1, precision=torch.bfloat16)
    [[batch]] = method.updates(1)
    with autocast(model.device, torch.bfloat16), torch.no_grad():
        found = method.loss(batch)[1]
    apart = abs(found["reward_margin"])
    with torch.no_grad():
        plain = abs(method.loss(batch)[1]["reward_margin"])
    assert apart < plain / 2  # equal but for rounding that follows from the layout


def test_steps_make_the_chosen_answers_likelier_than_the_rejected_ones(
    model: Transformer, tokenizer: Tokenizer
) -> None:
    pairs = encoded(tokenizer)
    method = PreferenceTraining(model, pairs, settings(beta=0.5), seed=1)
    optimizers = Optimizers(model, OptimizerSettings(lr=3e-3), model.device)
    losses = []
    for number in range(1, 13):
        found = step(method, number)
        optimizers.step(1.0)
        losses.append(found["loss"])
    assert losses[-1] < 0.3 < losses[0]
    assert found["reward_accuracy"] == 1.0
    assert found["reward_margin"] > 0
    assert found["chosen_reward"] > found["rejected_reward"]
    assert found["chosen_drift"] > found["rejected_drift"]
    swapped = EncodedPairs([EncodedPair(p.rejected, p.chosen, 1.0) for p in pairs.train], [], 0)
    other = PreferenceTraining(model, swapped, settings(beta=0.5), seed=1)
    other.reference = method.reference[: len(pairs.train)].flip(1) if method.reference is not None else None
    assert step(other, 13)["reward_accuracy"] == 0.0


def test_the_weight_of_a_pair_is_its_share_of_the_agreement(tokenizer: Tokenizer) -> None:
    pairs = encoded(tokenizer, count=2)
    object.__setattr__(pairs.train[1], "agreement", 0.25)
    for weighted, expected in ((False, [0.5, 0.5]), (True, [0.2, 0.8])):
        method = PreferenceTraining(
            make_model(tokenizer), pairs, settings(weight_by_votes=weighted, pairs_per_step=2), seed=1
        )
        [update] = method.updates(1)
        assert sorted(w for batch in update for w in batch.weight.tolist()) == pytest.approx(expected)


def test_the_mtp_module_alone_learns_from_its_own_loss(tokenizer: Tokenizer) -> None:
    ids = {"vocab_size": tokenizer.vocab_size, "eos_token_id": list(tokenizer.eos_ids)}

    def gradients(weight: float) -> tuple[dict[str, torch.Tensor | None], dict[str, float]]:
        model = shaken(build(ModelConfig.model_validate(V3 | ids), seed=1))
        found = step(PreferenceTraining(model, encoded(tokenizer), settings(mtp_weight=weight), seed=1))
        return {name: parameter.grad for name, parameter in model.named_parameters()}, found

    (without, plain), (trained, found) = gradients(0.0), gradients(0.3)
    assert "mtp_loss" not in plain
    assert 0 < found["mtp_loss"] < 20
    for name, gradient in trained.items():
        if name.startswith("mtp"):
            assert without[name] is None
        else:
            assert (gradient is None) == (without[name] is None)
            assert gradient is None or torch.equal(gradient, without[name])
    assert any(gradient is not None and gradient.any() for name, gradient in trained.items() if name.startswith("mtp"))


def test_held_out_pairs_are_measured_and_give_no_gradient(tokenizer: Tokenizer) -> None:
    pairs = encoded(tokenizer)
    method = PreferenceTraining(make_model(tokenizer), pairs, settings(heldout_every_steps=2, steps=3), seed=1)
    found = [step(method, number) for number in (1, 2, 3)]
    assert ["heldout_loss" in one for one in found] == [False, True, True]  # every second, and the last
    assert method.facts()["preference"]["after"]["heldout_loss"] == found[2]["heldout_loss"]
    without = PreferenceTraining(make_model(tokenizer), EncodedPairs(pairs.train, [], 0), settings(steps=1), seed=1)
    assert "heldout_loss" not in step(without)
    assert without.facts()["preference"]["after"] == {}


def test_every_pair_is_drawn_once_an_epoch_and_the_progress_of_scoring_is_told(tokenizer: Tokenizer) -> None:
    told: list[Any] = []
    pairs = encoded(tokenizer)
    method = PreferenceTraining(
        make_model(tokenizer), pairs, settings(pairs_per_step=3), 1, progress=lambda *seen: told.append(seen)
    )
    chosen: list[int] = []
    for number in (1, 2, 3):
        [update] = method.updates(number)
        chosen += [batch.completions.targets[batch.completions.owner == place].sum().tolist()
                   for batch in update for place in batch.place[:, 0]]  # fmt: skip
    assert sorted(chosen) == sorted(sum(pair.chosen.completion_ids) for pair in pairs.train)
    assert told[-1] == ("pairs scored", 13, 13)


def test_a_pair_is_never_parted_and_a_part_stays_within_its_tokens(tokenizer: Tokenizer) -> None:
    pairs = encoded(tokenizer).train
    for limit in (1, 60, 150, 10**6):
        found = parts(pairs, limit)
        assert sorted(index for part in found for index in part) == list(range(len(pairs)))
        for part in found:
            assert len(part) == 1 or len(part) * 2 * max(pairs[i].longest for i in part) <= limit
    assert len(parts(pairs, 1)) == len(pairs)
    assert len(parts(pairs, 10**6)) == 1


def test_a_resume_goes_on_with_the_same_pairs_against_the_same_reference(tokenizer: Tokenizer) -> None:
    def begun() -> PreferenceTraining:
        return PreferenceTraining(make_model(tokenizer), encoded(tokenizer), settings(pairs_per_step=4), seed=1)

    one, other = begun(), begun()
    for number in (1, 2):
        step(one, number)
    shaken(one.model)
    other.model.load_state_dict(one.model.state_dict())
    other.load_tensors({name: tensor.clone() for name, tensor in one.tensors().items()})
    other.load_state(one.state())
    assert other.facts() == one.facts()
    for method in (one, other):
        method.model.zero_grad()
    mine, theirs = step(one, 3), step(other, 3)
    assert {k: v for k, v in mine.items() if k != "tokens_per_s"} == {
        k: v for k, v in theirs.items() if k != "tokens_per_s"
    }
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad) if a.grad is not None and b.grad is not None else a.grad is b.grad


def test_a_checkpoint_of_other_pairs_is_refused(tokenizer: Tokenizer) -> None:
    one = PreferenceTraining(make_model(tokenizer), encoded(tokenizer), settings(), seed=1)
    step(one)
    other = PreferenceTraining(make_model(tokenizer), encoded(tokenizer, count=8), settings(), seed=1)
    with pytest.raises(InputError, match="not those of the checkpoint"):
        other.load_state(one.state())


def test_pairs_that_are_too_long_are_left_out_counted_and_never_cut(tokenizer: Tokenizer) -> None:
    lines = tuple(line(number) for number in range(12))
    everything = encode_pairs(tokenizer, PreferenceSplit(lines, lines[:4]), 10**6)
    limit = sorted(pair.longest for pair in everything.train)[6]
    found = encode_pairs(tokenizer, PreferenceSplit(lines, lines[:4]), limit)
    kept = [pair for pair in everything.train if pair.longest <= limit]
    assert 0 < len(kept) < 12
    assert found.train == kept
    assert found.too_long == 16 - len(found.train) - len(found.heldout)
    with pytest.raises(InputError, match=r"all 12 pairs to train on are longer than 3 tokens \(the shortest has"):
        encode_pairs(tokenizer, PreferenceSplit(lines, ()), 3)


def test_a_system_prompt_goes_before_prompts_that_have_none(tokenizer: Tokenizer) -> None:
    own = Preference.model_validate({
        "prompt": [{"role": "system", "content": "own"}, {"role": "user", "content": "?"}], "chosen": "a",
        "rejected": "b",
    })  # fmt: skip
    found = encode_pairs(tokenizer, PreferenceSplit((line(1), own), ()), 200, "given")
    texts = [tokenizer.decode(pair.chosen.prompt_ids) for pair in found.train]
    assert texts[0].startswith("<|system|>given<|end|>")
    assert texts[1].startswith("<|system|>own<|end|>")
    assert found.train[0].chosen.prompt_ids == found.train[0].rejected.prompt_ids


def test_turns_that_the_template_refuses_are_named(tokenizer: Tokenizer) -> None:
    turns = [{"role": "user", "content": "?"}, {"role": "system", "content": "late"}, {"role": "user", "content": "!"}]
    late = Preference.model_validate({"prompt": turns, "chosen": "a", "rejected": "b"})
    with pytest.raises(InputError, match=r"the pair on .*: .*A system message can only come first"):
        encode_pairs(tokenizer, PreferenceSplit((late,), ()), 200)


def test_steps_and_epochs_together_are_refused() -> None:
    with pytest.raises(ValueError, match="leave one out"):
        settings(epochs=2)
    assert settings(steps=0, epochs=2).epochs == 2
