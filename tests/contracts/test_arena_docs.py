"""docs/arena.md has every key of arena.toml, and examples/arena.toml is read without a complaint."""

import importlib.util
from pathlib import Path

import pytest

from moreseek.arena.live.contestants import Contestant, Endpoint, LLMJudge
from moreseek.arena.live.settings import House, load_arena

ROOT = Path(__file__).resolve().parents[2]


def wanted(settings):
    """The table as scripts/settings_docs.py makes it, from the descriptions in the class."""
    spec = importlib.util.spec_from_file_location("settings_docs", ROOT / "scripts" / "settings_docs.py")
    docs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docs)
    own = {key: settings.model_fields[key].description for key in settings.__annotations__}
    table = docs.table(settings, own)
    return table.replace("| `kind` |", "| `class` |")


@pytest.mark.parametrize("settings", [House, Endpoint, Contestant, LLMJudge])
def test_the_page_has_the_table_of_every_key(settings):
    table = wanted(settings)
    assert table in (ROOT / "docs" / "arena.md").read_text(encoding="utf-8"), f"docs/arena.md needs:\n{table}"


def test_the_example_is_an_arena():
    settings = load_arena(ROOT / "examples" / "arena.toml")
    assert len(settings.contestant) == 3
    assert Path(settings.arena.database).parent == ROOT / "examples"
