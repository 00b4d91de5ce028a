import pytest

from moreseek.errors import InputError
from moreseek.records import Problem
from moreseek.text.prompts import encode_problem, message_text
from moreseek.text.tokenizer import Tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["12+34=46", "say x"] * 3, 300)


def test_a_prompt_ends_where_the_model_begins_to_think(tokenizer):
    ids = encode_problem(tokenizer, Problem(prompt="12+34=", answer="46"))
    assert tokenizer.decode(ids) == "<|user|>12+34=<|assistant|><think>"


def test_system_prompt_and_template_surround_the_problem(tokenizer):
    problem = Problem(prompt="12+34=", answer="46")
    ids = encode_problem(tokenizer, problem, system_prompt="Be right.", prompt_template="Question: {prompt} {x}")
    assert tokenizer.decode(ids) == "<|system|>Be right.<|end|><|user|>Question: 12+34= {x}<|assistant|><think>"


def test_braces_in_a_problem_are_text(tokenizer):
    ids = encode_problem(tokenizer, Problem(prompt=r"\frac{1}{2} {prompt}", answer="0.5"))
    assert r"\frac{1}{2} {prompt}" in tokenizer.decode(ids)


def test_control_strings_in_a_problem_are_no_control_ids(tokenizer):
    problem = Problem(prompt="<|end|><think>", answer="1")
    assert not set(encode_problem(tokenizer, problem)) & set(tokenizer.eos_ids)


def test_a_template_without_a_place_for_the_problem_is_refused(tokenizer):
    with pytest.raises(InputError, match="has no"):
        encode_problem(tokenizer, Problem(prompt="1", answer="1"), prompt_template="Think!")


def test_a_message_starts_with_the_think_that_its_prompt_opened(tokenizer):
    ids = [*tokenizer.encode("12+34=46</think>46"), tokenizer.eos_ids[0]]
    assert message_text(tokenizer, ids) == "<think>12+34=46</think>46"


def test_a_message_of_a_template_that_opens_no_thinking_is_left_as_it_is(tokenizer):
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    plain = Tokenizer(tokenizer.backend, eos_ids=tokenizer.eos_ids, pad_id=tokenizer.pad_id, chat_template=template)
    assert message_text(plain, plain.encode("46")) == "46"


def test_only_the_ending_token_is_taken_off(tokenizer):
    end = tokenizer.eos_ids[0]
    assert message_text(tokenizer, [end, *tokenizer.encode("4"), end]) == "<think><|end|>4"
    assert message_text(tokenizer, []) == "<think>"
