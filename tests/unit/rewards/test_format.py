import pytest

from moreseek.records import Problem
from moreseek.rewards.format import tags, think
from moreseek.rewards.reflection import reflection_words

PROBLEM = Problem(prompt="?", answer="41")


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("<think>so</think>41", 1.0),
        ("<think></think>41", 1.0),
        ("so</think>41", 1.0),
        ("41", 0.0),
        ("", 0.0),
        ("<think>so", 0.0),
        ("<think>so</think>", 0.0),
        ("<think>so</think> \n", 0.0),
        ("<think>so</think></think>41", 0.0),
        ("<think><think>so</think>41", 0.0),
        ("so<think>so</think>41", 0.0),
        ("<think>so</think>41<think>", 0.0),
    ],
)
def test_one_closed_thinking_and_an_answer_are_well_formed(completion, value):
    assert think(PROBLEM, completion) == value


@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("<think>so</think><answer>41</answer>", 1.0),
        (" <think>a\nb</think>\n<answer> 41\n</answer>\n", 1.0),
        ("<think>so</think>41", 0.0),
        ("<think>so</think><answer></answer>", 0.0),
        ("<think>so</think><answer>41</answer>!", 0.0),
        ("<think>so</think><answer>41</answer><answer>42</answer>", 0.0),
        ("<think>a</think><think>b</think><answer>41</answer>", 0.0),
        ("<answer>41</answer>", 0.0),
    ],
)
def test_r1_zeros_tags_must_frame_the_whole_message(completion, value):
    assert tags(PROBLEM, completion) == value


def test_reflective_words_are_counted_whole():
    assert reflection_words("Wait, but let me CHECK. Awaiting buttons, checked.") == 3
    assert reflection_words("") == 0
