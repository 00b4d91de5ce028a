"""The records that move between parts, and JSONL reading that names the file and the line."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

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


def read_jsonl(path: Path | str, record: type[Record]) -> Iterator[Record]:
    """Yield one checked record a line.

    Blank lines and a UTF-8 byte-order mark are skipped. Raises InputError that names file, line and field.
    """
    return (found for _, found in read_numbered(path, record))


def read_numbered(path: Path | str, record: type[Record]) -> Iterator[tuple[int, Record]]:
    """The same, each with the number of its line, from 1."""
    path = Path(path)
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
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{where}: not a JSON object on one line ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f'{where}: a JSON object such as {{"prompt": …}} is needed, found {type(value).__name__}.')
    try:
        return record.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or record.__name__
        raise InputError(f"{where}: {field}: {first['msg']}.") from error


def write_jsonl(path: Path | str, records: Iterable[BaseModel]) -> int:
    """Write one record a line and return how many."""
    count = 0
    with Path(path).open("w", encoding="utf-8") as out:
        for item in records:
            out.write(item.model_dump_json(exclude_defaults=True) + "\n")
            count += 1
    return count
