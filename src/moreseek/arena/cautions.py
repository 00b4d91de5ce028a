"""What a board warns of: sentences that also know their parts, so that a page can say them in another language."""

from typing import Any

TEXTS = {
    "no_votes": "There are no votes: every rating is the prior's.",
    "self_battles": "{battles} battles of a contestant with itself were left out.",
    "few_clusters": "Only {clusters} clusters by {by}: the intervals use Student's t with {df} degrees of freedom, and "
    "are still rough.",
    "apart": "The win graph is not strongly connected: {components} components {named}. Ratings across components rest "
    "on a prior (one virtual half-win and half-loss each), not on votes.",
    "from_counts": "Intervals take votes as independent: above {most:,} votes this board comes from counts alone.",
}  # fmt: skip


class Caution(str):
    """The sentence in English; ``code`` and ``parts`` are what it was made of."""

    code: str
    parts: dict[str, Any]

    def __new__(cls, code: str, **parts: Any) -> "Caution":
        """One of TEXTS, with its parts."""
        made = super().__new__(cls, TEXTS[code].format(**parts))
        made.code, made.parts = code, parts
        return made
