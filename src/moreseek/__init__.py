"""moreseek: make a reasoning model of your own, serve it, and show honestly how good it is.

``import moreseek`` is light: torch is imported only when a name that needs it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from moreseek.imports import collector_at_rest

__version__ = "0.1.0"

_LAZY = {
    "load_model": "moreseek.model.weights",
    "save_model": "moreseek.model.weights",
    "LLM": "moreseek.engine.llm",
    "SamplingParams": "moreseek.engine.sampling",
}

if TYPE_CHECKING:
    from moreseek import arena as arena
    from moreseek.engine.llm import LLM as LLM
    from moreseek.engine.sampling import SamplingParams as SamplingParams
    from moreseek.model.weights import load_model as load_model
    from moreseek.model.weights import save_model as save_model

__all__ = ["LLM", "SamplingParams", "__version__", "arena", "load_model", "save_model"]


def __getattr__(name: str) -> Any:
    if name == "arena":
        return importlib.import_module("moreseek.arena")
    if name in _LAZY:
        with collector_at_rest():
            module = importlib.import_module(_LAZY[name])
        globals()[name] = found = getattr(module, name)  # asked for once
        return found
    raise AttributeError(f"module 'moreseek' has no attribute '{name}'")
