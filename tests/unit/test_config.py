"""Settings: what a person mistypes is named with its place, and with what was probably meant."""

from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from moreseek.config import Settings, apply_override, did_you_mean, import_name, parse, read_toml
from moreseek.errors import InputError


class Inner(Settings):
    rate: float = Field(default=0.1, gt=0)


class Outer(Settings):
    steps: int
    inner: Inner = Inner()
    inners: list[Inner] = []
    maybe: Inner | None = None


def stages() -> dict:
    return {"run": {"seed": 1}, "stage": [{"name": "base", "steps": 3}, {"name": "zero", "steps": 4}]}


@pytest.mark.parametrize(
    ("assignment", "read", "value"),
    [
        ("run.seed=2", lambda t: t["run"]["seed"], 2),
        ("zero.steps=40", lambda t: t["stage"][1]["steps"], 40),
        ("stage.base.steps = 5", lambda t: t["stage"][0]["steps"], 5),
        ("zero.optimizer.lr=1e-3", lambda t: t["stage"][1]["optimizer"], {"lr": 1e-3}),
        ("zero.on=true", lambda t: t["stage"][1]["on"], True),
        ("zero.list=[1, 2]", lambda t: t["stage"][1]["list"], [1, 2]),
        ("zero.text=plain words", lambda t: t["stage"][1]["text"], "plain words"),
        ("zero.text=a=b", lambda t: t["stage"][1]["text"], "a=b"),
        ("eval.k=4", lambda t: t["eval"], {"k": 4}),
    ],
)
def test_an_override_reaches_its_key_and_keeps_toml_types(assignment, read, value) -> None:
    table = stages()
    apply_override(table, assignment)
    assert read(table) == value


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("zero.steps", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("zero..steps=3", "write it as key=value"),
        ("stage.zerro.steps=3", "Did you mean 'zero'?"),
        ("run.seed.low=3", "'run.seed' is not a table"),
        ("run.seed.low.er=3", "'run.seed' is a value, not a table"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(assignment: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        apply_override(stages(), assignment)


def test_every_mistake_of_a_table_is_listed_with_its_key() -> None:
    table = {"inner": {"rte": 1, "rate": -1}, "inners": [{}, {"rat": 1}], "maybe": {"rates": 2}}
    with pytest.raises(InputError) as refused:
        parse(Outer, table, "r.toml: stage 1")
    lines = str(refused.value).splitlines()
    assert len(lines) == 5
    assert all(line.startswith("r.toml: stage 1: ") for line in lines)
    text = str(refused.value)
    assert "key 'steps' is missing" in text
    assert "unknown key 'inner.rte'. Did you mean 'rate'?" in text
    assert "inner.rate: a number above 0 is needed (found -1)" in text
    assert "unknown key 'inners.1.rat'. Did you mean 'rate'?" in text
    assert "unknown key 'maybe.rates'. Did you mean 'rate'?" in text


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer(steps=1).steps = 2


def test_a_guess_is_made_only_when_something_is_close() -> None:
    assert did_you_mean("stpes", ["steps", "name"]) == ". Did you mean 'steps'?"
    assert did_you_mean("xyz", ["steps", "name"]) == ". Known: name, steps."
    assert did_you_mean("xyz", []) == "."


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("json", "package.module:function"),
        (":dumps", "package.module:function"),
        ("json:", "package.module:function"),
        ("jsonn:dumps", "cannot import jsonn"),
        ("json:dump_s", "Did you mean 'dumps'?"),
        ("json:__name__", "no function '__name__'"),
    ],
)
def test_a_function_that_cannot_be_found_says_which_half_is_wrong(name: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", r"\?")):
        import_name(name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = ", "not valid TOML: Invalid value"),
        (b"a = 1\na = 2", "not valid TOML: Cannot overwrite"),
        (b"# \xe9", "not UTF-8"),
    ],
)
def test_a_file_that_is_not_toml_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"r\.toml: {said}"):
        read_toml(path)


def test_a_missing_file_and_a_folder_in_its_place_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.toml: no such recipe\."):
        read_toml(tmp_path / "gone.toml", "recipe")
    with pytest.raises(InputError, match=r"a folder; a \.toml file is needed"):
        read_toml(tmp_path)


def test_a_file_as_windows_editors_write_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\r\n[b]\r\nc = 2\r\n")
    assert read_toml(path) == {"a": 1, "b": {"c": 2}}


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def f(problem, completion)\n    return 1\n", r"SyntaxError: expected ':' \(slips\.py:1\)"),
        ("import math\n\nLIMIT = 1 / 0\n", r"ZeroDivisionError: division by zero \(slips\.py:3\)"),
        ("import no_such_package\n", "No module named 'no_such_package'"),
    ],
)
def test_a_slip_in_a_users_module_is_told_with_its_line(
    code: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slips.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=f"'slips:f': cannot import slips.*{said}"):
        import_name("slips:f")


class Typed(Settings):
    """A field of every sort."""

    text: str = Field("a", min_length=1, pattern="^[a-z]*$")
    whole: int = Field(1, ge=0, lt=9)
    number: float = Field(0.5, allow_inf_nan=False)
    flag: bool = True
    table: dict[str, int] = {}
    items: tuple[int, ...] = ()
    word: Literal["left", "right"] = "left"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"text": 3}, "text: a text in quotes is needed (found 3)."),
        ({"text": ""}, "text: a text that is not empty is needed (found '')."),
        ({"text": "A"}, "text: a text of the form ^[a-z]*$ is needed (found 'A')."),
        ({"whole": "many"}, "whole: a whole number is needed (found 'many')."),
        ({"whole": 2.5}, "whole: a whole number is needed (found 2.5)."),
        ({"whole": -1}, "whole: a number of at least 0 is needed (found -1)."),
        ({"whole": 9}, "whole: a number below 9 is needed (found 9)."),
        ({"number": "x"}, "number: a number is needed (found 'x')."),
        ({"number": float("inf")}, "number: a finite number is needed (found inf)."),
        ({"flag": "perhaps"}, "flag: true or false is needed (found 'perhaps')."),
        ({"table": [1]}, "table: a table of keys and values is needed (found [1])."),
        ({"items": 3}, "items: a list is needed (found 3)."),
        ({"word": "up"}, "word: 'left' or 'right' is needed (found 'up')."),
    ],
)
def test_a_wrong_value_is_told_in_the_words_of_toml(value: dict[str, object], said: str) -> None:
    with pytest.raises(InputError) as error:
        parse(Typed, value, "r.toml: [x]")
    assert str(error.value) == f"r.toml: [x]: {said}"
