"""Structured output: what comes out follows the structure; hostile ones end in a message within a second."""

import json
import random
import re
import resource
import time

import numpy as np
import pytest

from moreseek.engine import structured
from moreseek.engine.sampling import Structure
from moreseek.errors import InputError
from moreseek.text.tokenizer import train_tokenizer

pytest.importorskip("llguidance")

TOKENIZERS = {size: train_tokenizer(['{"name": "Ada", "age": 36} yes no über 好'] * 5, size) for size in (264, 320)}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "maximum": 99, "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def write(tokenizer, structure, seed, most=300):
    """A random completion under the mask, as text; it ends with the end token."""
    draw = random.Random(seed)
    grammar = structured.Compiler(tokenizer).compile(structure)
    tokens = []
    for _ in range(most):
        allowed = np.flatnonzero(grammar.mask()).tolist()
        token = tokenizer.eos_ids[0] if tokenizer.eos_ids[0] in allowed else draw.choice(allowed)
        grammar.observe(token)
        if token in tokenizer.eos_ids:
            assert grammar.complete
            return tokenizer.decode(tokens)
        tokens.append(token)
    raise AssertionError(tokenizer.decode(tokens))


@pytest.mark.parametrize("size", TOKENIZERS)
@pytest.mark.parametrize("seed", range(5))
def test_random_tokens_under_the_mask_follow_the_structure(size, seed):
    tokenizer = TOKENIZERS[size]
    value = json.loads(write(tokenizer, Structure.json_schema(SCHEMA), seed))
    assert set(value) == {"name", "age"}
    assert 0 <= value["age"] <= 99
    assert re.fullmatch(r"\d{3}-[a-c]{2}", write(tokenizer, Structure("regex", r"[0-9]{3}-[a-c]{2}"), seed))
    choices = ["yes", "no", 'a "quoted"\n\\line', "über 好"]
    assert write(tokenizer, Structure.choice(choices), seed) in choices
    assert write(tokenizer, Structure("grammar", 'start: "a" ("x" | "y") "b"'), seed) in ("axb", "ayb")


def test_json_object_starts_an_object_and_nothing_else():
    tokenizer = TOKENIZERS[264]
    mask = structured.Compiler(tokenizer).compile(Structure("json_object")).mask()
    assert tokenizer.decode(np.flatnonzero(mask)) == "{"


def test_ids_beyond_the_tokenizer_are_never_allowed():
    compiler = structured.Compiler(TOKENIZERS[264], vocab_size=300)
    mask = compiler.compile(Structure("regex", "(?s:.*)")).mask()
    assert mask.shape == (300,)
    assert not mask[264:].any()


def test_two_completions_of_one_compiled_grammar_do_not_share_their_place():
    compiler = structured.Compiler(TOKENIZERS[264])
    first, second = (compiler.compile(Structure("regex", "ab")) for _ in range(2))
    before = second.mask().copy()
    first.observe(int(np.flatnonzero(first.mask())[0]))
    assert np.array_equal(second.mask(), before)
    assert not np.array_equal(first.mask(), before)


def test_no_more_grammars_are_kept_than_promised(monkeypatch):
    monkeypatch.setattr(structured, "MOST_KEPT", 4)
    compiler = structured.Compiler(TOKENIZERS[264])
    for number in range(structured.MOST_KEPT + 5):
        compiler.compile(Structure("regex", f"a{number}"))
    assert len(compiler._kept) == structured.MOST_KEPT


def deep(levels):
    return '{"type":"array","items":' * levels + "{}" + "}" * levels


def chain(links, link):
    """A schema of definitions each of which needs the next."""
    definitions = {f"d{i}": link({"$ref": f"#/$defs/d{i + 1}"}) for i in range(links)}
    return Structure.json_schema({"$defs": definitions | {f"d{links}": {"type": "integer"}}, "$ref": "#/$defs/d0"})


def rules(links, name):
    return "\n".join([f"start: {name}0", *(f"{name}{i}: {name}{i + 1}" for i in range(links)), f'{name}{links}: "a"'])


HOSTILE = {
    "chain of references": chain(3_500, lambda link: link),
    "chain of arrays": chain(3_000, lambda link: {"type": "array", "items": link}),
    "chain of allOf": chain(2_500, lambda link: {"allOf": [link, {"minimum": 1}]}),
    "chain of rules": Structure("grammar", rules(9_000, "r")),
    "chain of terminals": Structure("grammar", rules(6_000, "R")),
    "deep schema": Structure("json_schema", deep(5_000)),
    "deep regex": Structure("regex", "(" * 50_000 + "a" + ")" * 50_000),
    "deep grammar": Structure("grammar", "start: " + "(" * 50_000 + '"a"' + ")" * 50_000),
    "broken schema": Structure("json_schema", "{"),
    "unknown type": Structure("json_schema", '{"type": "foo"}'),
    "endless reference": Structure("json_schema", '{"$ref": "#"}'),
    "remote reference": Structure("json_schema", '{"$ref": "http://example.org/x"}'),
    "file reference": Structure("json_schema", '{"$ref": "file:///etc/hostname"}'),
    "broken regex": Structure("regex", "(a"),
    "no choice": Structure("choice", "[]"),
    "half a character": Structure("choice", '["\\ud800"]'),
    "broken grammar": Structure("grammar", "start: nowhere"),
    "exploding schema": Structure.json_schema(
        {"allOf": [{"anyOf": [{"properties": {f"a{i}{j}": {"type": "string"}}} for j in range(8)]} for i in range(12)]}
    ),
}


def spent_s():
    """Processor time of this process and those that it waited for: a busy machine must not fail a test."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime + time.process_time()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_broken_structure_is_a_message_within_a_second(name):
    compiler = structured.Compiler(TOKENIZERS[264])
    began = spent_s()
    with pytest.raises(InputError, match="structured") as error:
        compiler.compile(HOSTILE[name])
    assert spent_s() - began < 2 * structured.MOST_SECONDS
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "bomb", ["(a{1,1000}){1,1000}", "(((((a{0,99}){0,99}){0,99}){0,99}){0,99})", "(a|b)*a(a|b){60}"]
)
def test_a_regex_bomb_costs_little_or_is_refused(bomb):
    tokenizer = TOKENIZERS[264]
    a = tokenizer.encode("a")[0]
    began = spent_s()
    try:
        grammar = structured.Compiler(tokenizer).compile(Structure("regex", bomb))
        for _ in range(200):
            grammar.mask()
            grammar.observe(a)
    except InputError:
        pass
    assert spent_s() - began < 2


def test_what_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(structured, "_rehearse", lambda _: None)
    monkeypatch.setattr(structured, "MOST_SECONDS", 0.05)
    monkeypatch.setattr(structured, "SLOW_MACHINE", 1)
    monkeypatch.setattr(structured.Compiler, "_built", lambda *_: time.sleep(1))
    with pytest.raises(InputError, match=r"takes over 0\.05 s"):
        structured.Compiler(TOKENIZERS[264]).compile(Structure("regex", "a"))


def test_what_takes_too_much_processor_time_is_given_up_in_the_rehearsal(monkeypatch):
    monkeypatch.setattr(
        structured, "REHEARSAL", structured.REHEARSAL.replace("def build():", "def build():\n    while 1: 0")
    )
    monkeypatch.setattr(structured, "MOST_SECONDS", 0.05)
    monkeypatch.setattr(structured, "SLOW_MACHINE", 1_000)
    with pytest.raises(InputError, match=r"takes over 0\.05 s"):
        structured.Compiler(TOKENIZERS[264]).compile(Structure("regex", "a"))


def test_a_machine_that_is_too_busy_to_start_a_process_in_time_refuses_nothing(monkeypatch):
    monkeypatch.setattr(structured, "REHEARSAL", f"import time; time.sleep(1.5)\n{structured.REHEARSAL}")
    structured.Compiler(TOKENIZERS[264]).compile(Structure("regex", "a"))


def test_without_llguidance_the_message_names_the_extra(monkeypatch):
    monkeypatch.setattr(structured, "llguidance", None)
    with pytest.raises(InputError, match=r"pip install moreseek\[structured\]"):
        structured.Compiler(TOKENIZERS[264])
