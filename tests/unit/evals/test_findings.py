"""The sentences of a report say no more than the intervals allow."""

from moreseek.evals.findings import compare, headline, preferred, sentences
from moreseek.evals.wording import percent


def estimate(value, half=0.02):
    return {"value": value, "ci_low": max(0.0, value - half), "ci_high": min(1.0, value + half)}


def stage(name, greedy, pass_k, length=4.0, longer=None, k=16):
    result = {"problems": 500, "greedy": estimate(greedy), "pass_at_k": estimate(pass_k), "k": k}
    result |= {"mean_completion_tokens": length, "longer_than_seen": None}
    if longer:
        greedy_longer, pass_longer = map(estimate, longer)
        result["longer_than_seen"] = {"problems": 200, "greedy": greedy_longer, "pass_at_k": pass_longer, "k": 64}
    return {"name": name, "eval": result}


def found(*stages):
    return [text.replace("\N{NO-BREAK SPACE}", " ") for text in sentences(compare(stages))]


def test_accuracy_that_pass_at_k_had_already_is_elicitation_and_no_gain():
    first, second, third = found(stage("base", 0.39, 0.98), stage("zero", 0.99, 0.99, 29.4))
    assert "rose from 39.0 % to 99.0 %" in first
    assert "grew from 4.0 to 29.4 tokens (×7.3)" in first
    assert second.startswith("Elicited: before, 16 samples already held a right answer for 98.0 %")
    assert third.startswith("No gain beyond that on these problems: pass@16 was 98.0 % before and is 99.0 % after")


def test_a_pass_at_k_that_rises_past_both_intervals_is_a_gain():
    assert found(stage("base", 0.39, 0.60), stage("zero", 0.9, 0.95))[-1].startswith("Gained: pass@16 was 60.0 %")


def test_a_pass_at_k_that_falls_is_said_to_be_lost():
    assert found(stage("base", 0.39, 0.98), stage("zero", 0.5, 0.6))[-1].startswith("Lost: pass@16")


def test_longer_problems_are_judged_by_their_own_pass_at_k():
    gained = found(stage("a", 0.3, 0.9, longer=(0.01, 0.3)), stage("b", 0.9, 0.9, longer=(0.4, 0.8)))[-1]
    assert gained.startswith("Gained: on 200 problems longer than pretraining ever showed")
    elicited = found(stage("a", 0.3, 0.9, longer=(0.01, 0.79)), stage("b", 0.9, 0.9, longer=(0.4, 0.8)))[-1]
    assert "no gain beyond elicitation is shown" in elicited
    lost = found(stage("a", 0.3, 0.9, longer=(0.2, 0.8)), stage("b", 0.9, 0.9, longer=(0.1, 0.3)))[-1]
    assert lost.startswith("Lost: on 200")


def test_nothing_is_called_elicited_when_greedy_accuracy_did_not_rise():
    said = found(stage("base", 0.39, 0.98, 29.0), stage("zero", 0.06, 0.97, 3.0))
    assert "fell from 39.0 % to 6.0 %" in said[0]
    assert "shrank from 29.0 to 3.0" in said[0]
    assert not any(text.startswith("Elicited") for text in said)


def test_different_k_are_not_compared():
    assert not any("pass@" in text for text in found(stage("a", 0.3, 0.9, k=16), stage("b", 0.9, 0.9, k=4))[2:])


def test_one_stage_is_reported_without_a_before():
    comparison = compare([stage("base", 0.39, 0.98), {"name": "zero", "eval": None}])
    assert comparison.before is None
    assert len(sentences(comparison)) == 1


def test_a_recipe_may_name_the_stages_to_compare():
    stages = [stage("base", 0.39, 0.98), stage("zero", 0.99, 0.99), stage("control", 0.5, 0.9)]
    chosen = compare(stages, ["base", "zero"])
    assert (chosen.before["name"], chosen.after["name"]) == ("base", "zero")
    assert compare(stages).after["name"] == "control"
    assert headline("r", chosen) == "r: from 39.0\N{NO-BREAK SPACE}% to 99.0\N{NO-BREAK SPACE}% right"


def test_a_hundred_per_cent_is_said_only_of_all():
    assert percent(1.0) == "100\N{NO-BREAK SPACE}%"
    assert percent(0.99999) == "> 99.9\N{NO-BREAK SPACE}%"
    assert percent(0.998) == "99.8\N{NO-BREAK SPACE}%"
    assert percent(None) == "–"


def test_what_a_preference_stage_learned_is_said_by_pairs_that_it_did_not_train_on():
    facts = {"pairs": 800, "heldout_pairs": 120, "heldout_questions": 40, "too_long": 3}
    facts |= {"before": {"heldout_likelier": 0.4}, "after": {"heldout_likelier": 0.7, "heldout_reward_accuracy": 0.9}}
    said = preferred("p", {"preference": facts})
    assert said.startswith(
        "p was trained on 800 preference pairs, 3 were too long. Of 120 held-out pairs on 40 questions"
    )
    assert "moved 90.0% towards the preferred answer (95 %: 76.9% to 96.0%;" in said  # Wilson of 36 in 40
    assert said.endswith("is the likelier one in 70.0% of them, before it was in 40.0%.")
    nothing = preferred("p", {"preference": facts | {"after": {}, "before": {}, "too_long": 0}})
    assert nothing.startswith("p was trained on 800 preference pairs; none were held out")
    assert preferred("base", {"method": "pretrain"}) == ""
