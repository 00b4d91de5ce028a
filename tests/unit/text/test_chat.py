import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moreseek.errors import InputError
from moreseek.records import Conversation, Message
from moreseek.text.chat import (
    DEFAULT_TEMPLATE,
    ChatTemplate,
    encode_chat,
    encode_conversations,
    encode_reply,
    opens_thinking,
    render_chat,
    split_thinking,
)
from moreseek.text.template import render_default
from moreseek.text.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer

TOKENIZER = train_tokenizer(["12+34=46;46-5=41 hello"] * 5, 280)
USER, REPLY = Message(role="user", content="12+34-5="), Message(role="assistant", content="41")
WORKED = Message(role="assistant", content="41", reasoning_content="12+34=46;46-5=41")

contents = st.text(alphabet=st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    [*SPECIAL_TOKENS, "a<|end|>b", "\ue0000\ue001", "{{ 7*7 }}", "  x \n"]
)
turns = st.builds(Message, role=st.just("user"), content=contents) | st.builds(
    Message, role=st.just("assistant"), content=contents, reasoning_content=st.none() | contents
)
chats = st.tuples(
    st.lists(st.builds(Message, role=st.just("system"), content=contents), max_size=1), st.lists(turns, max_size=4)
).map(lambda parts: parts[0] + parts[1])


@settings(deadline=None)  # the template's process may have to wait for a core
@given(chats, st.booleans(), st.booleans())
def test_the_fast_renderer_equals_the_jinja_template(messages, prompt, thinking):
    jinja = ChatTemplate(DEFAULT_TEMPLATE).render(messages, add_generation_prompt=prompt, enable_thinking=thinking)
    assert render_default(messages, add_generation_prompt=prompt, enable_thinking=thinking) == jinja


@given(chats)
def test_contents_never_become_control_ids_and_nothing_is_lost(messages):
    ids = encode_chat(TOKENIZER, messages)
    assert TOKENIZER.decode(ids) == render_chat(TOKENIZER, messages)
    harmless = [m.model_copy(update={"content": "x", "reasoning_content": "y"}) for m in messages]
    control = set(TOKENIZER.special_tokens.values())
    assert [id for id in ids if id in control] == [id for id in encode_chat(TOKENIZER, harmless) if id in control]


@given(st.lists(chats, max_size=5))
def test_batches_of_conversations_equal_single_ones(all_messages):
    conversations = [Conversation(messages=tuple(messages)) for messages in all_messages]
    expected = [encode_chat(TOKENIZER, messages) for messages in all_messages]
    assert encode_conversations(TOKENIZER, conversations) == expected


def test_conversations_follow_the_tokenizers_own_template():
    other = Tokenizer(
        TOKENIZER.backend, eos_ids=[2], pad_id=0, chat_template="{{ messages[0].content }}{{ eos_token }}"
    )
    ids = encode_conversations(other, [Conversation(messages=(USER, REPLY))])
    assert TOKENIZER.decode(ids[0]) == "12+34-5=<|end|>"


def test_the_default_template_writes_r1s_shape():
    system = Message(role="system", content="Be brief.")
    text = render_chat(TOKENIZER, [system, USER, WORKED, USER, WORKED])
    assert text == (
        "<|system|>Be brief.<|end|>"
        "<|user|>12+34-5=<|assistant|><think></think>41<|end|>"
        "<|user|>12+34-5=<|assistant|><think>12+34=46;46-5=41</think>41<|end|>"
    )


def test_the_generation_prompt_opens_the_thinking_unless_it_is_switched_off():
    assert render_chat(TOKENIZER, [USER], add_generation_prompt=True).endswith("<|assistant|><think>")
    off = render_chat(TOKENIZER, [USER], add_generation_prompt=True, enable_thinking=False)
    assert off.endswith("<|assistant|><think></think>")
    assert opens_thinking(TOKENIZER)
    assert not opens_thinking(Tokenizer(TOKENIZER.backend, eos_ids=[2], pad_id=0, chat_template="{{ bos_token }}"))


def test_a_late_system_message_is_refused():
    with pytest.raises(InputError, match="can only come first"):
        encode_chat(TOKENIZER, [USER, Message(role="system", content="x")])


def test_a_tokenizer_without_template_says_what_to_add():
    bare = Tokenizer(TOKENIZER.backend, eos_ids=[2], pad_id=0, chat_template=None)
    with pytest.raises(InputError, match=r"chat_template\.jinja"):
        encode_chat(bare, [USER])
    assert not opens_thinking(bare)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("41", (None, "41")),
        ("", (None, "")),
        ("<think></think>41", ("", "41")),
        ("<think>12+34=46</think>41", ("12+34=46", "41")),
        ("<think>\nso\n</think>\n\n41", ("so", "41")),
        ("so</think>41", ("so", "41")),
        ("<think>still going", ("still going", "")),
        ("<think>a</think>b</think>c", ("a</think>b", "c")),
        ("<think>a</think>b<think>c</think>d", ("a</think>b<think>c", "d")),
        ("<think>a</think>b<think>c", ("a</think>b<think>c", "")),
    ],
)
def test_thinking_is_told_apart_from_the_answer(text, expected):
    assert split_thinking(text) == expected


# --- replies apart from their prompts ----------------------------------------------------------------------------

TURN = "{{ '<|' + m.role + '|>' + m.content + ('<|end|>\n' if m.role == 'assistant' else '') }}"
TEMPLATES = {
    # A generation prompt that the rendered conversation goes on from, with a line break after the end of a turn.
    "plain": "{% for m in messages %}" + TURN + "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    # R1's way: the generation prompt opens the thinking, and a rendered turn has none.
    "drops the thinking": "{% for m in messages %}" + TURN + "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}",
    # A template that forgets to end a turn.
    "endless": "{% for m in messages %}{{ m.content }}:{% endfor %}",
}  # fmt: skip
HOSTILE = Message(role="assistant", content="<|end|>41", reasoning_content="</think>")


def replied(reply, template=DEFAULT_TEMPLATE, truncated=False):
    tokenizer = Tokenizer(TOKENIZER.backend, eos_ids=TOKENIZER.eos_ids, pad_id=0, chat_template=template)
    prompt, ids = encode_reply(tokenizer, [USER], reply, truncated)
    assert prompt == encode_chat(tokenizer, [USER], add_generation_prompt=True)
    assert (ids[-1] in tokenizer.eos_ids) == (not truncated)
    assert sum(id in tokenizer.eos_ids for id in ids) == (not truncated)
    return tokenizer.decode(ids)


def test_a_reply_is_what_a_model_writes_after_the_generation_prompt():
    assert replied(WORKED) == "12+34=46;46-5=41</think>41<|end|>"
    assert replied(REPLY) == "</think>41<|end|>"
    assert replied(HOSTILE) == "</think></think><|end|>41<|end|>"
    assert replied(REPLY, TEMPLATES["plain"]) == "41<|end|>"
    assert replied(REPLY, TEMPLATES["endless"]) == "41:<|end|>"
    assert replied(WORKED, TEMPLATES["drops the thinking"]) == "12+34=46;46-5=41</think>41<|end|>"


def test_a_truncated_reply_has_no_end_and_closes_no_thinking_that_it_did_not_close():
    thinking = Message(role="assistant", content="", reasoning_content="12+3")
    assert replied(WORKED, truncated=True) == "12+34=46;46-5=41</think>41"
    assert replied(thinking, truncated=True) == "12+3"
    assert replied(thinking, TEMPLATES["plain"], truncated=True) == "<think>12+3"
    assert replied(REPLY, TEMPLATES["plain"], truncated=True) == "41"
    assert replied(HOSTILE, truncated=True) == "</think></think><|end|>41"


@given(st.lists(turns, max_size=3), contents, st.none() | contents)
def test_prompt_and_reply_are_the_conversation(messages, content, reasoning):
    reply = Message(role="assistant", content=content, reasoning_content=reasoning)
    messages = [*messages, USER]
    prompt, ids = encode_reply(TOKENIZER, messages, reply)
    assert TOKENIZER.decode(prompt + ids) == render_chat(TOKENIZER, [*messages, reply])
    control = set(TOKENIZER.special_tokens.values())
    assert [id for id in ids if id in control] == [TOKENIZER.special_tokens["</think>"], TOKENIZER.eos_ids[0]]
