"""The reward of benchmarks/grpo.py, the same as the peer's."""

from moreseek.records import Problem
from moreseek.rewards.verifier import Examples, with_examples


def _examples(problem: Problem) -> Examples:
    return ["w10 w12"], ["w11 w13"]


@with_examples(_examples)
def share_of_even_tokens(problem: Problem, completion: str) -> float:
    words = completion.removeprefix("<think>").split()
    return sum(word[-1] in "02468" for word in words) / max(1, len(words))
