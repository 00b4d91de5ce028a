"""Calling a source that settings name as ``package.module:function``, with errors that name the key at fault."""

import inspect
from collections.abc import Mapping
from typing import Any

from moreseek.config import did_you_mean, import_name
from moreseek.errors import InputError


def call_source(name: str, settings: Mapping[str, Any], **arguments: Any) -> Any:
    """Call the named function with ``arguments`` and the source's own settings.

    Raises InputError where the name leads nowhere or a setting is not one of the function's parameters.
    """
    function = import_name(name)
    values = {**arguments, **settings}
    signature = inspect.signature(function)
    try:
        signature.bind(**values)
    except TypeError as error:
        known = [key for key, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD and key not in arguments]
        unknown = [key for key in settings if key not in signature.parameters]
        hint = f": setting '{unknown[0]}'{did_you_mean(unknown[0], known)}" if unknown else f" ({error})."
        raise InputError(f"{name}: cannot be called with these settings{hint}") from error
    return function(**values)
