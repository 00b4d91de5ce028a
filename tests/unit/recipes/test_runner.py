"""What a refusal shows, and what is looked at before the first step."""

import json
from pathlib import Path

import pytest

from moreseek.errors import InputError
from moreseek.recipes.preflight import check_inputs
from moreseek.recipes.recipe import Recipe, load_recipe
from moreseek.recipes.runner import difference, examined
from moreseek.recipes.stages import training_documents

RECIPE = """
[problems]
source = "file"
path = "{folder}/sums.jsonl"
settings = {{ heldout_path = "{folder}/exam.jsonl" }}
[eval]
problems = 2
[[stage]]
name = "base"
method = "pretrain"
steps = 5
documents = [{{ source = "file", path = "{folder}/corpus.txt" }}]
model = {{ hidden_size = 8 }}
[[stage]]
name = "zero"
method = "grpo"
start_from = "base"
steps = 3
[[stage]]
name = "preferred"
method = "preference"
start_from = "zero"
data = "{folder}/pairs.jsonl"
"""


def problem(number: int) -> str:
    return f'{{"prompt": "{number}+1=", "answer": "{number + 1}"}}\n'


def pair(number: int) -> str:
    return f'{{"prompt": "{number}+1=", "chosen": "{number + 1}", "rejected": "{number}"}}\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "sums.jsonl").write_text("".join(map(problem, range(5))))
    (tmp_path / "exam.jsonl").write_text("".join(map(problem, range(5, 8))))
    (tmp_path / "corpus.txt").write_text("1+1=2\n")
    (tmp_path / "pairs.jsonl").write_text("".join(map(pair, range(100, 110))))
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.format(folder=tmp_path))
    return load_recipe(path)


def test_a_sound_recipe_passes(recipe: Recipe) -> None:
    check_inputs(recipe, recipe.stages)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("corpus.txt", "\n\n", "holds no document"),
        ("corpus.txt", None, "no such file"),
        ("sums.jsonl", problem(1) + "{}", r"sums\.jsonl:2: key 'prompt' is missing"),
        ("sums.jsonl", problem(1) + problem(6), "also training problems: '6"),
        ("exam.jsonl", None, r"exam\.jsonl: no such file"),
        ("exam.jsonl", problem(7), "2 problems wanted, 1 found"),
        ("pairs.jsonl", None, r"pairs\.jsonl: no such file"),
        ("pairs.jsonl", "\n", r"pairs\.jsonl: no preference pairs"),
        ("pairs.jsonl", pair(100) + "{}", r"pairs\.jsonl:2: key 'prompt' is missing"),
        ("pairs.jsonl", "".join(map(pair, range(9))), "held-out problems are also training pairs: '"),
    ],
)
def test_a_file_that_a_later_stage_needs_is_read_before_the_first_step(
    file: str, text: str | None, said: str, recipe: Recipe, tmp_path: Path
) -> None:
    (tmp_path / file).unlink()
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=said):
        check_inputs(recipe, recipe.stages)


def test_tasks_that_count_as_never_trained_on_are_not_trained_on(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "other.jsonl").write_text("".join(map(problem, (3, 50))))
    other = f'[{{source="file",path="{tmp_path}/other.jsonl",settings={{all=true}}}}]'
    recipe = load_recipe(recipe.path, [f"eval.unseen={other}", "eval.unseen_problems=2"])
    with pytest.raises(InputError, match=r"also training problems: '3\+1='"):
        check_inputs(recipe, recipe.stages)


@pytest.mark.parametrize("turn", ["6+1=", "Compute 6+1="])
def test_a_conversation_that_asks_what_is_examined_is_no_document(recipe: Recipe, tmp_path: Path, turn: str) -> None:
    lines = [
        {"text": "6+1="},  # a text is what it is
        {"messages": [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]},
        {"messages": [{"role": "user", "content": turn}, {"role": "assistant", "content": "7"}]},
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    chats = f'base.documents=[{{source="file",path="{tmp_path}/chats.jsonl"}}]'
    recipe = load_recipe(recipe.path, [chats, "eval.problems=3", 'eval.prompt_template="Compute {prompt}"'])
    stage = recipe.stage("base")
    with pytest.raises(InputError, match=r"stage 'base'.*held out.*6\+1="):
        list(training_documents(recipe, stage))


def test_pairs_on_a_question_as_the_evaluation_poses_it_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    """So an arena writes them down: with the template around the problem."""
    (tmp_path / "pairs.jsonl").write_text("".join(pair(n).replace(f"{n}+1=", f"Compute {n}+1=") for n in range(9)))
    posed = load_recipe(recipe.path, ["eval.problems=3", 'eval.prompt_template="Compute {prompt}"'])
    with pytest.raises(InputError, match="held-out problems are also training pairs: 'Compute"):
        check_inputs(posed, [posed.stage("preferred")])
    check_inputs(recipe, [recipe.stage("preferred")])


def test_only_the_stages_that_are_still_to_run_are_looked_at(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").unlink()
    check_inputs(recipe, [recipe.stage("zero")])
    check_inputs(recipe, [])


@pytest.mark.parametrize(
    ("greedy", "shown"),
    [({"value": 0.5, "ci_low": 0.25, "ci_high": 0.75}, "50.0% (95 %: 25.0% to 75.0%)"), (None, "unknown")],
)
def test_an_evaluation_is_told_in_a_line_also_where_every_verifier_failed(greedy: object, shown: str) -> None:
    line = examined({"greedy": greedy, "mean_completion_tokens": 3.25}, 4.4)
    assert line == f"held-out accuracy {shown}, 3.2 tokens, evaluated in 4 s"


def test_every_difference_is_shown_old_to_new_with_its_whole_key() -> None:
    old = {"steps": 4, "optimizer": {"lr": 0.1, "name": "muon"}, "rubric": [{"name": "answer"}], "gone": 1}
    new = {"steps": 5, "optimizer": {"lr": 0.1, "name": "adamw"}, "rubric": [{"name": "answer"}, {"name": "x"}]}
    assert difference(old, new) == [
        "gone: 1 → None",
        "optimizer.name: muon → adamw",
        "rubric[1].name: None → x",
        "steps: 4 → 5",
    ]
    assert difference(old, old) == []
