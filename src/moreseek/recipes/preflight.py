"""What can be seen to be wrong before the first step is looked at before the first step."""

from collections.abc import Iterable, Mapping

from moreseek.data.documents import iter_documents
from moreseek.errors import InputError
from moreseek.evals.run import own_verifiers
from moreseek.evals.tasks import load_exam
from moreseek.model.config import ModelConfig
from moreseek.recipes.recipe import Recipe, Stage
from moreseek.recipes.stages import training_pairs, training_problems
from moreseek.rewards.rubric import Rubric
from moreseek.run_folder import resolve_model
from moreseek.text.prompts import problem_messages
from moreseek.training.settings import GRPOSettings, PreferenceSettings, PretrainSettings


def check_inputs(recipe: Recipe, stages: Iterable[Stage]) -> None:
    """Open every source, import every function and try every verifier that the stages will use.

    Hours may lie between a run's start and its last stage: a file that is missing there must not wait for its turn.
    Raises InputError that names what is wrong.
    """
    evaluates = False
    contexts = _contexts(recipe)
    for stage in stages:
        evaluates = evaluates or stage.evaluate
        _check_lengths(recipe, stage, contexts)
        if isinstance(stage, PretrainSettings):
            for source in stage.documents:
                if next(iter_documents([source], recipe.run.seed), None) is None:
                    raise InputError(f"{recipe.path}: stage '{stage.name}': {source.source} gives no document.")
        elif isinstance(stage, GRPOSettings):
            problems = training_problems(recipe, stage)
            problem_messages(problems[0], stage.system_prompt, stage.prompt_template)
            Rubric(stage.rubric).check(problems)
        elif isinstance(stage, PreferenceSettings):
            training_pairs(recipe, stage)
    if evaluates and recipe.eval is not None and recipe.problems is not None:
        exam = load_exam(recipe.problems, recipe.eval)
        problem_messages(exam.main[0], recipe.eval.system_prompt, recipe.eval.prompt_template)
        own_verifiers().check(exam.main)


def _contexts(recipe: Recipe) -> Mapping[str, int]:
    """The longest context of every stage's model, in tokens, where the recipe or a config.json tells it."""
    found: dict[str, int] = {}
    for stage in recipe.stages:
        if stage.start_from in found:
            found[stage.name] = found[stage.start_from]
        elif stage.start_from is not None:
            folder = resolve_model(stage.start_from) if stage.start_from not in _names(recipe) else None
            if folder is not None and (folder / "config.json").is_file():
                found[stage.name] = ModelConfig.load(folder).max_position_embeddings
        elif isinstance(stage, PretrainSettings):
            context = (stage.model or {}).get("max_position_embeddings")
            if isinstance(context, int):  # anything else is told by the stage; without it there is room
                found[stage.name] = context
    return found


def _names(recipe: Recipe) -> list[str]:
    return [stage.name for stage in recipe.stages]


def _check_lengths(recipe: Recipe, stage: Stage, contexts: Mapping[str, int]) -> None:
    """Raise InputError where a completion could not fit the model's context beside any prompt."""
    wanted: dict[str, int] = {}
    if stage.evaluate and recipe.eval is not None:
        wanted["[eval]"] = recipe.eval.max_completion_tokens
    if isinstance(stage, GRPOSettings):
        wanted[f"stage '{stage.name}'"] = stage.max_completion_tokens
    context = contexts.get(stage.name)
    for where, tokens in wanted.items():
        if context is not None and tokens >= context:
            raise InputError(
                f"{recipe.path}: {where}: max_completion_tokens = {tokens} leaves no room for a prompt in the context "
                f"of stage '{stage.name}', {context} tokens (max_position_embeddings). Lower it."
            )
