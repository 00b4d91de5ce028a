"""Questions and answers of a file of votes, where it has them: conversations, columns of texts, FastChat's states."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moreseek.arena.style_columns import assistant_text
from moreseek.arena.vote_files import Batch

_ANSWERS = (("conversation_a", "conversation_b"), ("answer_a", "answer_b"), ("response_a", "response_b"))
_QUESTIONS = ("prompt", "question")


@dataclass(frozen=True)
class Said:
    """One battle's texts. ``answers`` has a pair (left, right) for each question, or nothing at all."""

    prompts: tuple[str, ...]
    answers: tuple[tuple[str, str], ...] = ()


def texts_of(batch: Batch) -> list[Said | None]:
    """The texts of each vote of a batch; None where there are none, or where the two sides were asked differently."""
    columns = dict(zip(batch.header, batch.columns, strict=True))
    question = next((columns[name] for name in _QUESTIONS if name in columns), None)
    pair = next((pair for pair in _ANSWERS if all(name in columns for name in pair)), None)
    if pair is None:
        return [None] * len(batch) if question is None else [_asked(value) for value in question]
    questions: Sequence[Any] = question or [None] * len(batch)
    return [_said(*row) for row in zip(questions, *(columns[name] for name in pair), strict=True)]


def _asked(question: Any) -> Said | None:
    text = plain_text(question) if isinstance(question, str) else ""
    return Said((text,)) if text.strip() else None


def _said(question: Any, left: Any, right: Any) -> Said | None:
    """Conversations hold the questions too; answers alone need the column with the question."""
    question, left, right = (_unpacked(value) for value in (question, left, right))
    if _is_conversation(left) and _is_conversation(right):
        sides = _turns(left), _turns(right)
        prompts = [[asked for asked, _ in side] for side in sides]
        if not prompts[0] or prompts[0] != prompts[1]:
            return None
        return Said(tuple(prompts[0]), tuple((a, b) for (_, a), (_, b) in zip(*sides, strict=True)))
    asked, answers = _listed(question), tuple(zip(_listed(left), _listed(right), strict=False))
    if not asked or not all(text.strip() for text in asked):
        return None
    same = len(asked) == len(answers) == len(_listed(left)) == len(_listed(right))
    return Said(tuple(asked), answers if same else ())


def _unpacked(value: Any) -> Any:
    """A list that stands in a table as JSON: LMArena's competition writes several turns so."""
    if isinstance(value, str) and value.startswith("[") and value.rstrip().endswith("]"):
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            return value
        return found if all(part is None or isinstance(part, (str, dict)) for part in found) else value
    return value


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and "role" in turn for turn in value)


def _turns(conversation: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Each question with the answer that follows it; a question without one has an empty one."""
    out: list[tuple[str, str]] = []
    for turn in conversation:
        text = plain_text(assistant_text(_content(turn)))
        if turn["role"] == "user":
            out.append((text, ""))
        elif turn["role"] == "assistant" and out:
            out[-1] = out[-1][0], text
    return out


def _content(turn: dict[str, Any]) -> Any:
    """A turn's words; of several parts, those that are text."""
    content = turn.get("content")
    if isinstance(content, list):
        return "\n".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return content


def _listed(value: Any) -> list[str]:
    if isinstance(value, list):
        return [plain_text(part) if isinstance(part, str) else "" for part in value]
    return [plain_text(value)] if isinstance(value, str) else []


def plain_text(text: str) -> str:
    """Without NUL and halves of characters, which databases refuse."""
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
