"""The prompt of a chat: its turns and tools under the model's template, and passages of documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moreseek.engine.llm import LLM
from moreseek.server import tools
from moreseek.server.documents.library import Documents
from moreseek.server.documents.passages import Passage
from moreseek.server.documents.quoting import sources, with_passages
from moreseek.server.errors import RefusedError
from moreseek.server.requests import ChatRequest, Retrieval
from moreseek.text.chat import ToolTurn, encode_chat


def prompt_of(
    asked: ChatRequest, llm: LLM, offered: list[tools.Tool], documents: Documents | None
) -> tuple[list[int], dict[str, Any]]:
    """Token ids, and what the answer tells of it: its ``sources``, where documents were looked into.

    It tokenises and searches, so it is not for the event loop. Raises RefusedError, and InputError as templates do.
    """
    turns = [message.turn() for message in asked.messages]
    if asked.continue_final_message:
        _check_unfinished(turns[-1])
    plain = _encoded(turns, asked, llm, offered)
    if documents is None and asked.retrieval:
        raise RefusedError(400, "retrieval: this model is served without documents.", param="retrieval")
    if documents is None or asked.retrieval is False:
        return plain, {}
    place = max((place for place, turn in enumerate(turns) if turn.role == "user"), default=None)
    free = llm.engine.context - len(plain)
    if place is None or free <= 0:
        return plain, {"sources": []}
    # Passages take at most half of what the user's own text leaves, and nothing of what the answer was promised.
    most = len(plain) + min(free // 2, free - (asked.max_tokens or 0))
    found = _found(documents, turns, place, asked)
    while found:
        quoted = turns[place].model_copy(update={"content": with_passages(turns[place].content, found)})
        ids = _encoded([*turns[:place], quoted, *turns[place + 1 :]], asked, llm, offered)
        if len(ids) <= most:
            return ids, {"sources": sources(found)}
        found = found[:-1]
    return plain, {"sources": []}


def _found(documents: Documents, turns: Sequence[ToolTurn], place: int, asked: ChatRequest) -> list[Passage]:
    """For the last question; for one that finds nothing ("and why?") together with the one before it."""
    wanted = asked.retrieval if isinstance(asked.retrieval, Retrieval) else Retrieval()
    question = turns[place].content
    found = documents.search(question, wanted.k, wanted.files or ())
    before = [turn.content for turn in turns[:place] if turn.role == "user"]
    if found or not before:
        return found
    return documents.search(f"{before[-1]}\n{question}", wanted.k, wanted.files or ())


def _encoded(turns: Sequence[ToolTurn], asked: ChatRequest, llm: LLM, offered: list[tools.Tool]) -> list[int]:
    """Token ids of the chat, with the tools as its template or ours shows them."""
    told, more = turns, {}
    if not tools.knows_tools(llm.tokenizer):
        told = tools.as_text(turns, offered)
    elif offered:
        more = {"tools": [tools.dump(tool) for tool in offered]}
    return encode_chat(
        llm.tokenizer, told, add_generation_prompt=True, continue_final_message=asked.continue_final_message,
        **asked.switch, **more,
    )  # fmt: skip


def _check_unfinished(turn: ToolTurn) -> None:
    if turn.role != "assistant" or turn.tool_calls or not (turn.content or turn.reasoning_content):
        raise RefusedError(
            400, "continue_final_message: the last message has to be an assistant's with a text and no calls.",
            param="continue_final_message",
        )  # fmt: skip
