"""Verifiers of the form of a completion, whatever its answer."""

import re

from moreseek.records import Problem
from moreseek.rewards.verifier import Examples, with_examples

_TAGGED = re.compile(r"\s*<think>(?P<thinking>.*?)</think>\s*<answer>(?P<answer>.*?)</answer>\s*", re.DOTALL)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def _think_examples(problem: Problem) -> Examples:
    right = [f"<think>so</think>{problem.answer}", f"<think></think>{problem.answer}"]
    return right, [problem.answer, f"<think>{problem.answer}", f"<think></think></think>{problem.answer}", ""]


@with_examples(_think_examples)
def think(problem: Problem, completion: str) -> float:
    """1.0 where the thinking is closed once, opened at most once and at the start, and an answer follows it."""
    before, close, answer = completion.partition("</think>")
    opened = before.lstrip()
    thinking = opened.removeprefix("<think>")
    well_formed = close and answer.strip() and "<think>" not in thinking + answer and "</think>" not in answer
    return 1.0 if well_formed else 0.0


def _tags_examples(problem: Problem) -> Examples:
    right = [f"<think>so</think>\n<answer>{problem.answer}</answer>"]
    return right, [f"<think>so</think>{problem.answer}", f"<answer>{problem.answer}</answer>", ""]


@with_examples(_tags_examples)
def tags(problem: Problem, completion: str) -> float:
    """1.0 where the whole message is <think>…</think><answer>…</answer>, each tag once: R1-Zero's format reward."""
    match = _TAGGED.fullmatch(completion)
    well_formed = match and match["answer"].strip() and all(completion.count(tag) == 1 for tag in _TAGS)
    return 1.0 if well_formed else 0.0
