"""Preference pairs as token ids: what the preference method trains on."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from moreseek.data.preferences import PreferenceSplit
from moreseek.errors import InputError
from moreseek.records import Message, Preference
from moreseek.text.chat import encode_reply
from moreseek.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Answer:
    """A prompt and one answer to it."""

    prompt_ids: list[int]
    completion_ids: list[int]


@dataclass(frozen=True)
class EncodedPair:
    """Two answers to one prompt."""

    chosen: Answer
    rejected: Answer
    agreement: float  # of those who voted, in (0, 1]

    @property
    def sides(self) -> tuple[Answer, Answer]:
        return self.chosen, self.rejected

    @property
    def longest(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return max(len(side.prompt_ids) + len(side.completion_ids) for side in self.sides)

    @property
    def tokens(self) -> int:
        """Tokens of both texts, the prompt in each."""
        return sum(len(side.prompt_ids) + len(side.completion_ids) for side in self.sides)


@dataclass(frozen=True)
class EncodedPairs:
    """The pairs of a stage; ``too_long`` are those that were left out."""

    train: list[EncodedPair]
    heldout: list[EncodedPair]
    too_long: int

    @cached_property
    def digest(self) -> str:
        """Changes with any token of any pair, and with their order."""
        total = hashlib.sha256()
        for part in (self.train, self.heldout):
            for pair in part:
                ids = [[side.prompt_ids, side.completion_ids] for side in pair.sides]
                total.update(f"{ids}\n".encode())
            total.update(b"\0")
        return total.hexdigest()


def encode_pairs(
    tokenizer: Tokenizer, pairs: PreferenceSplit, most_tokens: int, system_prompt: str | None = None
) -> EncodedPairs:
    """Token ids of all pairs whose prompt and answers have at most ``most_tokens``; longer ones are counted, not cut.

    ``system_prompt`` goes before prompts that have no system turn. Raises InputError where no pair is short enough,
    or the chat template refuses a pair's turns.
    """
    encoded = [[_encode(tokenizer, pair, system_prompt) for pair in side] for side in (pairs.train, pairs.heldout)]
    train, heldout = ([pair for pair in side if pair.longest <= most_tokens] for side in encoded)
    if not train:
        shortest = min(pair.longest for pair in encoded[0])
        raise InputError(
            f"all {len(encoded[0])} pairs to train on are longer than {most_tokens} tokens (the shortest has "
            f"{shortest}): raise sequence_length, up to the model's context."
        )
    return EncodedPairs(train, heldout, sum(map(len, encoded)) - len(train) - len(heldout))


def _encode(tokenizer: Tokenizer, pair: Preference, system_prompt: str | None) -> EncodedPair:
    turns = list(pair.prompt)
    if system_prompt and turns[0].role != "system":
        turns.insert(0, Message(role="system", content=system_prompt))
    try:
        sides = [Answer(*encode_reply(tokenizer, turns, *pair.answer(side))) for side in ("chosen", "rejected")]
    except InputError as error:  # the template refuses turns that another one takes
        raise InputError(f"the pair on {pair.question[:80]!r}: {error}") from error
    return EncodedPair(sides[0], sides[1], pair.agreement)
