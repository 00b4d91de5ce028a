"""From a request's bytes to its fields. Unknown fields are ignored, as by others, and said in the log once."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from moreseek.server.errors import RefusedError

LOG = logging.getLogger("moreseek.server")
MOST_NOTED, LONGEST_NOTED = 200, 60  # names of unknown fields in the log, and characters of one
KINDS = ("str", "int", "float", "bool")
Kind = TypeVar("Kind", bound=BaseModel)
Item = TypeVar("Item")


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Limits stand inside the types: so the OpenAPI document has them too. An integer may be written 2.0: to JSON it is 2.
WHOLE = BeforeValidator(_whole)
Whole = Annotated[int, WHOLE]
Positive = Annotated[int, Field(ge=1), WHOLE]
Id = Annotated[int, Field(ge=0), WHOLE]
Few = Annotated[int, Field(ge=0, le=20), WHOLE]
Name = Annotated[str, Field(min_length=1)]
Some = Annotated[list[Item], Field(min_length=1)]


class Lenient(BaseModel):
    """What a client sent: the fields that we know, of exactly their types."""

    model_config = ConfigDict(extra="ignore", strict=True)


class Body(Lenient):
    """A whole request. What else is in it is kept only so that the log can name it."""

    model_config = ConfigDict(extra="allow")


def parse(kind: type[Kind], raw: bytes) -> Kind:
    """A request from its JSON. Raises RefusedError, which names the field."""
    try:
        found = kind.model_validate_json(raw)
        _note(kind, found.model_extra or ())
        return found
    except ValidationError as error:
        raise refusal(error) from None
    except (RecursionError, UnicodeDecodeError, json.JSONDecodeError):
        raise RefusedError(400, "the body is not valid JSON.", "invalid_value") from None


_noted: set[tuple[str, str]] = set()


def _note(kind: type[BaseModel], unknown: Iterable[str]) -> None:
    """Each unknown field once: a client may send it with every request, a hostile one may invent names for ever."""
    for name in unknown:
        one = (kind.__name__, name[:LONGEST_NOTED])
        if one not in _noted and len(_noted) < MOST_NOTED:
            _noted.add(one)
            LOG.info("%s: the field %r is not known here and is ignored", *one)


def refusal(error: ValidationError) -> RefusedError:
    """What is wrong, and in which field. Of a field that may be of several kinds, what is wrong with the nearest."""
    found = error.errors(include_url=False, include_input=False)
    first = max((one for one in found if one["loc"][:1] == found[0]["loc"][:1]), key=_nearness)
    where = _where(first["loc"])
    what = "the body is not valid JSON" if first["type"] == "json_invalid" else f"{where}: {first['msg']}"
    return RefusedError(400, f"{what}.", "invalid_value", where or None)


def _nearness(error: ErrorDetails) -> tuple[int, bool]:
    """How much of a kind's shape was right: how deep the error lies, and whether the type at least is right."""
    return _where(error["loc"]).count("."), not error["type"].endswith("_type")


def _where(places: Sequence[int | str]) -> str:
    """The place in the request, without pydantic's names of the kinds that a field may be of."""
    kinds = {place for place in places if isinstance(place, str) and (place in KINDS or not place.isidentifier())}
    return ".".join(str(place) for place in places if place not in kinds and not str(place)[:1].isupper())
