"""How to sample, and what comes back. No torch in here."""

from dataclasses import dataclass, field
from typing import Literal

from moreseek.errors import InputError


@dataclass(frozen=True)
class SamplingParams:
    """Settings of one request.

    ``temperature`` 0 is greedy. ``top_k`` 0 and ``top_p`` 1 switch those off. The same ``seed`` gives the same
    text whatever else is in the batch. Raises InputError for a value outside its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    seed: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= 100:
            raise InputError(f"temperature {self.temperature} must be between 0 (greedy) and 100.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p {self.top_p} must be above 0 and at most 1.")
        if self.top_k < 0:
            raise InputError(f"top_k {self.top_k} must be 0 (off) or more.")
        if self.max_tokens < 1:
            raise InputError(f"max_tokens {self.max_tokens} must be at least 1.")


@dataclass
class Completion:
    """What the model wrote after one prompt. ``logprobs`` are of the distribution that was sampled from."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish_reason: Literal["stop", "length"] = "length"
    text: str = ""
