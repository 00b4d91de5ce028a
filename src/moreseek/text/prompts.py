"""From a problem to prompt token ids, and from completion token ids to the text that verifiers see."""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from moreseek.errors import InputError
from moreseek.records import Message, Problem
from moreseek.text.chat import encode_chat, opens_thinking

if TYPE_CHECKING:
    from moreseek.text.tokenizer import Tokenizer

PLACEHOLDER = "{prompt}"


def problem_messages(
    problem: Problem, system_prompt: str | None = None, prompt_template: str = PLACEHOLDER
) -> list[Message]:
    """The turns that pose a problem: an optional system turn, then the user's question.

    ``{prompt}`` in the template is replaced literally, so that braces in a problem (LaTeX, JSON) are safe.
    Raises InputError when the template has no ``{prompt}``.
    """
    if PLACEHOLDER not in prompt_template:
        raise InputError(
            f"prompt_template {prompt_template!r} has no {PLACEHOLDER}: say where the problem's text goes."
        )
    question = Message(role="user", content=prompt_template.replace(PLACEHOLDER, problem.prompt))
    return [Message(role="system", content=system_prompt), question] if system_prompt else [question]


def encode_problem(
    tokenizer: "Tokenizer",
    problem: Problem,
    system_prompt: str | None = None,
    prompt_template: str = PLACEHOLDER,
) -> list[int]:
    """Token ids of the prompt, generation prompt included: what the model continues."""
    messages = problem_messages(problem, system_prompt, prompt_template)
    return encode_chat(tokenizer, messages, add_generation_prompt=True)


def message_text(tokenizer: "Tokenizer", token_ids: Sequence[int]) -> str:
    """The whole assistant message of a completion, without the token that ended it.

    The ``<think>`` that the chat template opened inside the prompt is put back, so that every verifier sees
    the same message whoever opened the thinking.
    """
    ids = list(token_ids)
    while ids and ids[-1] in tokenizer.eos_ids:
        ids.pop()
    text = tokenizer.decode(ids)
    return f"<think>{text}" if _template_opens_thinking(tokenizer) else text


# Rendering the template for every one of a step's completions would cost more than decoding them.
@lru_cache(maxsize=16)
def _template_opens_thinking(tokenizer: "Tokenizer") -> bool:
    return opens_thinking(tokenizer)
