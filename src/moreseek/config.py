"""Settings: frozen pydantic models, TOML files, ``--set a.b=c``, and errors that say "did you mean"."""

import difflib
import importlib
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from moreseek.errors import InputError


class Settings(BaseModel):
    """Base of every settings table: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


S = TypeVar("S", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises InputError with the line where it is malformed."""
    if not path.is_file():
        raise InputError(f"{path}: no such recipe. `ls recipes/` shows the ones that ship.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
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
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item.get("input"), dict) else f" (found {_short(repr(item.get('input')))})"
    told = f"{key}: {message}{shown}" if key else f"{message}{shown}"
    return f"{where}: {told}" if told.endswith((".", "?")) else f"{where}: {told}."


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
    """The function behind ``package.module:function``. Raises InputError that says which half is wrong."""
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise InputError(f"'{name}': name a function as package.module:function.")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(f"'{name}': cannot import {module_name} ({error}).") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise InputError(f"'{name}': {module_name} has no function '{attribute}'{did_you_mean(attribute, known)}")
    return function
