"""arena.toml: who fights, and the rules of the house."""

import ipaddress
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from moreseek.arena.live.contestants import NAME, Contestant, LLMJudge
from moreseek.config import Settings, parse, read_toml
from moreseek.data.problems import ProblemSource
from moreseek.errors import InputError

VERIFIER = "verifier"
"""The judge that needs no table: each problem's own verifier."""


class House(Settings):
    """The rules of the house."""

    title: str = Field("Arena", max_length=80, description="on every page")
    database: str = Field("arena.sqlite", description="a file beside arena.toml, or a postgresql:// URL")
    categories: tuple[str, ...] = Field(
        ("other",), description="a voter picks one, the first by default; none given: other"
    )
    suggestions: tuple[str, ...] = Field((), description="questions to start from, for every category")
    category_suggestions: dict[str, tuple[str, ...]] = Field(
        {}, description="questions to start from, by category; one at random is offered too"
    )
    modes: tuple[Literal["blind", "named", "direct"], ...] = Field(
        ("blind", "named", "direct"), description="what the page offers; only blind battles have a vote"
    )
    tags: tuple[str, ...] = Field(
        ("correct", "clear", "concise", "well written", "wrong", "hard to follow"),
        description="what a voter may tick beside the vote",
    )
    max_turns: int = Field(8, ge=1, description="questions in one battle or chat")
    content_filter: str = Field(
        "", description="`package.module:function`, or the URL of a hook, that sees each question before the models do"
    )
    internal_endpoints: tuple[str, ...] = Field(
        (), description="host:port inside this network that contestants entered on the admin page may have"
    )
    across_classes: float = Field(0.0, ge=0, le=1, description="share of battles between a base and a reasoning model")
    floor: float = Field(
        0.2, gt=0, le=1, description="share of battles drawn evenly, so that every pair keeps a chance"
    )
    overlap: float = Field(0.0, ge=0, le=1, description="share of known questions with answers that others were shown")
    vote_window_s: float = Field(3600, gt=0, description="how long after the answers a vote counts")
    undo_s: float = Field(60, ge=0, description="how long a vote can be taken back")
    min_votes: int = Field(30, ge=1, description="votes before a contestant gets a rank")
    rated_votes_a_day: int = Field(100, ge=1, description="of one voter; later ones are kept apart")
    rated_votes_a_day_per_address: int = Field(300, ge=1, description="new cookies do not help")
    characters_per_s: float = Field(300, gt=0, description="how fast both answers are shown")
    answer_timeout_s: float = Field(180, gt=0, description="longest time for an answer")
    silence_s: float = Field(60, gt=0, description="longest time without a byte from a contestant")
    pause_s: float = Field(60, gt=0, description="how long a contestant rests after a failure; doubles up to an hour")
    max_prompt_characters: int = Field(8000, ge=1, description="longest question")
    max_answer_characters: int = Field(60_000, ge=1, description="thinking included; a longer one is a failure")
    battles_a_minute: int = Field(6, ge=1, description="of one voter")
    battles_a_minute_per_address: int = Field(30, ge=1, description="of all voters behind one address")
    battles_at_once: int = Field(32, ge=1, description="in one server process")
    trusted_proxies: tuple[str, ...] = Field((), description="addresses whose X-Forwarded-For is believed")

    @field_validator("categories")
    @classmethod
    def _some(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names or any(not NAME.fullmatch(name) or len(name) > 40 for name in names):
            raise ValueError("at least one category is needed, each with 1 to 40 visible characters")
        return tuple(dict.fromkeys(names))

    @field_validator("tags")
    @classmethod
    def _short(cls, tags: tuple[str, ...]) -> tuple[str, ...]:
        if any(not NAME.fullmatch(tag) or len(tag) > 40 for tag in tags):
            raise ValueError("a tag has 1 to 40 visible characters")
        return tuple(dict.fromkeys(tags))

    @field_validator("modes")
    @classmethod
    def _any(cls, modes: tuple[str, ...]) -> tuple[str, ...]:
        if not modes:
            raise ValueError("at least one mode is needed")
        return tuple(dict.fromkeys(modes))

    @model_validator(mode="after")
    def _has_its_categories(self) -> "House":
        unknown = sorted(set(self.category_suggestions) - set(self.categories))
        if unknown:
            raise ValueError(f"category_suggestions names '{unknown[0]}', which is no category")
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _addresses(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for one in given:
            ipaddress.ip_network(one, strict=False)
        return given


class ArenaSettings(Settings):
    """A whole arena.toml."""

    arena: House = House.model_validate({})
    contestant: tuple[Contestant, ...] = ()
    judge: tuple[LLMJudge, ...] = ()
    problems: ProblemSource | None = None

    @model_validator(mode="after")
    def _are_apart(self) -> "ArenaSettings":
        names = [one.name.casefold() for one in self.contestant]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two contestants are called '{twice[0]}'")
        judges = [one.name for one in self.judge]
        if VERIFIER in judges or len(set(judges)) < len(judges):
            raise ValueError(f"judges need names of their own, and '{VERIFIER}' is taken")
        return self


def load_arena(path: Path) -> ArenaSettings:
    """Read arena.toml. Raises InputError that lists every mistake; a database file is beside the TOML."""
    if not path.is_file():
        raise InputError(f"{path}: no such file. examples/arena.toml is one to start from.")
    settings = parse(ArenaSettings, read_toml(path), str(path))
    for one in settings.contestant:
        if one.api_key_env and not one.api_key and not one.withdrawn:
            raise InputError(f"{path}: contestant '{one.name}': the variable {one.api_key_env} is not set.")
    return _beside(settings, path.parent)


def _beside(settings: ArenaSettings, folder: Path) -> ArenaSettings:
    """The same with every path taken from arena.toml's folder."""

    def moved(table: Settings, *keys: str) -> Any:
        given = {key: getattr(table, key) for key in keys if getattr(table, key)}
        outside = {key: value for key, value in given.items() if "://" in value or value.startswith("package:")}
        return table.model_copy(update={key: str(folder / value) for key, value in given.items() if key not in outside})

    update: dict[str, Any] = {
        "arena": moved(settings.arena, "database"),
        "contestant": tuple(moved(one, "run", "path") for one in settings.contestant),
        "judge": tuple(moved(one, "prompt") for one in settings.judge),
    }
    if settings.problems is not None:
        update["problems"] = moved(settings.problems, "path")
    return settings.model_copy(update=update)
