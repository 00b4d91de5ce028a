"""Keeps the tables of docs/recipes.md equal to the settings classes.

    python scripts/settings_docs.py            rewrite the tables in place
    python scripts/settings_docs.py --check    exit 1 where they differ (the tests do this)

Keys, types and defaults come from the pydantic classes, meanings from scripts/settings_docs.toml. A key without a
meaning, or a meaning without a key, is an error, so that the page can be neither incomplete nor out of date.
"""

import re
import sys
import tomllib
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from moreseek.data.arithmetic import ArithmeticSettings
from moreseek.data.documents import DocumentSource
from moreseek.data.problems import FileSettings, ProblemSource
from moreseek.evals.tasks import EvalSettings
from moreseek.model.config import ModelConfig
from moreseek.recipes.recipe import RunSettings
from moreseek.rewards.rubric import VerifierSettings
from moreseek.training.settings import (
    ExamineSettings,
    GRPOSettings,
    OptimizerSettings,
    PreferenceSettings,
    PretrainSettings,
    ReloadCall,
    SamplerSettings,
    StageSettings,
    TokenizerSettings,
)

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "recipes.md"
MEANINGS = ROOT / "scripts" / "settings_docs.toml"
CLASSES: dict[str, type[BaseModel]] = {
    found.__name__: found
    for found in (
        RunSettings, ProblemSource, FileSettings, ArithmeticSettings, EvalSettings, StageSettings, PretrainSettings,
        TokenizerSettings, DocumentSource, ModelConfig, OptimizerSettings, GRPOSettings, VerifierSettings,
        ExamineSettings, SamplerSettings, ReloadCall, PreferenceSettings,
    )
}  # fmt: skip
FILLED_IN = {("RunSettings", "name"), ("ModelConfig", "vocab_size")}
"""Required by the class, but a recipe need not write them."""

_BLOCK = re.compile(r"(<!-- settings: (\w+) -->\n).*?(<!-- end of settings -->)", re.DOTALL)
_BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "length ≥"}


def updated_page(page: str, meanings: dict[str, dict[str, str]]) -> str:
    """The page with every table made anew. Raises ValueError where page, meanings and classes do not match."""
    shown = [name for _, name, _ in _BLOCK.findall(page)]
    if sorted(shown) != sorted(CLASSES) or sorted(meanings) != sorted(CLASSES):
        raise ValueError(
            f"the page has tables of {sorted(shown)}, {MEANINGS.name} of {sorted(meanings)}, wanted: {sorted(CLASSES)}"
        )
    return _BLOCK.sub(lambda found: f"{found[1]}{table(CLASSES[found[2]], meanings[found[2]])}{found[3]}", page)


def table(settings: type[BaseModel], meanings: dict[str, str]) -> str:
    """A Markdown table of the keys that a class itself declares."""
    keys = [key for key in settings.__annotations__ if key in settings.model_fields]
    if missing := [key for key in keys if key not in meanings]:
        raise ValueError(f"{MEANINGS.name}: [{settings.__name__}] says nothing of {', '.join(missing)}.")
    if stale := [key for key in meanings if key not in keys]:
        raise ValueError(f"{MEANINGS.name}: [{settings.__name__}] explains {', '.join(stale)}: no such key.")
    name = settings.__name__
    rows = [_row(key, settings.model_fields[key], meanings[key], (name, key) in FILLED_IN) for key in keys]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows]) + "\n"


def _row(key: str, field: FieldInfo, meaning: str, filled_in: bool) -> str:
    wanted = ", ".join([_type_name(field.annotation), *_bounds(field)])
    cells = [f"`{key}`", wanted, "filled in" if filled_in else _default(field), meaning]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _type_name(annotation: Any) -> str:
    """A type as a writer of TOML thinks of it; "none" is left out, since TOML cannot say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(part) for part in arguments if part is not type(None))
    if hasattr(annotation, "__metadata__"):  # Annotated inside a union
        return ", ".join([_type_name(arguments[0]), *_limits(annotation.__metadata__)])
    if origin in (list, tuple):
        return f"list of {_type_name(arguments[0])}s"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "table"
    return {int: "integer", float: "number", str: "text", bool: "true or false"}[annotation]


def _bounds(field: FieldInfo) -> list[str]:
    return _limits(field.metadata)


def _limits(metadata: Any) -> list[str]:
    """'> 0' and the like, from annotated-types' markers or a FieldInfo that holds them."""
    found: list[str] = []
    for marker in metadata:
        found += _limits(marker.metadata) if isinstance(marker, FieldInfo) else []
        found += [
            f"{sign} {getattr(marker, name):g}"
            for name, sign in _BOUNDS.items()
            if getattr(marker, name, None) is not None
        ]
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if value is None:
        return "–"
    if isinstance(value, BaseModel):
        return "its defaults"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        inside = ", ".join(
            f'{key} = "{text}"'
            for key, text in value[0].model_dump(exclude_defaults=False).items()
            if isinstance(text, str)
        )
        return f"`[{{ {inside} }}]`"
    if isinstance(value, (list, tuple, dict)):
        return "empty"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def main() -> int:
    """Rewrite the page, or with --check say whether it is up to date."""
    page = PAGE.read_text(encoding="utf-8")
    new = updated_page(page, tomllib.loads(MEANINGS.read_text(encoding="utf-8")))
    if "--check" in sys.argv[1:]:
        if new != page:
            sys.stderr.write(f"{PAGE}: out of date. Run: python scripts/settings_docs.py\n")
        return int(new != page)
    PAGE.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
