"""What can be seen to be wrong before the first step is looked at before the first step."""

from collections.abc import Iterable

from moreseek.data.documents import iter_documents
from moreseek.errors import InputError
from moreseek.evals.tasks import load_exam
from moreseek.recipes.recipe import Recipe, Stage
from moreseek.recipes.stages import training_pairs, training_problems
from moreseek.rewards.rubric import Rubric
from moreseek.text.prompts import problem_messages
from moreseek.training.settings import GRPOSettings, PreferenceSettings, PretrainSettings


def check_inputs(recipe: Recipe, stages: Iterable[Stage]) -> None:
    """Open every source, import every function and try every verifier that the stages will use.

    Hours may lie between a run's start and its last stage: a file that is missing there must not wait for its turn.
    Raises InputError that names what is wrong.
    """
    evaluates = False
    for stage in stages:
        evaluates = evaluates or stage.evaluate
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
