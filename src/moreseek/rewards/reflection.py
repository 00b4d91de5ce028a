"""Words that mark a second look: R1-Zero's "aha moment" is seen in how often they are used."""

import re

WORDS = ("wait", "mistake", "however", "but", "retry", "error", "verify", "wrong", "evaluate", "check")
_PATTERN = re.compile(rf"\b(?:{'|'.join(WORDS)})\b", re.IGNORECASE)


def reflection_words(text: str) -> int:
    """How many reflective words a text holds (the list of DeepSeek-R1's paper)."""
    return len(_PATTERN.findall(text))
