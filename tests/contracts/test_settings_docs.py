"""docs/recipes.md says what the settings classes say."""

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def docs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("settings_docs", ROOT / "scripts" / "settings_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_page_equals_the_generated_one(docs: ModuleType) -> None:
    page = docs.PAGE.read_text(encoding="utf-8")
    meanings = tomllib.loads(docs.MEANINGS.read_text(encoding="utf-8"))
    assert docs.updated_page(page, meanings) == page, "run: python scripts/settings_docs.py"


def test_a_key_without_a_meaning_is_an_error(docs: ModuleType) -> None:
    class Example(BaseModel):
        told: int = 1
        untold: str = "a"

    with pytest.raises(ValueError, match="says nothing of untold"):
        docs.table(Example, {"told": "…"})


def test_a_meaning_without_a_key_is_an_error(docs: ModuleType) -> None:
    class Example(BaseModel):
        told: int = 1

    with pytest.raises(ValueError, match="explains gone: no such key"):
        docs.table(Example, {"told": "…", "gone": "…"})
