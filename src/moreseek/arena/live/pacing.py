"""Two answers shown in step, so that nothing but their text tells which contestant is slow, or thinks."""

import asyncio
from collections.abc import AsyncIterator

from moreseek.arena.live.endpoint import Reply

TICK_S = 0.05


async def in_step(
    replies: tuple[Reply, Reply], characters_per_s: float, held: bool
) -> AsyncIterator[tuple[str, str] | None]:
    """What to add to each side, tick by tick, until both are whole; None for a tick without anything new.

    Both sides advance by the same number of characters, the one that has fewer setting the pace, until one is whole.
    ``held``: nothing before both are whole, then all at once.
    """
    step = max(1, round(characters_per_s * TICK_S))
    shown = 0
    while True:
        texts = replies[0].text, replies[1].text
        both = replies[0].ended and replies[1].ended
        if held:
            if both:
                yield texts
                return
            yield None
        else:
            ready = min(_reach(reply, text) for reply, text in zip(replies, texts, strict=True))
            until = min(shown + step, ready, max(map(len, texts)))
            if until > shown:
                yield texts[0][shown:until], texts[1][shown:until]
                shown = until
            elif both:
                return
            else:
                yield None
        await asyncio.sleep(TICK_S)


def _reach(reply: Reply, text: str) -> int:
    """How far a side may be shown: as far as it is, or without limit once nothing more comes."""
    return 1 << 62 if reply.ended else len(text)
