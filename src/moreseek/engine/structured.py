"""Structured output: what may come next so that the text follows a JSON schema, an expression, choices or a grammar.

llguidance does the work, and bounds itself: fuel for building its automata, states, grammar size, items a step. What
it does not bound is how deep it recurses: a chain of thousands of references overflows the stack and ends the process.
So a new structure is first compiled in a process of its own, with a smaller stack and a time limit. No torch in here.
"""

import json
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from moreseek.engine.sampling import Structure
from moreseek.errors import InputError
from moreseek.text.tokenizer import Tokenizer

try:
    import llguidance
except ImportError:
    llguidance = None

MOST_KEPT = 64  # compiled grammars
DEEPEST = 64  # levels of brackets
MOST_SECONDS = 1.0  # of processor time: a busy machine refuses nothing
SLOW_MACHINE = 20  # times as long may pass on the clock
LIMITS = {"max_grammar_size": 200_000, "max_lexer_states": 50_000, "verbose_errors": False}
REHEARSAL_STACK, STACK = 2**22, 2**26  # bytes: what passed the rehearsal has room to spare
REHEARSAL = """
import json, signal, sys, threading
import llguidance
def build():
    limits = llguidance.LLParserLimits(**order["limits"])
    matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), order["source"], log_level=0, limits=limits)
    matcher.is_error() or matcher.deep_copy().compute_bitmask()
order = json.load(sys.stdin)
signal.setitimer(signal.ITIMER_PROF, order["seconds"])  # its signal ends the process
threading.stack_size(order["stack"])
worker = threading.Thread(target=build)
worker.start()
worker.join()
"""
SPACES = r"[ \n\t]{0,16}"  # between JSON's parts: without an end, a small model writes spaces for ever


class Compiler:
    """Compiles structures for one tokenizer and keeps the latest. Safe to call from several threads.

    Raises InputError where llguidance is not installed or cannot read the tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int | None = None) -> None:
        if llguidance is None:
            raise InputError("structured output needs llguidance: pip install moreseek[structured]")
        self.vocab_size = vocab_size or tokenizer.vocab_size
        self._kept: OrderedDict[Structure, Any] = OrderedDict()
        self._lock = threading.Lock()
        try:
            self._tokenizer = llguidance.LLTokenizer(
                tokenizer.backend.to_str(), n_vocab=tokenizer.vocab_size, eos_token=list(tokenizer.eos_ids)
            )
        except Exception as error:  # llguidance raises bare ones
            raise InputError(f"structured output cannot use this tokenizer ({_short(error)}).") from error

    def compile(self, structure: Structure) -> "CompiledGrammar":
        """A fresh grammar at its start. Raises InputError for one that is wrong, too large, or takes too long."""
        with self._lock:
            matcher = self._kept.get(structure)
            if matcher is not None:
                self._kept.move_to_end(structure)
                return CompiledGrammar(matcher.deep_copy(), self.vocab_size)
        _check_nesting(structure)
        _rehearse(structure)
        matcher = self._built_in_time(structure)
        with self._lock:
            self._kept[structure] = matcher
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
            return CompiledGrammar(matcher.deep_copy(), self.vocab_size)

    def _built_in_time(self, structure: Structure) -> Any:
        """Built in a thread, which is left behind if it takes too long; llguidance's limits end it a little later."""
        result: list[Any] = []

        def build() -> None:
            try:
                result.append(self._built(structure))
            except Exception as error:
                result.append(error)

        with _STACK_LOCK:  # the size is one for the whole process
            before = threading.stack_size(STACK)
            try:
                worker = threading.Thread(target=build, daemon=True)
                worker.start()
            finally:
                threading.stack_size(before)
        worker.join(SLOW_MACHINE * MOST_SECONDS)  # what passed the rehearsal takes about as long as it did there
        if not result:
            raise _too_slow(structure)
        if isinstance(result[0], InputError):
            raise result[0]
        if isinstance(result[0], Exception):
            raise InputError(f"structured: this {structure.kind} is not valid ({_short(result[0])}).") from result[0]
        return result[0]

    def _built(self, structure: Structure) -> Any:
        assert llguidance is not None
        limits = llguidance.LLParserLimits(**LIMITS)
        matcher = llguidance.LLMatcher(self._tokenizer, _source(structure), log_level=0, limits=limits)
        if not matcher.is_error():
            first = matcher.deep_copy()  # a grammar from which nothing follows says so at its first step
            first.compute_bitmask()
            if first.is_error():
                matcher = first
        if matcher.is_error():
            reason = _short(matcher.get_error())
            raise InputError(f"structured: this {structure.kind} is not valid, or nothing follows it ({reason}).")
        return matcher


class CompiledGrammar:
    """One completion's place in its grammar."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        self._vocab_size = vocab_size
        self._mask: np.ndarray | None = None

    def mask(self) -> np.ndarray:
        """(vocab_size,) bool: what may come next. Do not write into it.

        Raises InputError where the grammar proves too costly at this step.
        """
        if self._mask is None:
            bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
            self._refuse_error()
            allowed = np.unpackbits(bits, bitorder="little")[: self._vocab_size].astype(bool)
            self._mask = np.pad(allowed, (0, self._vocab_size - len(allowed)))
        return self._mask

    def observe(self, token: int) -> None:
        """A token was written. Raises InputError for one that the grammar does not allow."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)
            self._mask = None
        self._refuse_error()

    @property
    def complete(self) -> bool:
        """Whether the text so far is a whole one."""
        return self._matcher.is_accepting() or self._matcher.is_stopped()

    def _refuse_error(self) -> None:
        if self._matcher.is_error():
            raise InputError(f"structured: the grammar went no further ({_short(self._matcher.get_error())}).")


_STACK_LOCK = threading.Lock()


def _rehearse(structure: Structure) -> None:
    """Compile in a process of its own. Raises InputError where that one crashes or takes too long."""
    try:
        source = _source(structure)
    except ValueError as error:
        raise InputError(f"structured: this {structure.kind} is not valid ({_short(error)}).") from error
    order = {"source": source, "limits": LIMITS, "stack": REHEARSAL_STACK, "seconds": MOST_SECONDS}
    command, most = [sys.executable, "-c", REHEARSAL], SLOW_MACHINE * MOST_SECONDS
    try:
        done = subprocess.run(command, input=json.dumps(order).encode(), capture_output=True, timeout=most)
    except subprocess.TimeoutExpired as error:
        raise _too_slow(structure) from error
    if done.returncode == -signal.SIGPROF:
        raise _too_slow(structure)
    if done.returncode != 0:
        raise InputError(f"structured: this {structure.kind} is too deep for its compiler. Simplify it.")


def _too_slow(structure: Structure) -> InputError:
    return InputError(f"structured: this {structure.kind} takes over {MOST_SECONDS:g} s to compile. Simplify it.")


def _source(structure: Structure) -> str:
    """llguidance's own form of a structure."""
    assert llguidance is not None
    matcher = llguidance.LLMatcher
    if structure.kind == "regex":
        return matcher.grammar_from_regex(structure.text)
    if structure.kind == "grammar":
        return matcher.grammar_from_lark(structure.text)
    if structure.kind == "choice":
        return matcher.grammar_from_regex("|".join(f"(?:{_literal(choice)})" for choice in _choices(structure.text)))
    schema = '{"type": "object"}' if structure.kind == "json_object" else structure.text
    schema = "{}" if schema.strip() == "true" else schema  # the same, in a form that takes the option below
    return matcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": SPACES})


def _choices(text: str) -> list[str]:
    try:
        choices = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("structured: choice must be a JSON list of strings.") from error
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
        raise InputError("structured: choice must be a JSON list of at least one string.")
    if any("\ud800" <= character <= "\udfff" for choice in choices for character in choice):
        raise InputError("structured: a choice holds half of a character (a lone surrogate).")
    return choices


def _literal(text: str) -> str:
    """An expression that matches this text alone."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def _check_nesting(structure: Structure) -> None:
    """Every bracket counts, also one in a string: parsers that recurse must not meet thousands."""
    if structure.kind == "choice":
        return
    depth = 0
    for character in structure.text:
        if character in "([{":
            depth += 1
        elif character in ")]}":
            depth = max(depth - 1, 0)
        if depth > DEEPEST:
            raise InputError(f"structured: this {structure.kind} nests brackets over {DEEPEST} deep.")


def _short(error: object) -> str:
    text = " ".join(str(error).split()).removesuffix(" <non-verbose/>")
    return text if len(text) <= 200 else f"{text[:199]}…"
