"""The chat template: ours, and a sandbox in which anybody's renders as it does in transformers."""

import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from moreseek.errors import InputError
from moreseek.records import Message

MAX_CHARACTERS = 8_000_000
"""A rendered chat longer than this is an attack or a mistake: no context holds it."""

MAX_RENDER_S = 5.0
MAX_INTEGER_ARGUMENT = 10_000

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


class ChatTemplate:
    """A Jinja chat template. Raises InputError where its source is not valid Jinja.

    It renders text as transformers does (same globals, filters and whitespace rules), but a template from
    a downloaded folder is untrusted code: it runs in Jinja's sandbox with the output, the time between two
    outputs, loops over ranges and repeated strings bounded.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            self._template = _Sandbox().from_string(source)
        except (jinja2.TemplateError, RecursionError) as error:
            raise InputError(f"The chat template is not valid Jinja: {error}.") from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False, **variables: Any) -> str:
        """The chat as text. ``variables`` reach the template (``enable_thinking``, ``bos_token``, …).

        Raises InputError where the template refuses the messages, fails, or grows out of bounds.
        """
        turns = [message.model_dump(exclude_none=True) for message in messages]
        values = {"tools": None, "documents": None, **variables, "add_generation_prompt": add_generation_prompt}
        deadline = time.monotonic() + MAX_RENDER_S
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate(messages=turns, **values):
                parts.append(part)
                size += len(part)
                if size > MAX_CHARACTERS:
                    raise InputError(f"The chat template wrote more than {MAX_CHARACTERS} characters.")
                if time.monotonic() > deadline:
                    raise InputError(f"The chat template ran longer than {MAX_RENDER_S} s.")
        except InputError:
            raise
        except Exception as error:  # a template is foreign code: whatever it raises is its refusal
            raise InputError(f"The chat template refused the messages: {error}") from error
        return "".join(parts)


class _GenerationTag(Extension):
    """Lets templates mark assistant text with {% generation %}…{% endgeneration %}; the text is kept as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Sandbox(ImmutableSandboxedEnvironment):
    """transformers' template environment with bounds on what one expression can allocate."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"])
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
        self.globals["range"] = _bounded_range
        for name in ("center", "indent", "wordwrap"):
            self.filters[name] = _bounded(self.filters[name])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise jinja2.TemplateError(f"'{operator}' on these values is not allowed in a chat template")
        for many, count in ((left, right), (right, left)):
            if operator == "*" and hasattr(many, "__len__") and isinstance(count, int):
                if len(many) * count > MAX_CHARACTERS:
                    raise jinja2.TemplateError("a repeated value is too long for a chat template")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, obj: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(getattr(obj, "__self__", None), str):
            _refuse_large_integers(args)
        return super().call(context, obj, *args, **kwargs)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML; a model must read the characters themselves."""
    _refuse_large_integers([indent])
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _bounded_range(*bounds: int) -> range:
    steps = range(*bounds)
    if len(steps) > MAX_INTEGER_ARGUMENT:
        raise jinja2.TemplateError(f"range() is limited to {MAX_INTEGER_ARGUMENT} steps in a chat template")
    return steps


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` that refuses large integers, such as the width of ``center``. Its Jinja marks are kept."""

    def bounded(*args: Any, **kwargs: Any) -> Any:
        _refuse_large_integers([*args, *kwargs.values()])
        return function(*args, **kwargs)

    bounded.__dict__.update(function.__dict__)
    return bounded


def _refuse_large_integers(values: Sequence[Any]) -> None:
    if any(isinstance(value, int) and value > MAX_INTEGER_ARGUMENT for value in values):
        raise jinja2.TemplateError(f"integers above {MAX_INTEGER_ARGUMENT} are not allowed in a chat template's calls")
