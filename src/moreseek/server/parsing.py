"""From a request's bytes to its fields. Unknown fields are ignored, as by others."""

from __future__ import annotations

import json
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from moreseek.server.errors import RefusedError

Kind = TypeVar("Kind", bound=BaseModel)


class Lenient(BaseModel):
    """What a client sent: the fields that we know, of exactly their types."""

    model_config = ConfigDict(extra="ignore", strict=True)


def parse(kind: type[Kind], raw: bytes) -> Kind:
    """A request from its JSON. Raises RefusedError, which names the field."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        raise refusal(error) from None
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        raise RefusedError(400, "the body is not valid JSON.", "invalid_value") from None


def refusal(error: ValidationError) -> RefusedError:
    """What is wrong, and in which field. Of a field that may be of several kinds, what is wrong with the nearest."""
    found = error.errors(include_url=False, include_input=False)
    first = max((one for one in found if one["loc"][:1] == found[0]["loc"][:1]), key=lambda one: len(one["loc"]))
    where = ".".join(str(part) for part in first["loc"] if not _is_kind(part))
    what = "the body is not valid JSON" if first["type"] == "json_invalid" else f"{where}: {first['msg']}"
    return RefusedError(400, f"{what}.", "invalid_value", where or None)


def _is_kind(part: int | str) -> bool:
    """Whether it is pydantic's name of one of the kinds that a field may be of."""
    return isinstance(part, str) and (part == "str" or "[" in part or part[:1].isupper())
