"""Renders chat templates of strangers; a process of its own that text/template.py starts and speaks with.

Jinja's sandbox keeps a template away from Python, but not from the clock or from memory, and so many operators,
methods and filters can grow a value that no check in front of each of them holds. So the operating system bounds it:
this process may use so much memory, and one rendering so much processor time (a busy machine refuses nothing).

Each line of the input is a JSON object with "source" and "variables" (null: only compile); each line of the output
one with "text" or "error". Nothing of moreseek is imported, so that it starts soon.
"""

import json
import resource
import signal
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_RENDER_S = 0.8  # of processor time
MAX_BYTES = 1 << 29  # of address space, 60 MB of which Python takes
MAX_CHARACTERS = 8_000_000
"""A rendered chat longer than this is an attack or a mistake: no context holds it."""


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
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def environment() -> ImmutableSandboxedEnvironment:
    """transformers' environment: its globals, filters and whitespace rules."""
    extensions: list[Any] = [_GenerationTag, "jinja2.ext.loopcontrols"]
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
    env.globals["raise_exception"] = _raise_exception
    env.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    env.filters["tojson"] = _to_json
    return env


def _answer(request: dict[str, Any], compile: Any) -> dict[str, str]:
    try:
        template = compile(request["source"])
        text = "" if request["variables"] is None else template.render(**request["variables"])
        if len(text) > MAX_CHARACTERS:
            return {"error": f"it wrote more than {MAX_CHARACTERS} characters"}
        return {"text": text}
    except MemoryError:
        return {"error": f"it took more than {MAX_BYTES >> 20} MB of memory"}
    except Exception as error:  # a template is foreign code: whatever it raises is its refusal
        return {"error": str(error)[:2_000] or type(error).__name__}


def main(seconds: float) -> None:
    """Answer until the input ends, each time within so many seconds of processor time."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    compile = lru_cache(maxsize=8)(environment().from_string)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process, whatever it is at
        answer = json.dumps(_answer(request, compile))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(float(sys.argv[1]))
