"""A recipe is checked as a whole when it is read; fingerprints change with what decides the weights, only with that."""

import json
from pathlib import Path
from typing import Any

import pytest

from moreseek.errors import InputError
from moreseek.recipes.recipe import Recipe, load_recipe

RECIPE = """
[problems]
source = "moreseek.data.arithmetic:problems"
[eval]
problems = 10
[[stage]]
name = "base"
method = "pretrain"
steps = 5
documents = [{ source = "file", path = "PATH" }]
model = { hidden_size = 8 }
[[stage]]
name = "zero"
method = "grpo"
start_from = "base"
steps = 3
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "corpus.txt").write_text("one\n\ntwo\n")
    file = tmp_path / "tiny.toml"
    file.write_text(RECIPE.replace("PATH", str(tmp_path / "corpus.txt")))
    return file


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(InputError) as refused:
        load_recipe(path, overrides)
    return str(refused.value)


# --- reading -----------------------------------------------------------------------------------------------------


def test_what_is_not_said_has_a_default_and_the_resolved_recipe_says_it(path: Path) -> None:
    recipe = load_recipe(path, ["zero.group_size=4"], seed=9)
    assert recipe.run.name == "tiny"  # the file's name
    assert recipe.run.seed == 9
    resolved = recipe.resolved()
    assert resolved["stage"][1]["group_size"] == 4
    assert resolved["stage"][1]["objective"] == "grpo"
    assert json.loads(json.dumps(resolved)) == resolved


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ('method = "grpo"', 'method = "grop"', "stage 2 'zero': unknown method 'grop'. Did you mean 'grpo'?"),
        ('method = "grpo"', 'method = ["grpo"]', "unknown method"),
        ('method = "grpo"', "", "key 'method' is missing. Known: pretrain, grpo, preference, eval."),
        ("[eval]", "[evl]", "unknown table 'evl'. Did you mean 'eval'?"),
        ('start_from = "base"', 'start_from = "bse"', "Did you mean 'base'?"),
        ('start_from = "base"', 'start_from = "no/where"', "neither a run"),
        ('start_from = "base"', "", "key 'start_from' is missing"),
        ("steps = 5", "steps = ", "not valid TOML"),
        ("steps = 5", 'steps = "many"', "steps: a whole number is needed (found 'many')"),
        ("steps = 5", "steps = 0", "steps: a number above 0 is needed (found 0)"),
        ("steps = 5", "step = 5", "Did you mean 'steps'?"),
        ("steps = 5", "", "key 'steps' is missing"),
        ('name = "zero"', 'name = "base"', "two stages are called 'base'"),
        ('name = "zero"', 'name = "../zero"', "name"),
        ('name = "zero"', 'name = "model"', "cannot be called 'model'"),
        ("model = { hidden_size = 8 }", "", "needs a [stage.model] table or start_from"),
        ('[problems]\nsource = "moreseek.data.arithmetic:problems"', "", "[eval] needs a [problems] table"),
        ('[problems]\nsource = "moreseek.data.arithmetic:problems"\n[eval]\nproblems = 10', "", "needs problems"),
        ("[eval]", "[[eval]]", "'eval' is a table: begin it with [eval]"),
    ],
)
def test_a_wrong_recipe_is_explained(before: str, after: str, said: str, path: Path) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    message = refusal(path)
    assert said in message
    assert message.startswith(str(path))


@pytest.mark.parametrize("stages", ["", "stage = 3", "stage = [3]", "[stage]\nname = 'base'"])
def test_stages_in_any_other_form_are_explained(stages: str, path: Path) -> None:
    path.write_text(stages)
    assert "[[stage]]" in refusal(path)


def test_an_override_is_checked_like_the_file(path: Path) -> None:
    assert "unknown table 'zro'. Did you mean 'zero'?" in refusal(path, "zro.steps=3")
    assert "[[stage]]" in refusal(path, "stage=3")
    assert "begin it with [run]" in refusal(path, "run=3")
    assert "Did you mean 'lr'?" in refusal(path, "zero.optimizer.lrr=0.1")
    assert "two verifiers have the same name" in refusal(path, 'zero.rubric=[{name="a"},{name="a"}]')


def test_a_stage_may_not_start_from_a_later_one(path: Path) -> None:
    text = path.read_text()
    at = text.index("[[stage]]", text.index("base"))
    first = text.index("[[stage]]")
    path.write_text(text[:first] + text[at:] + text[first:at])
    assert "which comes later: move it up" in refusal(path)


def test_a_missing_stage_is_named_with_a_guess(path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'zero'"):
        load_recipe(path).stage("zer")


@pytest.mark.parametrize(
    "shipped", sorted((Path(__file__).parents[3] / "recipes").glob("*.toml")), ids=lambda path: path.stem
)
def test_a_recipe_that_ships_can_be_read(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start model may be made by another recipe, or lie in a package that is not installed here."""
    monkeypatch.setattr("moreseek.recipes.recipe._check_external", lambda *_: None)
    assert load_recipe(shipped).stages


# --- fingerprints ------------------------------------------------------------------------------------------------


def changed(path: Path, *overrides: str) -> set[str]:
    """The stages whose fingerprint an override changes."""
    before, after = load_recipe(path).fingerprints(), load_recipe(path, overrides).fingerprints()
    return {name for name in before if before[name] != after[name]}


@pytest.mark.parametrize(
    ("override", "stages"),
    [
        ("base.steps=6", {"base", "zero"}),  # what is read changes what reads it
        ("zero.steps=4", {"zero"}),
        ("run.seed=2", {"base", "zero"}),
        ("run.precision=bf16", {"base", "zero"}),
        ("problems.settings={max_operand=5}", {"zero"}),
        ("zero.rubric=[{name='answer',weight=2.0}]", {"zero"}),
        ("eval.k=3", set()),
        ("run.threads=1", set()),
        ("run.name=other", set()),
        ("base.keep_checkpoints=5", set()),
        ("base.evaluate=false", set()),
    ],
)
def test_a_fingerprint_changes_with_what_decides_the_weights(override: str, stages: set[str], path: Path) -> None:
    assert changed(path, override) == stages


def test_a_fingerprint_changes_with_the_data_files_content(path: Path, tmp_path: Path) -> None:
    before = load_recipe(path).fingerprints()
    (tmp_path / "corpus.txt").write_text("one\n\nthree\n")
    after = load_recipe(path).fingerprints()
    assert before["base"] != after["base"]
    assert before["zero"] != after["zero"]


def test_a_fingerprint_changes_with_any_file_of_a_folder_of_documents(path: Path, tmp_path: Path) -> None:
    folder = tmp_path / "texts" / "more"
    folder.mkdir(parents=True)
    path.write_text(RECIPE.replace("PATH", str(tmp_path / "texts")))
    seen = set()
    for text in ("one", "two"):
        (folder / "a.txt").write_text(text)
        seen.add(load_recipe(path).fingerprints()["base"])
    (folder / "b.txt").write_text("three")
    seen.add(load_recipe(path).fingerprints()["base"])
    assert len(seen) == 3
    assert load_recipe(path).fingerprints()["base"] in seen


def test_a_fingerprint_changes_with_the_content_of_a_file_of_pairs(path: Path, tmp_path: Path) -> None:
    pairs, heldout = tmp_path / "pairs.jsonl", tmp_path / "heldout.jsonl"
    stage = f'[[stage]]\nname = "p"\nmethod = "preference"\nstart_from = "base"\ndata = "{pairs}"\n'
    path.write_text(path.read_text() + stage + f'heldout_path = "{heldout}"\n')
    seen = set()
    for one, other in (("a", "a"), ("b", "a"), ("b", "b")):
        pairs.write_text(one)
        heldout.write_text(other)
        seen.add(load_recipe(path).fingerprints()["p"])
    assert len(seen) == 3
    assert changed(path, "p.beta=0.5") == {"p"}


def test_a_preference_stage_says_either_steps_or_epochs(path: Path) -> None:
    stage = '[[stage]]\nname = "p"\nmethod = "preference"\nstart_from = "base"\nepochs = 2\n'
    path.write_text(path.read_text() + stage)
    assert "stage 3 'p': key 'data' is missing." in refusal(path)
    path.write_text(path.read_text() + 'data = "pairs.jsonl"\n')
    assert load_recipe(path).stage("p")
    assert "steps and epochs both say how long to train: leave one out." in refusal(path, "p.steps=3")


def test_a_fingerprint_changes_with_a_start_model_from_outside(path: Path, tmp_path: Path) -> None:
    model = tmp_path / "mine" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "manifest.json").write_text("one")

    def fingerprint() -> str:
        return load_recipe(path, [f"zero.start_from={model}"]).fingerprints()["zero"]

    before = fingerprint()
    assert fingerprint() == before
    (model / "manifest.json").write_text("two")
    assert fingerprint() != before


def test_the_identity_names_every_key_that_a_refusal_shows(path: Path) -> None:
    recipe: Recipe = load_recipe(path)
    identity: dict[str, Any] = recipe.identity(recipe.stage("zero"))
    assert identity["run.seed"] == 1
    assert identity["problems"]["source"] == "moreseek.data.arithmetic:problems"
    assert "evaluate" not in identity
