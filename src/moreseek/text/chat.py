"""Chats as token ids, and the thinking of an answer told apart from the answer."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from moreseek.errors import InputError
from moreseek.records import Conversation, Message
from moreseek.text.template import DEFAULT_TEMPLATE, ChatTemplate, render_default

if TYPE_CHECKING:
    from moreseek.text.tokenizer import Tokenizer

__all__ = [
    "DEFAULT_TEMPLATE",
    "ChatTemplate",
    "ToolTurn",
    "encode_chat",
    "encode_conversations",
    "encode_reply",
    "opens_thinking",
    "render_chat",
    "split_thinking",
]

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"

# A text that holds control strings is rendered as a mark and encoded apart. The marks are private-use
# characters; a text that holds one itself is encoded apart too, so nobody can forge a mark.
_MARK = re.compile("\ue000([0-9]+)\ue001")


class ToolTurn(Message):
    """A turn of a chat with tools, as templates that know tools read it.

    ``tool_calls``: those that an assistant made, with their arguments as objects; the turn "tool" is the result of one.
    """

    role: Literal["system", "user", "assistant", "tool"]  # pyright: ignore[reportIncompatibleVariableOverride]
    tool_calls: tuple[dict[str, Any], ...] | None = None
    tool_call_id: str | None = None
    name: str | None = None


def render_chat(
    tokenizer: "Tokenizer", messages: Sequence[Message], *, add_generation_prompt: bool = False, **variables: Any
) -> str:
    """The text of a chat under the tokenizer's template. For reading; models are fed by encode_chat.

    Raises InputError where the tokenizer has no template or the template refuses the messages.
    """
    source = tokenizer.chat_template
    if source is None:
        raise InputError("This tokenizer has no chat template: add a chat_template.jinja to its folder.")
    if source == DEFAULT_TEMPLATE and not variables:
        return render_default(messages, add_generation_prompt=add_generation_prompt)
    variables = {**tokenizer.template_variables, **variables}
    return _compile(source).render(messages, add_generation_prompt=add_generation_prompt, **variables)


@lru_cache(maxsize=8)
def _compile(source: str) -> ChatTemplate:
    return ChatTemplate(source)


def encode_chat(
    tokenizer: "Tokenizer", messages: Sequence[Message], *, add_generation_prompt: bool = False,
    continue_final_message: bool = False, **variables: Any,
) -> list[int]:  # fmt: skip
    """Token ids of a chat. Control strings that stand inside a message become ordinary text, never control ids.

    The same holds for the texts in ``variables`` (tools). With ``continue_final_message`` the ids end where the last
    message's content ends, or its thinking where it has no content, so that the model goes on with it.
    Raises InputError where the template leaves that text out.
    """
    hidden: list[str] = []
    marked = [_mark_message(tokenizer, message, hidden) for message in messages]
    end = ""
    if continue_final_message:
        last, add_generation_prompt = messages[-1], False
        end = _mark(last.content or last.reasoning_content or "", hidden)
        marked[-1] = marked[-1].model_copy(update={"content" if last.content else "reasoning_content": end})
    variables = _mark_json(tokenizer, variables, hidden)
    text = render_chat(tokenizer, marked, add_generation_prompt=add_generation_prompt, **variables)
    if end:
        before, found, _ = text.rpartition(end)
        if not found:
            raise InputError("The chat template leaves out the last message's text, so that it cannot be continued.")
        text = before + found
    return _encode_marked(tokenizer, text, hidden)


def _encode_marked(tokenizer: "Tokenizer", text: str, hidden: Sequence[str]) -> list[int]:
    ids: list[int] = []
    for i, part in enumerate(_MARK.split(text)):  # odd parts are the numbers of marks
        ids += tokenizer.encode(hidden[int(part)], special=False) if i % 2 else tokenizer.encode(part)
    return ids


def encode_reply(
    tokenizer: "Tokenizer", messages: Sequence[Message], reply: Message, truncated: bool = False
) -> tuple[list[int], list[int]]:
    """Token ids of a chat with its generation prompt, and of a reply as a model writes it after that.

    The reply ends with the id that ends a turn, unless it was ``truncated`` at a token limit. It is what the template
    renders; of a truncated one, and under a template that does not go on from its own generation prompt (R1's drops
    the thinking), it is the thinking, ``</think>`` and the answer, with nothing between them.
    """
    hidden: list[str] = []
    marked = [_mark_message(tokenizer, message, hidden) for message in messages]
    answer = _mark_message(tokenizer, reply, hidden)
    prompt = render_chat(tokenizer, marked, add_generation_prompt=True)
    whole = "" if truncated else render_chat(tokenizer, [*marked, answer])
    text = whole.removeprefix(prompt) if whole.startswith(prompt) else _written(answer, _is_thinking(prompt), truncated)
    ids = _encode_marked(tokenizer, text, hidden)
    if not truncated:
        ends = [place for place, id in enumerate(ids) if id in tokenizer.eos_ids]
        ids = ids[: ends[-1] + 1] if ends else [*ids, tokenizer.eos_ids[0]]
    return _encode_marked(tokenizer, prompt, hidden), ids


def _written(reply: Message, thinking: bool, truncated: bool) -> str:
    """A reply without a template; ``thinking`` says that the prompt has opened the thinking."""
    text = ("" if thinking or not reply.reasoning_content else THINK_OPEN) + (reply.reasoning_content or "")
    closes = (thinking or reply.reasoning_content) and (reply.content or not truncated)
    return text + (THINK_CLOSE if closes else "") + reply.content


def encode_conversations(tokenizer: "Tokenizer", conversations: Iterable[Conversation]) -> list[list[int]]:
    """Token ids of many training conversations, as encode_chat gives them, in batches."""
    conversations = list(conversations)
    ids: list[list[int]] = [[]] * len(conversations)
    plain: list[int] = []
    texts: list[str] = []
    hostile = tokenizer.find_control
    fast = tokenizer.chat_template == DEFAULT_TEMPLATE
    for i, conversation in enumerate(conversations):
        messages = conversation.messages
        if any(hostile(m.content) or (m.reasoning_content and hostile(m.reasoning_content)) for m in messages):
            ids[i] = encode_chat(tokenizer, messages)
        else:
            plain.append(i)
            texts.append(render_default(messages) if fast else render_chat(tokenizer, messages))
    for i, encoded in zip(plain, tokenizer.encode_batch(texts), strict=True):
        ids[i] = encoded
    return ids


def opens_thinking(tokenizer: "Tokenizer", **variables: Any) -> bool:
    """Whether the generation prompt leaves the model inside <think>, so that completions start there."""
    if tokenizer.chat_template is None:
        return False
    prompt = render_chat(tokenizer, [Message(role="user", content="?")], add_generation_prompt=True, **variables)
    return _is_thinking(prompt)


def _is_thinking(prompt: str) -> bool:
    return prompt.rfind(THINK_OPEN) > prompt.rfind(THINK_CLOSE)


def split_thinking(text: str) -> tuple[str | None, str]:
    """The thinking and the answer of a whole assistant message (with the <think> that its template opened).

    The answer is what follows the last </think>; it is empty while the thinking is unfinished. The thinking
    is None where there are no tags at all.
    """
    before, close, answer = text.rpartition(THINK_CLOSE)
    if THINK_OPEN in answer:  # opened, or opened again, and not finished
        return text.replace(THINK_OPEN, "", 1).strip("\n"), ""
    if not close:
        return None, text
    return before.replace(THINK_OPEN, "", 1).strip("\n"), answer.strip("\n")


def _mark_message(tokenizer: "Tokenizer", message: Message, hidden: list[str]) -> Message:
    """The message with each hostile text replaced by a mark; the texts are appended to ``hidden``."""
    changed: dict[str, Any] = {}
    for name in ("content", "reasoning_content"):
        text = getattr(message, name)
        if text and tokenizer.find_control(text):
            changed[name] = _mark(text, hidden)
    if isinstance(message, ToolTurn):
        rest = message.model_dump(include={"tool_calls", "tool_call_id", "name"}, exclude_none=True)
        changed |= _mark_json(tokenizer, rest, hidden)
    return message.model_copy(update=changed) if changed else message


def _mark_json(tokenizer: "Tokenizer", value: Any, hidden: list[str]) -> Any:
    """JSON whose texts have marks for control strings: for each alone, since a template escapes what is around it."""
    if isinstance(value, str):
        return tokenizer.control_pattern.sub(lambda found: _mark(found.group(), hidden), value)
    if isinstance(value, Mapping):
        return {_mark_json(tokenizer, key, hidden): _mark_json(tokenizer, item, hidden) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mark_json(tokenizer, item, hidden) for item in value)
    return value


def _mark(text: str, hidden: list[str]) -> str:
    hidden.append(text)
    return f"\ue000{len(hidden) - 1}\ue001"
