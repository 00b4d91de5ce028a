"""The records that move between parts, and JSONL reading that names the file and the line."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from moreseek.config import did_you_mean, explain
from moreseek.errors import InputError

Record = TypeVar("Record", bound=BaseModel)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Message(_Frozen):
    """One turn of a conversation. ``reasoning_content`` is the thinking of an assistant turn."""

    role: Literal["system", "user", "assistant"]
    content: str
    reasoning_content: str | None = None


class Conversation(_Frozen):
    """A list of turns; a document source may yield it in place of plain text."""

    messages: tuple[Message, ...]


class Problem(_Frozen):
    """A question whose answer a verifier can check: one line of a problem file.

    ``verifier`` names the scorer as ``package.module:function``. ``tags`` are for slicing results
    (``difficulty`` is the one that reports use); ``metadata`` is for the verifier alone.
    """

    prompt: str = Field(min_length=1)
    answer: str
    verifier: str = "moreseek.rewards.answer:number"
    tags: dict[str, str | int | float | bool] = {}
    metadata: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """A stable name: the hash of prompt and answer."""
        return hashlib.sha256(f"{self.prompt}\0{self.answer}".encode("utf-8", "surrogatepass")).hexdigest()[:16]


class VoteCount(_Frozen):
    """How people judged one pair of answers."""

    for_: int = Field(alias="for", ge=0)
    against: int = Field(0, ge=0)
    neither: int = Field(0, ge=0)


class Preference(_Frozen):
    """Two answers to a prompt, of which one was preferred: one line of a file of preference pairs.

    In a file ``prompt`` is a text or a list of turns that ends with the user's, and ``chosen`` and ``rejected`` are
    texts or a list of the one assistant turn. ``…_reasoning`` is the thinking before an answer; ``…_truncated`` says
    that it was cut at a token limit, so that its end was not the model's choice. ``battle``, ``judge``, ``category``
    and ``language`` say where a pair is from.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_reasoning: str | None = None
    rejected_reasoning: str | None = None
    chosen_truncated: bool = False
    rejected_truncated: bool = False
    votes: VoteCount | None = None
    category: str | None = None
    language: str | None = None
    battle: str | None = None
    judge: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_turns(cls, line: Any) -> Any:
        if not isinstance(line, dict):
            return line
        return {**line, **_answer(line, "chosen"), **_answer(line, "rejected")}

    @field_validator("prompt", mode="before")
    @classmethod
    def _as_turns(cls, prompt: Any) -> Any:
        return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt

    @field_validator("prompt")
    @classmethod
    def _is_a_question(cls, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
        if not prompt or prompt[-1].role != "user" or not prompt[-1].content:
            raise ValueError("a prompt is a text that is not empty, or turns of which the last one is the user's")
        return prompt

    @model_validator(mode="after")
    def _is_decided(self) -> "Preference":
        if (self.chosen, self.chosen_reasoning or "") == (self.rejected, self.rejected_reasoning or ""):
            raise ValueError("chosen and rejected are the same, so nothing is preferred")
        for side in ("chosen", "rejected"):
            turn, truncated = self.answer(side)
            if truncated and not turn.content and not turn.reasoning_content:
                raise ValueError(f"{side} was cut before it said anything, so there is nothing to learn from")
        if self.votes is not None and self.votes.for_ <= self.votes.against:
            raise ValueError("votes: more of them must be for the chosen answer than against it")
        return self

    @property
    def question(self) -> str:
        """All that the user said: by it a pair is trained on or held out."""
        return "\n".join(turn.content for turn in self.prompt if turn.role == "user")

    @property
    def agreement(self) -> float:
        """(for − against) / all of its votes, in (0, 1]; 1 where no votes are told."""
        votes = self.votes
        return 1.0 if votes is None else (votes.for_ - votes.against) / (votes.for_ + votes.against + votes.neither)

    def answer(self, side: Literal["chosen", "rejected"]) -> tuple[Message, bool]:
        """An answer as a turn, and whether it was cut at a token limit."""
        reasoning, truncated = getattr(self, f"{side}_reasoning"), getattr(self, f"{side}_truncated")
        return Message(role="assistant", content=getattr(self, side), reasoning_content=reasoning), truncated


def _answer(line: dict[str, Any], side: str) -> dict[str, Any]:
    """The keys of an answer that is written as a list of turns. Raises ValueError unless it is one assistant turn."""
    turns = line.get(side)
    if not isinstance(turns, list):
        return {}
    only = turns[0] if len(turns) == 1 else None
    if not isinstance(only, dict) or only.get("role") != "assistant" or f"{side}_reasoning" in line:
        raise ValueError(f"{side} is the answer's text, or a list of one assistant turn; earlier turns go into prompt")
    keys = ("role", "content", "reasoning_content")
    if unknown := [key for key in only if key not in keys]:
        raise ValueError(f"{side}: unknown key '{unknown[0]}'{did_you_mean(unknown[0], keys)}")
    return {side: only.get("content"), f"{side}_reasoning": only.get("reasoning_content")}


def read_jsonl(path: Path | str, record: type[Record]) -> Iterator[Record]:
    """Yield one checked record a line.

    Blank lines and a UTF-8 byte-order mark are skipped. Raises InputError that names file, line and field.
    """
    return (found for _, found in read_numbered(path, record))


def read_numbered(path: Path | str, record: type[Record]) -> Iterator[tuple[int, Record]]:
    """The same, each with the number of its line, from 1."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: a folder; a file of one JSON object a line is needed.")
    if not path.is_file():
        raise InputError(f"{path}: no such file. Check the path in the recipe or on the command line.")
    with path.open("rb") as lines:
        for number, raw in enumerate(lines, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise InputError(f"{path}:{number}: not UTF-8 ({error.reason}). Save the file as UTF-8.") from error
            if text:
                yield number, _parse_line(text, record, f"{path}:{number}")


def _parse_line(text: str, record: type[Record], where: str) -> Record:
    try:
        value = json.loads(text)
        text.encode("utf-8")
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: holds half of a character (a lone surrogate). Re-encode that line.") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not a JSON object on one line ({error.msg}, column {error.colno}).") from error
    except RecursionError as error:
        raise InputError(f"{where}: not a JSON object on one line ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f'{where}: a JSON object such as {{"prompt": …}} is needed, found {type(value).__name__}.')
    try:
        return record.model_validate(value)
    except ValidationError as error:
        # A misspelt key makes two errors, of which the other one, that the right key is missing, says less.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise InputError(explain(record, first, where)) from error


def write_jsonl(path: Path | str, records: Iterable[BaseModel]) -> int:
    """Write one record a line and return how many."""
    count = 0
    with Path(path).open("w", encoding="utf-8") as out:
        for item in records:
            out.write(item.model_dump_json(exclude_defaults=True) + "\n")
            count += 1
    return count
