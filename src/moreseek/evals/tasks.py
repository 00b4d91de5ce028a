"""What is evaluated: the settings of an evaluation, and the held-out problems they ask for."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from moreseek.config import Settings
from moreseek.data.problems import ProblemSource, load_problems
from moreseek.records import Problem
from moreseek.text.prompts import PLACEHOLDER


class EvalSettings(Settings):
    """How a model is examined. The same settings and seed pose the same problems to every stage.

    Sampling is at temperature 1 and top_p 1, so that pass@k describes the distribution that RL trained;
    DeepSeek-R1's tables use 0.6 and 0.95.
    """

    problems: int = Field(default=500, ge=1)
    k: int = Field(default=16, ge=1)
    """Sampled completions a problem, for pass@1, pass@k and cons@k."""
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_completion_tokens: int = Field(default=512, ge=1)
    seed: int = 0
    longer: ProblemSource | None = None
    """Problems longer than pretraining ever showed."""
    longer_problems: int = Field(default=200, ge=1)
    longer_k: int | None = Field(default=None, ge=1)
    """Samples a problem there; ``k`` when not given."""
    unseen: tuple[ProblemSource, ...] = ()
    """Tasks never trained on, answered greedily."""
    unseen_problems: int = Field(default=100, ge=1)
    samples: int = Field(default=12, ge=0)
    """Greedy completions kept in the report, spread over the difficulties."""
    max_verifier_errors: float = Field(default=0.05, ge=0, le=1)
    """Share of completions whose verifier may fail before the evaluation is stopped as a fault."""
    system_prompt: str | None = None
    prompt_template: str = PLACEHOLDER


@dataclass(frozen=True, slots=True)
class Exam:
    """The problems of one evaluation."""

    main: Sequence[Problem]
    longer: Sequence[Problem] | None
    unseen: dict[str, Sequence[Problem]]


def load_exam(source: ProblemSource, settings: EvalSettings) -> Exam:
    """Load the held-out problems. Raises InputError when a source is missing or holds too few."""

    def heldout(where: ProblemSource, count: int) -> list[Problem]:
        return load_problems(where, count, "heldout", settings.seed)

    unseen: dict[str, Sequence[Problem]] = {}
    for where in settings.unseen:
        unseen[_free_name(task_name(where), unseen)] = heldout(where, settings.unseen_problems)
    return Exam(
        main=heldout(source, settings.problems),
        longer=heldout(settings.longer, settings.longer_problems) if settings.longer else None,
        unseen=unseen,
    )


def task_name(source: ProblemSource) -> str:
    """A short name for a source: the reasoning-gym task, the file, or the function."""
    if source.source == "file":
        return str(source.path)
    return source.source.removeprefix("reasoning-gym:")


def difficulty(problem: Problem) -> str | None:
    """The difficulty tag as text, or None for a problem that has none."""
    tag = problem.tags.get("difficulty")
    return None if tag is None else f"{tag:g}" if isinstance(tag, float) else str(tag)


def difficulty_order(label: str) -> tuple[int, float, str]:
    """Sort key: numeric difficulties by size, before named ones."""
    try:
        return (0, float(label), label)
    except ValueError:
        return (1, 0.0, label)


def spread(problems: Sequence[Problem], count: int) -> list[int]:
    """Indices of ``count`` problems spread evenly over the difficulties: the same ones for every model."""

    def key(index: int) -> tuple[tuple[int, float, str], int]:
        return (difficulty_order(difficulty(problems[index]) or ""), index)

    order = sorted(range(len(problems)), key=key)
    count = min(count, len(order))
    return [order[(2 * place + 1) * len(order) // (2 * count)] for place in range(count)]


def _free_name(name: str, taken: dict[str, Sequence[Problem]]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name} #{number}", number + 1
    return free
