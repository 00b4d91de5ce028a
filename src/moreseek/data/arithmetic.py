"""Our arithmetic source: left-to-right chains such as ``12+34-5=``, as problems and as training documents.

A chain is evaluated as a pocket calculator does, operation after operation, and every value on the way stays
within 0..max_value. Most documents answer at once; a share of them works the chain out step by step. That
rare habit is what reinforcement learning finds.
"""

import random
from collections.abc import Iterator
from typing import Any

from pydantic import Field, field_validator, model_validator

from moreseek.config import Settings, parse
from moreseek.data.split import Split, is_heldout
from moreseek.errors import InputError
from moreseek.records import Conversation, Problem

_ATTEMPTS = 2_000
"""Draws without a new prompt after which the space counts as used up."""

_DRAWS = 64
"""Operators drawn in vain after which a chain counts as stuck."""

_LARGEST_FACTOR = 9


class ArithmeticSettings(Settings):
    """The space of chains, and the share of documents that work step by step."""

    min_operations: int = Field(default=1, ge=1)
    max_operations: int = Field(default=6, ge=1, le=1_000)
    max_value: int = Field(default=99, ge=2, le=10**9)
    max_operand: int = Field(default=99, ge=2)  # the largest number that is added or subtracted
    operators: str = "+-*"
    worked_share: float = Field(default=0.3, ge=0.0, le=1.0)

    @field_validator("operators")
    @classmethod
    def _known_operators(cls, value: str) -> str:
        if not value or set(value) - set("+-*") or len(set(value)) < len(value):
            raise ValueError("use each of + - * at most once, for example '+-'")
        return value

    @model_validator(mode="after")
    def _ordered(self) -> "ArithmeticSettings":
        if self.min_operations > self.max_operations:
            raise ValueError(f"min_operations is above max_operations ({self.max_operations})")
        return self


def problems(count: int, split: Split, seed: int, **settings: Any) -> list[Problem]:
    """``count`` distinct problems of one split, tagged with their number of operations as difficulty.

    Training problems repeat where the space is smaller than ``count``; held-out ones never do (a repeated one
    would count twice in an interval): then InputError tells how many there are.
    """
    table = parse(ArithmeticSettings, settings, "arithmetic")
    draw = random.Random(f"problems {split} {seed}")
    heldout = split == "heldout"
    seen: set[str] = set()
    found: list[Problem] = []
    misses = 0
    while len(found) < count:
        operations = draw.randint(table.min_operations, table.max_operations)
        prompt, _, answer = _chain(draw, operations, table)
        if is_heldout(prompt) != heldout or (prompt in seen and misses < _ATTEMPTS):
            misses += 1
            if misses >= _ATTEMPTS and (heldout or not seen):
                raise InputError(
                    f"arithmetic: {count} {split} problems wanted, about {len(seen)} exist with these settings. "
                    "Ask for fewer, or raise max_operations or max_value."
                )
            continue
        misses = 0 if prompt not in seen else misses
        seen.add(prompt)
        found.append(Problem(prompt=prompt, answer=answer, tags={"difficulty": operations}))
    return found


def documents(seed: int, **settings: Any) -> Iterator[Conversation]:
    """Training documents without end, on prompts of the train split only.

    Each is one question and its answer; a ``worked_share`` of them carries the steps as its thinking,
    ``12+34=46;46-5=41``, the others have an empty thinking.
    """
    table = parse(ArithmeticSettings, settings, "arithmetic")
    draw = random.Random(f"documents {seed}")
    span = table.max_operations - table.min_operations + 1
    while True:
        prompt, steps, answer = _chain(draw, table.min_operations + int(draw.random() * span), table)
        if is_heldout(prompt):
            continue
        thinking = steps if draw.random() < table.worked_share else ""
        question = {"role": "user", "content": prompt}
        reply = {"role": "assistant", "content": answer, "reasoning_content": thinking}
        yield Conversation.model_validate({"messages": (question, reply)})  # one check of all is cheaper than three


def _chain(draw: random.Random, operations: int, settings: ArithmeticSettings) -> tuple[str, str, str]:
    """One random chain: its prompt, its steps, its answer. Raises InputError where none of this length fits."""
    for _ in range(_ATTEMPTS):
        chain = _try_chain(draw, operations, settings)
        if chain is not None:
            return chain
    raise InputError(
        f"arithmetic: {operations} operations of '{settings.operators}' do not fit into 0..{settings.max_value}. "
        "Allow + and - both, fewer operations, or a larger max_value."
    )


def _try_chain(draw: random.Random, operations: int, settings: ArithmeticSettings) -> tuple[str, str, str] | None:
    """A chain from a random value; None where it reaches a value from which no operator goes on."""
    uniform, limit, operators = draw.random, settings.max_value, settings.operators
    most = settings.max_operand
    kinds = len(operators)
    value = int(uniform() * (limit + 1))
    prompt, steps = str(value), ""
    for i in range(operations):
        for _ in range(_DRAWS):
            operator = operators[int(uniform() * kinds)]
            if operator == "+" and value < limit:
                operand = 1 + int(uniform() * min(most, limit - value))
                result = value + operand
                break
            if operator == "-" and value > 0:
                operand = 1 + int(uniform() * min(most, value))
                result = value - operand
                break
            if operator == "*" and value * 2 <= limit:
                largest = min(_LARGEST_FACTOR, limit // value) if value else _LARGEST_FACTOR
                operand = 2 + int(uniform() * (largest - 1))
                result = value * operand
                break
        else:
            return None
        prompt += f"{operator}{operand}"
        steps += f";{value}{operator}{operand}={result}" if i else f"{value}{operator}{operand}={result}"
        value = result
    return f"{prompt}=", steps, str(value)
