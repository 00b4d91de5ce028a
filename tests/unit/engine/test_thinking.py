"""The thinking budget closes a thought, whoever opened it."""

from moreseek.engine.thinking import Stage, Thinking, ThinkingIds
from moreseek.text.tokenizer import train_tokenizer

IDS = ThinkingIds(open=1, close=2, closing=(9, 2))


def write(thinking, wanted):
    """What comes out when the model wants these tokens and forced ones take precedence."""
    written = []
    for token in wanted:
        written.append(token if thinking.forced is None else thinking.forced)
        thinking.observe(written[-1])
    return written


def test_a_thought_that_the_prompt_opened_is_closed_at_its_budget():
    assert write(Thinking(IDS, [5, 1], 3), [7] * 8) == [7, 7, 7, 9, 2, 7, 7, 7]


def test_a_thought_that_the_model_opened_is_closed_at_its_budget():
    assert write(Thinking(IDS, [5], 2), [1, 7, 7, 7, 7, 7]) == [1, 7, 7, 9, 2, 7]


def test_a_thought_that_ends_by_itself_is_left_alone():
    thinking = Thinking(IDS, [1], 5)
    assert write(thinking, [7, 2, *[8] * 20]) == [7, 2, *[8] * 20]
    assert thinking.stage is Stage.AFTER


def test_a_budget_of_nothing_closes_at_once():
    assert write(Thinking(IDS, [1], 0), [7] * 4) == [9, 2, 7, 7]


def test_an_answer_without_thinking_is_left_alone():
    assert write(Thinking(IDS, [5], 0), [7, 7, 7]) == [7, 7, 7]
    assert write(Thinking(IDS, [1, 2, 6], 0), [7, 1, 7]) == [7, 1, 7]  # the prompt closed it


def test_an_earlier_turns_thought_says_nothing_about_this_one():
    assert Thinking(IDS, [1, 2, *[5] * 30]).stage is Stage.BEFORE


def test_ids_come_from_the_tokenizer():
    tokenizer = train_tokenizer(["a"], 264)
    ids = ThinkingIds.of(tokenizer)
    assert tokenizer.decode(ids.closing) == "\n</think>"
    assert ids.closing[-1] == ids.close
