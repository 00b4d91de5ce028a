"""Settings: frozen pydantic models, TOML files, ``--set a.b=c``, and errors that say "did you mean"."""

import difflib
import importlib
import tomllib
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from moreseek.errors import InputError


class Settings(BaseModel):
    """Base of every settings table: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


S = TypeVar("S", bound=BaseModel)


def read_toml(path: Path, what: str = "file") -> dict[str, Any]:
    """Read a TOML file, with or without a UTF-8 byte-order mark. Raises InputError with the line of a mistake."""
    if path.is_dir():
        raise InputError(f"{path}: a folder; a .toml file is needed.")
    if not path.is_file():
        raise InputError(f"{path}: no such {what}.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error.reason}).") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}.") from error


def apply_override(table: dict[str, Any], assignment: str) -> None:
    """Apply one ``a.b=c`` in place. The value is TOML (``3``, ``true``, ``[1, 2]``), else a plain string.

    A list of named tables (``[[stage]]``) is addressed by name: ``stage.zero.steps=10``, or ``zero.steps=10``.
    """
    path, equals, text = assignment.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise InputError(f"--set {assignment}: write it as key=value, for example --set zero.steps=40.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if keys[0] not in table and any(stage.get("name") == keys[0] for stage in table.get("stage", [])):
        keys.insert(0, "stage")
    target: Any = table
    for position, key in enumerate(keys[:-1]):
        here = ".".join(keys[: position + 1])
        if isinstance(target, list):
            named = {item.get("name"): item for item in target if isinstance(item, dict)}
            if key not in named:
                raise InputError(f"--set {assignment}: no '{here}'{did_you_mean(key, [str(n) for n in named])}")
            target = named[key]
        elif isinstance(target, dict):
            target = target.setdefault(key, {})
        else:
            raise InputError(f"--set {assignment}: '{'.'.join(keys[:position])}' is a value, not a table.")
    if not isinstance(target, dict):
        raise InputError(f"--set {assignment}: '{'.'.join(keys[:-1])}' is not a table.")
    target[keys[-1]] = value


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """'. Did you mean …?' when something close exists, else the list of what is known."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if close:
        return f". Did you mean '{close[0]}'?"
    return f". Known: {', '.join(sorted(known))}." if known else "."


def parse(settings: type[S], table: dict[str, Any], where: str) -> S:
    """Check a table against its settings class. Raises InputError listing every mistake with its key."""
    try:
        return settings.model_validate(table)
    except ValidationError as error:
        raise InputError("\n".join(explain(settings, item, where) for item in error.errors())) from error


def explain(settings: type[BaseModel], item: Any, where: str) -> str:
    """One of a ValidationError's errors for people: the place, the key, what is wrong, what was probably meant."""
    location = [str(part) for part in item["loc"]]
    key = ".".join(location)
    if item["type"] == "extra_forbidden":
        fields = _table_at(settings, location[:-1]).model_fields
        known = [field.alias or name for name, field in fields.items()]
        return f"{where}: unknown key '{key}'{did_you_mean(location[-1], known)}"
    if item["type"] == "missing":
        return f"{where}: key '{key}' is missing."
    message = _in_our_words(item)
    shown = "" if isinstance(item.get("input"), dict) else f" (found {_short(repr(item.get('input')))})"
    told = f"{key}: {message}{shown}" if key else f"{message}{shown}"
    return f"{where}: {told}" if told.endswith((".", "?")) else f"{where}: {told}."


def _in_our_words(item: Any) -> str:
    """What is wrong with a value. pydantic speaks of strings, dictionaries and parsing; people wrote TOML or JSON."""
    needed = _NEEDED.get(item["type"])
    if needed is None:
        return item["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{needed} is needed".format(**item.get("ctx", {}))


_NEEDED = {
    "string_type": "a text in quotes",
    "string_too_short": "a text that is not empty",
    "string_pattern_mismatch": "a text of the form {pattern}",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "a table of keys and values",
    "model_type": "a table of keys and values",
    "model_attributes_type": "a table of keys and values",
    "list_type": "a list",
    "tuple_type": "a list",
    "too_short": "a longer list",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "literal_error": "{expected}",
}
"""By pydantic's type of error."""


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def _table_at(settings: type[BaseModel], location: Sequence[str]) -> type[BaseModel]:
    """The settings class that a dotted location points into; stays at the last one it can follow."""
    current = settings
    for part in location:
        field = current.model_fields.get(part)
        for candidate in [
            getattr(field, "annotation", None),
            *getattr(getattr(field, "annotation", None), "__args__", ()),
        ]:
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                current = candidate
                break
    return current


def import_name(name: str) -> Callable[..., Any]:
    """The function behind ``package.module:function``. Raises InputError that says which half is wrong, and where."""
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise InputError(f"'{name}': name a function as package.module:function.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"'{name}': cannot import {module_name} ({error}).") from error
    except Exception as error:  # foreign code: a slip in it is its author's, and no defect of ours
        raise InputError(f"'{name}': cannot import {module_name}: {told(error, module_name)}.") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"'{name}': {module_name} has no function '{attribute}'{did_you_mean(attribute, known)}")
    return function


def told(error: BaseException, module_name: str) -> str:
    """What foreign code raised, and at which line of its module: 'KeyError: 3 (rules.py:12)'."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename).name}:{error.lineno})"
    steps = list(traceback.walk_tb(error.__traceback__))
    inside = [line for frame, line in steps if frame.f_globals.get("__name__") == module_name]
    where = f" ({module_name.rpartition('.')[2]}.py:{inside[-1]})" if inside else ""
    return f"{type(error).__name__}: {error}{where}"
