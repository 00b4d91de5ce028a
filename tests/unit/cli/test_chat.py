"""`moreseek chat`: what a line of a conversation may hold, and what the screen shows of an answer."""

import io

import pytest
from rich.console import Console

from moreseek.cli.chat import Session, _answer, _command, _try_to_answer
from moreseek.engine.sampling import Completion
from moreseek.errors import FaultError
from moreseek.records import Message


class Speaker:
    """An LLM that says these texts, one after the other."""

    def __init__(self, llm, texts):
        self.tokenizer, self.model, self.texts = llm.tokenizer, llm.model, texts

    def stream(self, prompt, params):
        for count, text in enumerate(self.texts, 1):
            if text is None:
                raise FaultError("the model's result is not a number.")
            yield Completion(token_ids=[1] * count, text=text)


@pytest.fixture
def talk(make_llm, monkeypatch):
    """talk(texts): a session whose model says them, after one question, and its screen."""
    llm = make_llm(["hello world, how are you"] * 5, 290, 256)
    monkeypatch.setattr("moreseek.cli.chat.opens_thinking", lambda tokenizer: True)

    def make(*texts):
        screen = io.StringIO()
        session = Session(Speaker(llm, texts), 1.0, 64, 0, None, [Message(role="user", content="hello")])
        return session, Console(file=screen, width=200), screen

    return make


def test_a_model_that_thinks_twice_shows_the_answer_that_is_kept(talk):
    session, console, screen = talk(
        "one", "one</think>first", "one</think>first<think>two", "one</think>first<think>two</think>9"
    )
    _answer(session, console)
    assert session.messages[-1].content == "9"
    assert screen.getvalue().rstrip().endswith("\n9")


def test_an_answer_is_shown_once(talk):
    session, console, screen = talk("one", "one</think>9", "one</think>9")
    _answer(session, console)
    assert screen.getvalue().count("9") == 1


def test_a_fault_ends_the_turn_and_not_the_chat(talk):
    session, console, screen = talk("one", None)
    _try_to_answer(session, console)
    assert "not a number" in screen.getvalue()
    assert session.messages == []


def test_a_name_that_is_none_does_not_end_the_chat(talk):
    session, console, screen = talk()
    _command(session, "/save a\0b", console)
    assert "null byte" in screen.getvalue()
    assert len(session.messages) == 1
