"""The chat template: ours, and a sandbox in which anybody's renders as it does in transformers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from moreseek.errors import InputError
from moreseek.records import Message
from moreseek.text import sandbox
from moreseek.text.sandbox import MAX_RENDER_S

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
    a downloaded folder is untrusted code, so it runs in a sandbox, in a process with bounded time and memory.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        tags = source.count("{{") + source.count("{%")
        if len(source) > MAX_SOURCE or tags > MAX_TAGS:
            raise InputError(
                f"The chat template has {len(source)} characters and {tags} tags; "
                f"at most {MAX_SOURCE} and {MAX_TAGS} are allowed."
            )
        try:
            _process.ask(source, None)
        except ValueError as error:
            raise InputError(f"The chat template is not valid Jinja: {error}.") from error

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False, **variables: Any) -> str:
        """The chat as text. ``variables`` reach the template (``enable_thinking``, ``bos_token``, …): JSON values.

        Raises InputError where the template refuses the messages, fails, or grows out of bounds.
        """
        turns = [_as_template_reads(message) for message in messages]
        values = {"tools": None, "documents": None, **variables, "add_generation_prompt": add_generation_prompt}
        try:
            return _process.ask(self.source, {"messages": turns, **values})
        except (TypeError, ValueError) as error:
            raise InputError(f"The chat template refused the messages: {error}") from error


class _Process:
    """text/sandbox.py in a process, started when it is first needed and again whenever it was stopped."""

    def __init__(self, seconds: float = MAX_RENDER_S) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, source: str, variables: dict[str, Any] | None) -> str:
        """The rendered text; "" where ``variables`` is None. Raises ValueError with what went wrong."""
        line = json.dumps({"source": source, "variables": variables}).encode() + b"\n"
        with self._lock:
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(OSError):  # where it has just ended, there is no answer either
                process.stdin.write(line)
                process.stdin.flush()
            answer = process.stdout.readline()
            if not answer.endswith(b"\n"):
                status = process.wait()
                slow = status == -signal.SIGPROF
                raise ValueError(
                    f"it ran longer than {self._seconds:g} s" if slow else f"its process ended with status {status}"
                )
        table = json.loads(answer)
        if "error" in table:
            raise ValueError(table["error"])
        return table["text"]

    def _running(self) -> "subprocess.Popen[bytes]":
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-P", sandbox.__file__, str(self._seconds)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        return self._process


_process = _Process()
os.register_at_fork(after_in_child=_process.__init__)  # a forked child must not speak into its parent's pipes
