"""Files of preference pairs: what is understood, what is refused and how, and which side a pair is on."""

import json
from pathlib import Path

import pytest

from moreseek.data.preferences import load_preferences
from moreseek.data.split import is_heldout
from moreseek.errors import InputError
from moreseek.records import Message, Preference

PAIR = {"prompt": "1+2=", "chosen": "3", "rejected": "4"}
TRAINED = next(f"{i}+1=" for i in range(50) if not is_heldout(f"{i}+1="))
HELD_OUT = next(f"{i}+1=" for i in range(50) if is_heldout(f"{i}+1="))


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def pair(**changes: object) -> dict[str, object]:
    return {key: value for key, value in {**PAIR, **changes}.items() if value is not None}


def test_a_line_is_a_pair_in_any_of_its_forms() -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+2="}]
    thought = {"role": "assistant", "content": "3", "reasoning_content": "1+2=3"}
    plain = Preference.model_validate(PAIR)
    assert plain.prompt == (Message(role="user", content="1+2="),)
    assert plain.answer("chosen") == (Message(role="assistant", content="3"), False)
    for chosen in ({"chosen": "3", "chosen_reasoning": "1+2=3"}, {"chosen": [thought]}):
        found = Preference.model_validate(pair(prompt=turns, rejected_truncated=True) | chosen)
        assert found.answer("chosen") == (Message(role="assistant", content="3", reasoning_content="1+2=3"), False)
        assert found.answer("rejected") == (Message(role="assistant", content="4"), True)
        assert found.question == plain.question == "1+2="


def test_agreement_is_the_votes_for_less_those_against_of_all() -> None:
    votes = {"for": 5, "against": 2, "neither": 3}
    assert Preference.model_validate(pair(votes=votes)).agreement == pytest.approx(0.3)
    assert Preference.model_validate(PAIR).agreement == 1.0


WRONG = {
    "not JSON": ("{", "not a JSON object on one line"),
    "a list": ("[1]", "a JSON object"),
    "no prompt": (pair(prompt=None), "key 'prompt' is missing"),
    "no chosen": (pair(chosen=None), "key 'chosen' is missing"),
    "no rejected": (pair(rejected=None), "key 'rejected' is missing"),
    "a misspelt key": (pair(rejected=None, rejectd="4"), "unknown key 'rejectd'. Did you mean 'rejected'?"),
    "a key of others": (pair(score_chosen=9), "unknown key 'score_chosen'"),
    "an empty prompt": (pair(prompt=""), "a prompt is a text that is not empty"),
    "no turns": (pair(prompt=[]), "a prompt is a text that is not empty"),
    "the assistant speaks last": (pair(prompt=[{"role": "assistant", "content": "x"}]), "the last one is the user's"),
    "an unknown role": (pair(prompt=[{"role": "human", "content": "x"}]), "prompt.0.role"),
    "a turn with another key": (
        pair(prompt=[{"role": "user", "contents": "x"}]), "unknown key 'prompt.0.contents'. Did you mean 'content'?",
    ),
    "a number": (pair(chosen=3), "chosen: a text in quotes is needed (found 3)"),
    "two turns as an answer": (
        pair(chosen=[{"role": "assistant", "content": "x"}] * 2), "a list of one assistant turn",
    ),
    "the user answers": (pair(chosen=[{"role": "user", "content": "x"}]), "a list of one assistant turn"),
    "thinking twice": (
        pair(chosen=[{"role": "assistant", "content": "x"}], chosen_reasoning="y"), "a list of one assistant turn",
    ),
    "an answer's turn with another key": (
        pair(chosen=[{"role": "assistant", "contents": "x"}]),
        "chosen: unknown key 'contents'. Did you mean 'content'?",
    ),
    "an answer's turn without a text": (pair(chosen=[{"role": "assistant"}]), "chosen: a text in quotes is needed"),
    "equal answers": (pair(rejected="3"), "chosen and rejected are the same"),
    "equal answers in two forms": (
        pair(rejected=[{"role": "assistant", "content": "3"}], chosen_reasoning=""), "chosen and rejected are the same",
    ),
    "cut before a word": (pair(rejected="", rejected_truncated=True), "rejected was cut before it said anything"),
    "more against": (pair(votes={"for": 1, "against": 1}), "more of them must be for the chosen answer"),
    "votes without for": (pair(votes={"against": 1}), "votes.for"),
    "a misspelt vote": (pair(votes={"for": 1, "agianst": 0}), "unknown key 'votes.agianst'. Did you mean 'against'?"),
    "half a character": ('{"prompt": "a", "chosen": "\\ud800", "rejected": "b"}', "half of a character"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_line_is_named_with_file_line_and_what_is_wrong(case: str, tmp_path: Path) -> None:
    line, said = WRONG[case]
    path = written(tmp_path / "pairs.jsonl", PAIR, "", line)
    with pytest.raises(InputError) as refused:
        load_preferences(path)
    assert str(refused.value).startswith(f"{path}:3: ")
    assert said in str(refused.value)


def test_a_long_text_in_a_refusal_is_cut(tmp_path: Path) -> None:
    path = written(tmp_path / "pairs.jsonl", pair(chosen_truncated="x" * 10_000))
    with pytest.raises(InputError) as refused:
        load_preferences(path)
    assert len(str(refused.value)) < 400


def test_a_file_that_is_missing_empty_or_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9"}')
    written(tmp_path / "empty.jsonl", "", "")
    for name, said in {"none": "no such file", "empty": "no preference pairs", "latin": "UTF-8"}.items():
        with pytest.raises(InputError, match=said):
            load_preferences(tmp_path / f"{name}.jsonl")


def test_a_questions_pairs_are_all_on_one_side_whatever_the_files_order(tmp_path: Path) -> None:
    lines = [pair(prompt=f"{i % 40}+1=", chosen=f"{i}!") for i in range(120)]
    one = load_preferences(written(tmp_path / "a.jsonl", *lines))
    other = load_preferences(written(tmp_path / "b.jsonl", *reversed(lines)))
    trained, heldout = ({one.question for one in side} for side in (one.train, one.heldout))
    assert trained
    assert heldout
    assert not trained & heldout
    assert (set(one.train), set(one.heldout)) == (set(other.train), set(other.heldout))
    assert len(one.train) + len(one.heldout) == 120


def test_a_prompt_as_turns_is_on_the_side_of_the_same_prompt_as_text(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": HELD_OUT}]
    path = written(tmp_path / "a.jsonl", pair(prompt=TRAINED), pair(prompt=HELD_OUT), pair(prompt=turns))
    found = load_preferences(path)
    assert (len(found.train), len(found.heldout)) == (1, 2)


def test_pairs_on_held_out_questions_alone_leave_nothing_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="questions of all 1 pairs are held out"):
        load_preferences(written(tmp_path / "a.jsonl", pair(prompt=HELD_OUT)))


def test_a_second_file_is_held_out_whole_and_may_not_ask_the_same(tmp_path: Path) -> None:
    first = written(tmp_path / "a.jsonl", pair(prompt=HELD_OUT), pair(prompt="another"))
    second = written(tmp_path / "b.jsonl", pair(prompt=TRAINED))
    found = load_preferences(first, second)
    assert (len(found.train), len(found.heldout)) == (2, 1)
    with pytest.raises(InputError, match="1 held-out problems are also training pairs: 'another'"):
        load_preferences(first, written(second, pair(prompt="another")))
