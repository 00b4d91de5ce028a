"""Plain sentences about a run: what reinforcement learning elicited, and what it added.

Greedy accuracy that rises to a pass@k the model had before is elicitation: right answers were already within
reach of a few samples. Gain is a pass@k that itself rises, or longer problems that come within reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moreseek.evals.statistics import wilson
from moreseek.evals.wording import percent, times

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The two evaluated stages that the report puts side by side. ``before`` is None when there is only one."""

    before: Json | None
    after: Json


def compare(stages: Sequence[Json], names: Sequence[str] | None = None) -> Comparison | None:
    """Choose before and after among report.json's stages: the named pair, else first and last evaluated.

    Returns None when no stage has been evaluated yet.
    """
    evaluated = [stage for stage in stages if stage.get("eval")]
    if not evaluated:
        return None
    if names:
        chosen = [stage for name in names for stage in evaluated if stage["name"] == name]
        if len(chosen) == 2:
            return Comparison(chosen[0], chosen[1])
    return Comparison(evaluated[0] if len(evaluated) > 1 else None, evaluated[-1])


def headline(run: str, comparison: Comparison | None) -> str:
    """The page's title: the one result that matters, with its unit."""
    if comparison is None:
        return f"{run}: not evaluated yet"
    after = comparison.after["eval"]
    if comparison.before is None:
        return f"{run}: {percent(after['greedy'])} of held-out problems right"
    return f"{run}: from {percent(comparison.before['eval']['greedy'])} to {percent(after['greedy'])} right"


def sentences(comparison: Comparison | None) -> list[str]:
    """What happened, what was elicited, what was gained: one plain sentence each."""
    if comparison is None:
        return ["No stage has been evaluated yet."]
    after = comparison.after["eval"]
    if comparison.before is None:
        return [
            f"{comparison.after['name']} answers {percent(after['greedy'])} of {after['problems']} held-out problems "
            f"right when decoded greedily, in {after['mean_completion_tokens']:.1f} tokens on average."
        ]
    before = comparison.before["eval"]
    found = [_what_changed(comparison), _elicited(before, after), _gained(before, after)]
    if before.get("longer_than_seen") and after.get("longer_than_seen"):
        found.append(_beyond(before["longer_than_seen"], after["longer_than_seen"]))
    return [sentence for sentence in found if sentence]


def preferred(name: str, info: Json) -> str:
    """What a preference stage (its stage.json) made of the pairs that it did not train on; empty for other stages."""
    facts = info.get("preference")
    if not facts:
        return ""
    left_out = f", {facts['too_long']} were too long" if facts["too_long"] else ""
    trained = f"{name} was trained on {facts['pairs']} preference pairs{left_out}"
    if not facts["after"]:
        return f"{trained}; none were held out, so nothing says whether it learned more than these."
    share, questions = facts["after"]["heldout_reward_accuracy"], facts["heldout_questions"]
    known = wilson(round(share * questions), questions)  # pairs of one question do not count as apart
    before, after = facts["before"]["heldout_likelier"], facts["after"]["heldout_likelier"]
    return (
        f"{trained}. Of {facts['heldout_pairs']} held-out pairs on {questions} questions it moved {share:.1%} "
        f"towards the preferred answer (95 %: {known.ci_low:.1%} to {known.ci_high:.1%}; 50 % is what chance does); "
        f"the preferred answer is the likelier one in {after:.1%} of them, before it was in {before:.1%}."
    )


def _what_changed(comparison: Comparison) -> str:
    assert comparison.before is not None
    before, after = comparison.before["eval"], comparison.after["eval"]
    length0, length1 = before["mean_completion_tokens"], after["mean_completion_tokens"]
    verb = "rose" if _value(after["greedy"]) >= _value(before["greedy"]) else "fell"
    grew = "grew" if length1 >= length0 else "shrank"
    return (
        f"From {comparison.before['name']} to {comparison.after['name']}, greedy accuracy on {after['problems']} "
        f"held-out problems {verb} from {percent(before['greedy'])} to {percent(after['greedy'])}, and the mean answer "
        f"{grew} from {length0:.1f} to {length1:.1f} tokens ({times(length0, length1)})."
    )


def _elicited(before: Json, after: Json) -> str:
    """How much of the greedy accuracy was within reach of k samples before; empty when nothing shows."""
    at_k, k = before.get("pass_at_k"), before.get("k")
    reached = min(_value(after["greedy"]), _value(at_k))
    if not at_k or not before["greedy"] or reached <= before["greedy"]["ci_high"]:
        return ""
    return (
        f"Elicited: before, {k} samples already held a right answer for {percent(at_k)} of the problems, while greedy "
        f"decoding solved {percent(before['greedy'])}; training made the answer that was within reach the habit."
    )


def _gained(before: Json, after: Json) -> str:
    """Whether pass@k itself moved, on problems like those of training."""
    at_k0, at_k1, k = before.get("pass_at_k"), after.get("pass_at_k"), after.get("k")
    if not at_k0 or not at_k1 or before.get("k") != k:
        return ""
    reach = f"pass@{k} was {percent(at_k0)} before and is {percent(at_k1)} after"
    if at_k1["ci_low"] > at_k0["ci_high"]:
        return f"Gained: {reach}, and the intervals do not meet."
    if at_k1["ci_high"] < at_k0["ci_low"]:
        return f"Lost: {reach}: fewer problems are within reach of {k} samples than before."
    return f"No gain beyond that on these problems: {reach}, and the intervals overlap."


def _beyond(before: Json, after: Json) -> str:
    k = after.get("k")
    text = (
        f"On {after['problems']} problems longer than pretraining ever showed, greedy accuracy went from "
        f"{percent(before['greedy'])} to {percent(after['greedy'])}"
    )
    at_k0, at_k1 = before.get("pass_at_k"), after.get("pass_at_k")
    if at_k0 and at_k1 and before.get("k") == k:
        text += f" and pass@{k} from {percent(at_k0)} to {percent(at_k1)}"
        if at_k1["ci_low"] > at_k0["ci_high"]:
            return f"Gained: {_lower(text)}, so problems came within reach that {k} samples did not reach before."
        if at_k1["ci_high"] < at_k0["ci_low"]:
            return f"Lost: {_lower(text)}, so fewer of them are within reach of {k} samples."
        return f"{text}; the intervals of pass@{k} overlap, so no gain beyond elicitation is shown there."
    return f"{text}."


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _value(estimate: Json | None) -> float:
    return estimate["value"] if estimate else 0.0
