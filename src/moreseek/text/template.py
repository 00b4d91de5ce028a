"""The chat template: ours, and a sandbox in which anybody's renders as it does in transformers."""

from collections.abc import Sequence
from typing import Any

from moreseek.errors import InputError
from moreseek.records import Message
from moreseek.text.allowance import begin
from moreseek.text.sandbox import ChatSandbox

MAX_SOURCE, MAX_TAGS = 100_000, 5_000
"""Characters of a template, and tags in it. The longest of the field have a fifth of that."""

# R1's shape: system and assistant turns are closed by <|end|>, the thinking of turns that a user has
# answered is dropped (but not its tags: a turn always looks the same), and the generation prompt opens it.
DEFAULT_TEMPLATE = """\
{%- set turns = namespace(last_user=-1) -%}
{%- for message in messages -%}
    {%- if message['role'] == 'user' -%}{%- set turns.last_user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}
        {%- if loop.index0 > 0 -%}{{- raise_exception('A system message can only come first.') -}}{%- endif -%}
        {{- '<|system|>' + message['content'] + '<|end|>' -}}
    {%- elif message['role'] == 'user' -%}
        {{- '<|user|>' + message['content'] -}}
    {%- elif message['role'] == 'assistant' -%}
        {{- '<|assistant|><think>' -}}
        {%- if message['reasoning_content'] and loop.index0 > turns.last_user -%}
            {{- message['reasoning_content'] -}}
        {%- endif -%}
        {{- '</think>' + message['content'] + '<|end|>' -}}
    {%- else -%}
        {{- raise_exception('Unknown role ' + message['role'] + ': use system, user or assistant.') -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|><think>' -}}
    {%- if enable_thinking is defined and enable_thinking is false -%}{{- '</think>' -}}{%- endif -%}
{%- endif -%}
"""


def render_default(
    messages: Sequence[Message], *, add_generation_prompt: bool = False, enable_thinking: bool = True
) -> str:
    """What DEFAULT_TEMPLATE renders, by hand: training documents come by the hundred thousand."""
    last_user = max((i for i, message in enumerate(messages) if message.role == "user"), default=-1)
    parts: list[str] = []
    for i, message in enumerate(messages):
        if message.role == "user":
            parts.append(f"<|user|>{message.content}")
        elif message.role == "assistant":
            thinking = (message.reasoning_content or "") if i > last_user else ""
            parts.append(f"<|assistant|><think>{thinking}</think>{message.content}<|end|>")
        elif i == 0:
            parts.append(f"<|system|>{message.content}<|end|>")
        else:
            raise InputError("The chat template refused the messages: A system message can only come first.")
    if add_generation_prompt:
        parts.append("<|assistant|><think>" if enable_thinking else "<|assistant|><think></think>")
    return "".join(parts)


def _as_template_reads(message: Message) -> dict[str, Any]:
    """A message as transformers hands it over: some templates read the reasoning under the name "thinking"."""
    turn = message.model_dump(exclude_none=True)
    return turn if message.reasoning_content is None else {"thinking": message.reasoning_content, **turn}


class ChatTemplate:
    """A Jinja chat template. Raises InputError where its source is not valid Jinja.

    It renders text as transformers does (same globals, filters and whitespace rules), but a template from
    a downloaded folder is untrusted code, so it runs in a sandbox with bounded time and memory.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        tags = source.count("{{") + source.count("{%")
        if len(source) > MAX_SOURCE or tags > MAX_TAGS:
            raise InputError(
                f"The chat template has {len(source)} characters and {tags} tags; "
                f"at most {MAX_SOURCE} and {MAX_TAGS} are allowed."
            )
        begin()  # constants are computed here
        try:
            self._template = ChatSandbox().from_string(source)
        except Exception as error:  # Jinja's own, and Python's on the code that Jinja makes of deep nesting
            raise InputError(f"The chat template is not valid Jinja: {error}.") from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False, **variables: Any) -> str:
        """The chat as text. ``variables`` reach the template (``enable_thinking``, ``bos_token``, …).

        Raises InputError where the template refuses the messages, fails, or grows out of bounds.
        """
        turns = [_as_template_reads(message) for message in messages]
        values = {"tools": None, "documents": None, **variables, "add_generation_prompt": add_generation_prompt}
        parts: list[str] = []
        size = 0
        try:
            allowance = begin(turns, values)
            for part in self._template.generate(messages=turns, **values):
                parts.append(part)
                size += len(part)
                allowance.check(size)
                allowance.check_clock()
        except Exception as error:  # a template is foreign code: whatever it raises is its refusal
            raise InputError(f"The chat template refused the messages: {error}") from error
        return "".join(parts)
