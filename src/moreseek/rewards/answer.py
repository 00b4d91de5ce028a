"""Verifiers of the final answer: as a number, as text, as mathematics."""

import logging
import re
from collections.abc import Callable
from fractions import Fraction
from functools import cache, lru_cache, partial
from typing import Any

from moreseek.errors import InputError
from moreseek.records import Problem
from moreseek.rewards.verifier import Examples, with_examples
from moreseek.text.chat import split_thinking

_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_BOXED = "\\boxed{"
# No sign is taken where a digit or a bracket stands before it: "5-3" ends in 3, not in -3.
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_NUMBER = (
    r"(?:(?<![0-9)\]}])[-+\u2212])?"
    rf"(?:{_DIGITS}(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]{1,3}(?![0-9]))?"
)
_NUMBERS = re.compile(_NUMBER)
_FRACTIONS = re.compile(rf"{_NUMBER}(?:\s*/\s*[0-9]+)?")
_LATEX_COMMA = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|\\,)(?=[0-9]{3}(?![0-9]))")
"""What LaTeX parts thousands with: 1{,}000, 1,\\!000, 1\\,000."""
_MAX_NUMBER_CHARACTERS = 400
"""Longer runs of digits are no answer; turning them into numbers would only cost time."""


def answer_text(completion: str) -> str:
    """The answer of an assistant message: after its thinking, inside <answer> or \\boxed{} where those stand."""
    _, answer = split_thinking(completion)
    tagged = _ANSWER_TAG.findall(answer)
    if tagged:
        answer = tagged[-1]
    boxed = _last_boxed(answer)
    return (answer if boxed is None else boxed).strip()


def _number_examples(problem: Problem) -> Examples:
    wrong = _parse_number(problem.answer, _FRACTIONS)
    other = "1" if wrong is None else str(wrong + 1)
    right = [f"<think>{other}</think>{problem.answer}", f"<think></think>The answer is {problem.answer}."]
    return right, [f"<think>{problem.answer}</think>{other}", f"<think>{problem.answer}", ""]


@with_examples(_number_examples)
def number(problem: Problem, completion: str) -> float:
    """1.0 where the last number of the answer equals the problem's, whatever its notation (42, 42.0, 4.2e1, 1,000).

    Thousands may be parted as LaTeX does it (1{,}000). Fractions such as 3/4 are read where the problem's answer is
    one. Raises InputError where the problem's answer is not a number.
    """
    answer = answer_text(completion)
    if answer == problem.answer:
        return 1.0
    pattern = _FRACTIONS if "/" in problem.answer else _NUMBERS
    expected = _expected_number(problem.answer)
    found = _parse_number(answer, pattern)
    return 1.0 if found is not None and found == expected else 0.0


def _exact_examples(problem: Problem) -> Examples:
    return [f"<think>so</think>{problem.answer}"], [f"<think></think>{problem.answer}?", f"<think>{problem.answer}", ""]


@with_examples(_exact_examples)
def exact(problem: Problem, completion: str) -> float:
    """1.0 where the answer is the problem's, character by character (blanks around it aside)."""
    return 1.0 if answer_text(completion) == problem.answer.strip() else 0.0


def _math_examples(problem: Problem) -> Examples:
    return [f"<think>so</think>\\boxed{{{problem.answer}}}"], [f"<think></think>\\boxed{{{problem.answer} + 1}}", ""]


@with_examples(_math_examples)
def math(problem: Problem, completion: str) -> float:
    """1.0 where math-verify (Apache-2.0) finds the answer equal to the problem's: LaTeX, sets, fractions, intervals."""
    parse, verify = _math_verify()
    answer = answer_text(completion)
    if not answer:
        return 0.0
    gold = parse(f"\\boxed{{{problem.answer}}}")
    if not gold:
        raise InputError(f"math-verify cannot read the problem's answer {problem.answer[:80]!r}.")
    found = parse(f"\\boxed{{{answer}}}") or parse(answer)
    return 1.0 if found and verify(gold, found) else 0.0


@cache
def _math_verify() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """math-verify's parse and verify, without their own timeouts: those take SIGALRM, which the rubric holds."""
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise InputError("moreseek.rewards.answer:math needs math-verify: pip install math-verify") from error
    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that nobody limits its time; the rubric does
    return partial(parse, parsing_timeout=0), partial(verify, timeout_seconds=0)


@lru_cache(maxsize=65_536)
def _expected_number(text: str) -> Fraction:
    expected = _parse_number(text, _FRACTIONS)
    if expected is None:
        raise InputError(f"the problem's answer {text[:80]!r} is not a number: name another verifier for it.")
    return expected


def _parse_number(text: str, pattern: re.Pattern[str]) -> Fraction | None:
    """The last number in a text, exactly."""
    numbers = pattern.findall(_LATEX_COMMA.sub(",", text))
    if not numbers or len(numbers[-1]) > _MAX_NUMBER_CHARACTERS:
        return None
    numerator, _, denominator = numbers[-1].replace(",", "").replace("\u2212", "-").partition("/")
    try:
        return Fraction(numerator.strip()) / Fraction(denominator.strip() or 1)
    except ZeroDivisionError:
        return None


def _last_boxed(text: str) -> str | None:
    """What the last \\boxed{…} holds, nested braces included; None without one or where it is not closed."""
    start = text.rfind(_BOXED)
    if start < 0:
        return None
    depth = 1
    for i in range(start + len(_BOXED), len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if not depth:
            return text[start + len(_BOXED) : i]
    return None
