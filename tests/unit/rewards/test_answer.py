import pytest

from moreseek.errors import InputError
from moreseek.records import Problem
from moreseek.rewards.answer import answer_text, exact, math, number


def ask(answer):
    return Problem(prompt="?", answer=answer)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("41", "41"),
        ("<think>12</think>41", "41"),
        ("<think>12", ""),
        ("<think>1</think>so <answer> 41 </answer> or", "41"),
        ("<answer>1</answer><answer>2</answer>", "2"),
        (r"<think>\boxed{1}</think>It is \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"<answer>\boxed{41}</answer>", "41"),
        (r"\boxed{41", r"\boxed{41"),
        ("", ""),
    ],
)
def test_the_answer_is_found(completion, answer):
    assert answer_text(completion) == answer


@pytest.mark.parametrize(
    ("answer", "completion"),
    [
        ("41", "41"),
        ("41", "<think>40</think>The answer is 41."),
        ("41", "12+34-5=41"),
        ("41", "41.0"),
        ("41", "4.1e1"),
        ("1000", "$1,000"),
        ("1000", r"\boxed{1{,}000}"),
        ("1234567.5", r"1\,234\,567.5\,\text{m}"),
        ("1000", r"1,\!000"),
        ("-3", "x = -3"),
        ("-3", "x = −3"),
        ("3", "5-3"),
        ("0.5", ".5"),
        ("0.5", "0.50"),
        ("3/4", "so 6/8"),
        ("3/4", "0.75"),
        ("7", "0007"),
        ("2.5", "2.5%"),
        ("1,234", "1234"),
    ],
)
def test_equal_numbers_are_right_in_any_notation(answer, completion):
    assert number(ask(answer), completion) == 1.0


@pytest.mark.parametrize(
    ("answer", "completion"),
    [
        ("41", ""),
        ("41", "forty-one"),
        ("41", "41 42"),
        ("41", "<think>41</think>"),
        ("41", "<think>41"),
        ("41", "<think>41</think>42"),
        ("41", "-41"),
        ("41", "411"),
        ("15", r"(1\,5)"),
        ("41", "٤١"),
        ("3", "1e999"),
        ("3", "3e9999999999"),
        ("3", "9" * 100_000),
        ("3/4", "3/0"),
        ("3", "6/2"),
    ],
)
def test_other_numbers_are_wrong_and_never_an_error(answer, completion):
    assert number(ask(answer), completion) == 0.0


def test_an_answer_that_is_no_number_is_the_problems_fault():
    with pytest.raises(InputError, match="is not a number"):
        number(ask("blue"), "red")


def test_exact_compares_characters():
    assert exact(ask("Blue"), "<think>x</think> Blue\n") == 1.0
    assert exact(ask("Blue"), "blue") == 0.0


def test_mathematics_is_compared_as_mathematics():
    pytest.importorskip("math_verify")
    assert math(ask(r"\frac{1}{2}"), r"<think>hm</think>\boxed{0.5}") == 1.0
    assert math(ask("x+1"), "$1+x$") == 1.0
    assert math(ask(r"\{1,2\}"), r"\boxed{\{2,1\}}") == 1.0
    assert math(ask(r"\frac{1}{2}"), r"\boxed{\frac{1}{3}}") == 0.0
    assert math(ask("4"), "") == 0.0
    assert math(ask("4"), "no idea") == 0.0
