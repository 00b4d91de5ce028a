"""A Jinja environment for chat templates of strangers: transformers' rules, with bounded time and memory.

Jinja's sandbox keeps a template away from Python, but not from the clock or from memory: a loop over ``range``
or a string that doubles itself takes the machine down. So every turn of a loop or macro is counted (a step is
compiled into its body), and what makes long values is checked before it makes them.
"""

import json
import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_CHARACTERS = 8_000_000
"""A rendered chat, or one value on the way, longer than this is an attack or a mistake: no context holds it."""

MAX_RENDER_S = 5.0
MAX_INTEGER_ARGUMENT = 10_000
MAX_BITS = 10_000

_LONG_WIDTH = re.compile(r"[0-9]{5}")
_deadline: ContextVar[float] = ContextVar("deadline", default=0.0)


def start_clock() -> None:
    """Give the rendering that follows in this context MAX_RENDER_S seconds."""
    _deadline.set(time.monotonic() + MAX_RENDER_S)


def check_clock() -> None:
    """Raise TemplateError where the time is used up."""
    if time.monotonic() > _deadline.get():
        raise jinja2.TemplateError(f"it ran longer than {MAX_RENDER_S:g} s")


class ChatSandbox(ImmutableSandboxedEnvironment):
    """transformers' template environment, bounded. Call start_clock() before each rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, "jinja2.ext.loopcontrols"])
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
        self.globals["range"] = _bounded_range
        del self.globals["lipsum"]
        self.filters["tojson"] = _to_json
        for name, method in (("join", "join"), ("replace", "replace"), ("format", "format")):
            self.filters[name] = _checked(self.filters[name], method)
        for name in ("batch", "center", "indent", "slice", "wordwrap"):
            self.filters[name] = _checked(self.filters[name], "")

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Bound().visit(super()._parse(source, name, filename))

    def step(self) -> str:
        """Compiled into every loop and macro."""
        check_clock()
        return ""

    def concatenate(self, *values: Any) -> str:
        """What ``~`` means."""
        return "".join(_bounded_strings(map(str, values)))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Binary operators; those that make long values are checked first."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise jinja2.TemplateError(f"'{operator}' is not allowed on these values")
        sizes = [len(value) if hasattr(value, "__len__") else 0 for value in (left, right)]
        if operator == "+":
            _check_size(sum(sizes))
        elif operator == "*":
            factors = [value for value in (left, right) if isinstance(value, int)]
            _check_size(max(sizes) * max(factors, default=1))
            if sum(value.bit_length() for value in factors) > MAX_BITS:
                raise jinja2.TemplateError("an integer grew too large")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls; the methods of strings are checked first."""
        # Jinja wraps str.format so that its fields are safe; the method itself is below.
        text = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        if isinstance(text, str):
            _check_call(text, getattr(function, "__name__", ""), [*args, *kwargs.values()])
        return super().call(context, function, *args, **kwargs)


class _Bound(NodeTransformer):
    """Adds a step to loops and macros, and lets ``~`` go through ChatSandbox.concatenate."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  (Jinja's names)
        return self._with_step(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._with_step(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _environment_call("concatenate", node.nodes, node.lineno)

    def _with_step(self, node: nodes.For | nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        step = _environment_call("step", [], node.lineno)
        node.body.insert(0, nodes.ExprStmt(step, lineno=node.lineno))
        return node


def _environment_call(name: str, args: list[nodes.Expr], line: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), args, [], None, None, lineno=line)


class _GenerationTag(Extension):
    """Lets templates mark assistant text with {% generation %}…{% endgeneration %}; the text is kept as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Jinja's own filter escapes HTML; a model must read the characters themselves."""
    _check_call("", "", [indent])
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _bounded_range(*bounds: int) -> range:
    steps = range(*bounds)
    if len(steps) > MAX_INTEGER_ARGUMENT:
        raise jinja2.TemplateError(f"range() is limited to {MAX_INTEGER_ARGUMENT} steps")
    return steps


def _checked(function: Callable[..., Any], method: str) -> Callable[..., Any]:
    """A filter behind the checks of the string method that it is like. Its Jinja marks are kept."""
    marked = bool(getattr(function, "jinja_pass_arg", None))  # it is handed the environment first

    def checked(*args: Any, **kwargs: Any) -> Any:
        value, *others = args[1:] if marked else args
        others += kwargs.values()
        if method == "join":
            value = list(value)
            args = (args[0], value, *args[2:]) if marked else (value, *args[1:])
            _check_call(str(others[0]) if others else "", method, [map(str, value)])
        else:
            _check_call(str(value), method, others)
        return function(*args, **kwargs)

    checked.__dict__.update(function.__dict__)
    return checked


def _check_call(text: str, method: str, values: Iterable[Any]) -> None:
    """Refuse a call of a string's method (or the like) whose result could be out of bounds."""
    values = list(values)
    if any(isinstance(value, int) and value > MAX_INTEGER_ARGUMENT for value in values):
        raise jinja2.TemplateError(f"integers above {MAX_INTEGER_ARGUMENT} are not allowed here")
    if method == "replace" and len(values) >= 2:
        _check_size(len(text) + text.count(str(values[0])) * len(str(values[1])))
    elif method == "join" and values:
        for count, _ in enumerate(_bounded_strings(map(str, values[0]))):
            _check_size(count * len(text))
    elif method in ("format", "format_map") and _LONG_WIDTH.search(text):
        raise jinja2.TemplateError("a width of five digits is not allowed in a format")


def _bounded_strings(strings: Iterable[str]) -> Iterable[str]:
    size = 0
    for text in strings:
        size += len(text)
        _check_size(size)
        yield text


def _check_size(size: int) -> None:
    check_clock()
    if size > MAX_CHARACTERS:
        raise jinja2.TemplateError(f"it made a value of more than {MAX_CHARACTERS} characters or items")
