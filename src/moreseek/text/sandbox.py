"""A Jinja environment for chat templates of strangers: transformers' rules, with bounded time and memory.

Jinja's sandbox keeps a template away from Python, but not from the clock or from memory: a loop over ``range``
or a string that doubles itself takes the machine down. So every turn of a loop or macro is counted (a step is
compiled into its body), what makes long values is checked before it makes them, and all that is made is counted.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from moreseek.text.allowance import current

MAX_INTEGER_ARGUMENT = 10_000
MAX_BITS = 10_000

_LONG_WIDTH = re.compile(r"[0-9]{5}")
_REFUSED_METHODS = ("encode", "expandtabs", "translate", "maketrans")  # they grow without bound; no chat needs them
_GROW_BY_ARGUMENT = ("center", "indent", "slice", "batch", "wordwrap", "truncate", "urlize")


class ChatSandbox(ImmutableSandboxedEnvironment):
    """transformers' template environment, bounded. Call allowance.begin() before each rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        extensions: list[Any] = [_GenerationTag, "jinja2.ext.loopcontrols"]
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=extensions, finalize=_made)
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
        self.globals["range"] = _bounded_range
        del self.globals["lipsum"]
        self.filters["tojson"] = _to_json
        self.filters = {name: _checked(filter, name) for name, filter in self.filters.items()}

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _Bound().visit(super()._parse(source, name, filename))

    def step(self, written: int) -> str:
        """Compiled into every loop and macro, with the length of the plain text in its body."""
        current().spend(1 + written)
        return ""

    def made(self, value: Any) -> Any:
        """Compiled around every list, tuple and table that a template writes down."""
        return _made(value)

    def cut(self, value: Any, start: Any, stop: Any, step: Any) -> Any:
        """What ``value[start:stop:step]`` means."""
        return _made(value[start:stop:step])

    def concatenate(self, *values: Any) -> str:
        """What ``~`` means."""
        current().check(sum(map(current().weigh, values)))
        return _made("".join(map(str, values)))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Binary operators; those that make long values are checked first."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise jinja2.TemplateError(f"'{operator}' is not allowed on these values")
        allowance = current()
        sizes = [allowance.weigh(value) if hasattr(value, "__len__") else 0 for value in (left, right)]
        if operator == "+":
            allowance.check(sum(sizes))
        elif operator == "*":
            factors = [value for value in (left, right) if isinstance(value, int)]
            allowance.check(max(sizes) * max(factors, default=1))
            if sum(value.bit_length() for value in factors) > MAX_BITS:
                raise jinja2.TemplateError("an integer grew too large")
        return _made(super().call_binop(context, operator, left, right))

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Calls; the methods of strings are checked first."""
        # Jinja wraps str.format so that its fields are safe; the method itself is below.
        text = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        if isinstance(text, str | bytes):
            name = getattr(function, "__name__", "")
            if name == "join" and args:
                args = (list(args[0]), *args[1:])  # looking at a generator uses it up
            _check_call(str(text), name, [*args, *kwargs.values()])
        return _made(super().call(context, function, *args, **kwargs))


class _Bound(NodeTransformer):
    """Adds a step to loops and macros, and lets ``~`` go through ChatSandbox.concatenate."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  (Jinja's names)
        return self._with_step(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return self._with_step(node)

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._with_step(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _environment_call("concatenate", node.nodes, node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _environment_call("made", [node], node.lineno)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _environment_call("made", [node], node.lineno)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _environment_call("made", [node], node.lineno) if node.ctx == "load" else node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        ends = [end or nodes.Const(None) for end in (node.arg.start, node.arg.stop, node.arg.step)]
        return _environment_call("cut", [node.node, *ends], node.lineno)

    def _with_step(self, node: nodes.For | nodes.Macro | nodes.CallBlock) -> nodes.Node:
        self.generic_visit(node)
        written = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        step = _environment_call("step", [nodes.Const(written)], node.lineno)
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


def _made(value: Any) -> Any:
    """Count a value that the template made; it is handed through."""
    current().spend(current().weigh(value))
    return value


def _checked(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A filter behind the checks of the string method that it is like. Its Jinja marks are kept."""
    marked = bool(getattr(function, "jinja_pass_arg", None))  # it is handed the environment first

    def checked(*args: Any, **kwargs: Any) -> Any:
        first = args[:1] if marked else ()
        value, *others = args[len(first) :]
        if name in ("join", "list", "sort", "unique", "groupby", "string", "pprint", "tojson", "batch", "slice"):
            if isinstance(value, Iterator):
                value = list(value)
            current().check(current().weigh(value))
        arguments = [*others, *kwargs.values()]
        if name == "join":
            value = list(value)
            _check_call(str(others[0]) if others else "", name, [value])
        elif isinstance(value, str | bytes | int | float) or name == "format":
            _check_call(str(value), name, arguments)
        return _made(function(*first, value, *others, **kwargs))

    checked.__dict__.update(getattr(function, "__dict__", {}))
    return checked


def _check_call(text: str, method: str, values: Iterable[Any]) -> None:
    """Refuse a call of a string's method (or the like) whose result could be out of bounds."""
    values, allowance = list(values), current()
    weights = [allowance.weigh(value) for value in values]
    if method in _REFUSED_METHODS:
        raise jinja2.TemplateError(f"{method}() is not allowed")
    if any(isinstance(value, int) and value > MAX_INTEGER_ARGUMENT for value in values):
        raise jinja2.TemplateError(f"integers above {MAX_INTEGER_ARGUMENT} are not allowed here")
    if method == "replace" and len(values) >= 2:
        allowance.check(len(text) + text.count(str(values[0])) * len(str(values[1])))
    elif method == "join" and values:
        parts = list(values[0])
        allowance.check(sum(len(str(part)) + len(text) for part in parts))
    elif method in ("format", "format_map"):
        if _LONG_WIDTH.search(text):
            raise jinja2.TemplateError("a width of five digits is not allowed in a format")
        allowance.check(len(text) + (text.count("%") + text.count("{")) * sum(weights))
    elif method in _GROW_BY_ARGUMENT:
        lengths = [value for value in values if isinstance(value, int)]
        lines = text.count("\n") + 1 if method == "indent" else 1
        allowance.check(lines * max(lengths, default=1))
        for value in values:
            if isinstance(value, str):
                allowance.check(len(text.split()) * len(value))
