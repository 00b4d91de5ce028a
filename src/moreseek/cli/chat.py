"""`moreseek chat`: talk to a model in the terminal."""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from moreseek.engine.llm import LLM
from moreseek.engine.precision import Asked
from moreseek.engine.sampling import SamplingParams
from moreseek.errors import MoreseekError
from moreseek.records import Message
from moreseek.text.chat import encode_chat, opens_thinking, split_thinking
from moreseek.training.device import sampling_device

HELP = "/system TEXT · /temperature X · /regenerate · /save FILE · /history · /clear · /help · /quit"


@dataclass
class Session:
    """A conversation and its settings."""

    llm: LLM
    temperature: float
    max_tokens: int
    seed: int
    system: str | None
    messages: list[Message] = field(default_factory=list)

    def prompt_ids(self) -> list[int]:
        first = [Message(role="system", content=self.system)] if self.system else []
        return encode_chat(self.llm.tokenizer, [*first, *self.messages], add_generation_prompt=True)


def talk(model: str, system: str | None, temperature: float, max_tokens: int, seed: int, precision: Asked) -> None:
    """Read turns from stdin until it ends. On a pipe there is no prompt and no colour."""
    SamplingParams(temperature=temperature, max_tokens=max_tokens, seed=seed)  # refuses what is wrong before loading
    console = Console(highlight=False, markup=False)
    session = Session(LLM(model, precision=precision, device=sampling_device()), temperature, max_tokens, seed, system)
    if sys.stdin.isatty():
        console.print(f"{model} · {HELP}", style="dim")
    while True:
        try:
            line = console.input("› " if sys.stdin.isatty() else "", markup=False).strip()
        except (EOFError, KeyboardInterrupt):
            return
        if line in ("/quit", "/exit"):
            return
        if line.startswith("/") and not _command(session, line, console):
            continue
        if line and not line.startswith("/"):
            session.messages.append(Message(role="user", content=line))
        if session.messages and session.messages[-1].role == "user":
            _try_to_answer(session, console)


def _try_to_answer(session: Session, console: Console) -> None:
    """Answer, or say why not and forget the turn: a turn that is too long must not end the chat."""
    try:
        _answer(session, console)
    except MoreseekError as error:
        session.messages.pop()
        console.print(f"{error} /clear begins anew.", style="red")


def _command(session: Session, line: str, console: Console) -> bool:
    """Carry out a /command; True when the model should answer (again)."""
    name, _, value = line.partition(" ")
    if name == "/system":
        session.system = value or None
    elif name == "/temperature":
        try:
            session.temperature = SamplingParams(temperature=float(value)).temperature
        except Exception as error:  # a typo must not end the chat
            console.print(f"/temperature {value}: {error}", style="red")
    elif name == "/regenerate":
        if session.messages and session.messages[-1].role == "assistant":
            session.messages.pop()
            session.seed += 1
            return True
        console.print("Nothing to regenerate yet.", style="dim")
    elif name == "/save":
        _save(session, value.strip(), console)
    elif name == "/history":
        for message in session.messages:
            console.print(f"{message.role}: {message.content}", style="dim")
    elif name == "/clear":
        session.messages.clear()
    else:
        console.print(HELP, style="dim")
    return False


def _save(session: Session, name: str, console: Console) -> None:
    """The conversation as one JSON line, in the form that training reads; into a new file, never over another."""
    if not name or not session.messages:
        console.print("/save FILE writes the conversation, once there is one.", style="dim")
        return
    first = [Message(role="system", content=session.system)] if session.system else []
    lines = [message.model_dump(mode="json", exclude_none=True) for message in [*first, *session.messages]]
    try:
        with Path(name).open("x", encoding="utf-8") as file:
            file.write(json.dumps({"messages": lines}, ensure_ascii=False) + "\n")
    except (OSError, ValueError) as error:  # a name with a NUL is none
        console.print(f"/save {name!r}: {getattr(error, 'strerror', None) or error}", style="red")
    else:
        console.print(f"{len(session.messages)} messages saved in {name}", style="dim")


def _answer(session: Session, console: Console) -> None:
    """Stream one answer; thinking is dimmed, with its length told when it ends."""
    tokenizer = session.llm.tokenizer
    prefix = "<think>" if opens_thinking(tokenizer) else ""
    shown = visible = ""
    text = prefix
    started, tokens = time.monotonic(), 0
    prompt = session.prompt_ids()
    room = max(1, session.llm.model.config.max_position_embeddings - len(prompt))
    params = SamplingParams(
        temperature=session.temperature, max_tokens=min(session.max_tokens, room), seed=session.seed
    )
    for piece in session.llm.stream(prompt, params):
        tokens = len(piece.token_ids)
        text = prefix + piece.text
        thinking, answer = split_thinking(text)
        visible = (thinking or "") + ("\n" + answer if answer else "") if thinking else answer
        if not visible.startswith(shown):  # a tag was completed: what is on screen stays
            continue
        console.print(visible[len(shown) :], end="", style="dim" if thinking and not answer else None)
        shown = visible
    thinking, answer = split_thinking(text)
    if visible != shown:  # it thought again: what was shown as its answer belonged to the thinking
        console.print("\n" + answer, end="")
    if not answer and thinking:
        console.print(
            "\n(no answer: the thinking reached the limit; --max-tokens raises it up to the model's context)",
            style="yellow",
            end="",
        )
    rate = tokens / max(1e-9, time.monotonic() - started)
    console.print()
    if sys.stdin.isatty():
        console.print(f"{tokens} tokens · {rate:.0f} tokens/s", style="dim")
    session.messages.append(Message(role="assistant", content=answer, reasoning_content=thinking))
