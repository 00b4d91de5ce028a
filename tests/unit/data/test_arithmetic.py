from itertools import islice

import pytest

from moreseek.data.arithmetic import documents, problems
from moreseek.data.split import check_disjoint, is_heldout, split_of
from moreseek.errors import InputError


def evaluate(prompt):
    """Left to right, as a pocket calculator does; every value on the way."""
    value, operator, digits, values = 0, "+", "", []
    for character in prompt:
        if character.isdigit():
            digits += character
            continue
        operand = int(digits)
        value = {"+": value + operand, "-": value - operand, "*": value * operand}[operator]
        values.append(value)
        operator, digits = character, ""
    return values


def test_answers_are_right_and_every_value_stays_in_range():
    found = problems(500, "train", seed=1)
    for problem in found:
        values = evaluate(problem.prompt)
        assert str(values[-1]) == problem.answer
        assert all(0 <= value <= 99 for value in values)
        assert problem.tags["difficulty"] == len(values) - 1
    assert {problem.tags["difficulty"] for problem in found} == {1, 2, 3, 4, 5, 6}


def test_problems_are_distinct_and_the_same_for_the_same_seed():
    first = problems(500, "heldout", seed=3)
    assert len({problem.prompt for problem in first}) == 500
    assert first == problems(500, "heldout", seed=3)
    assert first != problems(500, "heldout", seed=4)


def test_train_and_heldout_are_disjoint_by_construction():
    train, heldout = problems(2_000, "train", seed=1), problems(500, "heldout", seed=2)
    check_disjoint(train, heldout)
    assert {split_of(problem.prompt) for problem in heldout} == {"heldout"}
    with pytest.raises(InputError, match="1 held-out problems"):
        check_disjoint([*train, heldout[0]], heldout)


def test_documents_use_training_prompts_only_and_a_share_of_them_is_worked():
    found = list(islice(documents(5, worked_share=0.3), 4_000))
    worked = 0
    for document in found:
        question, reply = document.messages
        assert not is_heldout(question.content)
        assert str(evaluate(question.content)[-1]) == reply.content
        if reply.reasoning_content:
            worked += 1
            assert reply.reasoning_content.endswith(f"={reply.content}")
            assert all(evaluate(step.partition("=")[0] + "=") for step in reply.reasoning_content.split(";"))
    assert 0.26 < worked / len(found) < 0.34
    assert found == list(islice(documents(5, worked_share=0.3), 4_000))


def test_a_worked_document_writes_one_step_an_operation():
    document = next(islice(documents(1, worked_share=1.0, min_operations=3, max_operations=3), 1))
    question, reply = document.messages
    values = evaluate(question.content)
    steps = (reply.reasoning_content or "").split(";")
    assert [int(step.partition("=")[2]) for step in steps] == values[1:]
    assert [step.partition("=")[0].split("*")[0].split("+")[0].split("-")[0] for step in steps] == [
        str(value) for value in values[:-1]
    ]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_of_nothing_or_all_is_exact(share):
    found = islice(documents(1, worked_share=share), 200)
    assert all(bool(document.messages[1].reasoning_content) == bool(share) for document in found)


def test_a_small_space_repeats_in_training_and_is_refused_for_heldout():
    small = {"max_value": 3, "max_operations": 1, "operators": "+"}
    assert len(problems(50, "train", seed=1, **small)) == 50
    with pytest.raises(InputError, match="Ask for fewer"):
        problems(50, "heldout", seed=1, **small)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_operation": 3}, "Did you mean 'max_operations'"),
        ({"operators": "+/"}, "at most once"),
        ({"operators": "+", "max_value": 3, "min_operations": 6}, "do not fit"),
        ({"min_operations": 7}, "above max_operations"),
        ({"worked_share": 1.5}, "a number of at most 1 is needed"),
    ],
)
def test_wrong_settings_are_explained(settings, message):
    with pytest.raises(InputError, match=message):
        problems(1, "train", seed=1, **settings)


@pytest.mark.parametrize("operators", ["+", "-", "*", "+*", "-*"])
def test_any_choice_of_operators_gives_right_chains(operators):
    for problem in problems(30, "train", seed=1, operators=operators, max_operations=3):
        assert str(evaluate(problem.prompt)[-1]) == problem.answer


def test_longer_problems_than_any_document_can_be_asked_for():
    found = problems(20, "heldout", 1, min_operations=7, max_operations=12)
    assert all(7 <= problem.tags["difficulty"] <= 12 for problem in found)
