"""Our chats equal those of transformers, on the folder that we write."""

import pytest

from moreseek.records import Message
from moreseek.text.chat import encode_chat, render_chat
from moreseek.text.template import ChatTemplate
from moreseek.text.tokenizer import Tokenizer, train_tokenizer

transformers = pytest.importorskip("transformers")

SYSTEM, USER = Message(role="system", content="Be brief."), Message(role="user", content="  12+34-5= é\n")
WORKED = Message(role="assistant", content="41", reasoning_content="12+34=46;46-5=41")
CHATS = [[USER], [SYSTEM, USER], [USER, WORKED], [SYSTEM, USER, WORKED, USER, WORKED], [USER, WORKED, USER]]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    ours = train_tokenizer(["12+34=46;46-5=41 hello hello world", "你好，世界"] * 5, 290)
    ours.save(folder)
    return ours, transformers.AutoTokenizer.from_pretrained(folder), folder


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("variables", [{}, {"enable_thinking": False}, {"enable_thinking": True}])
@pytest.mark.parametrize("prompt", [False, True])
def test_transformers_renders_and_encodes_our_chats_as_we_do(tokenizers, chat, variables, prompt):
    ours, theirs, _ = tokenizers
    turns = [message.model_dump(exclude_none=True) for message in chat]
    text = theirs.apply_chat_template(turns, add_generation_prompt=prompt, tokenize=False, **variables)
    ids = theirs.apply_chat_template(turns, add_generation_prompt=prompt, return_dict=False, **variables)
    assert render_chat(ours, chat, add_generation_prompt=prompt, **variables) == text
    assert encode_chat(ours, chat, add_generation_prompt=prompt, **variables) == ids


def test_transformers_reads_our_folder_with_the_same_ids_and_decoding(tokenizers):
    ours, theirs, _ = tokenizers
    text = "hello <|user|>1234<think>你好</think>x<|end|>"
    ids = ours.encode(text)
    assert theirs(text, add_special_tokens=False).input_ids == ids
    assert theirs.decode(ids) == ours.decode(ids) == text
    assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids, skip_special=True)
    assert (theirs.eos_token_id, theirs.pad_token_id, theirs.bos_token_id) == (
        ours.eos_ids[0],
        ours.pad_id,
        ours.bos_id,
    )
    assert len(theirs) == ours.vocab_size


def test_we_read_a_folder_that_transformers_wrote(tokenizers, tmp_path):
    ours, theirs, _ = tokenizers
    theirs.save_pretrained(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.eos_ids == ours.eos_ids
    assert again.pad_id == ours.pad_id
    assert encode_chat(again, CHATS[3]) == encode_chat(ours, CHATS[3])


# In the manner of well-known templates: what they use of Jinja must render as there.
CHATML = """{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string
        and not(message.content.startswith('<tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content | trim + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- endif %}
        {{- '<|im_start|>' + message.role }}
        {% generation %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + message.content.lstrip('\\n') }}
        {%- else %}
            {{- message.content ~ loop.last ~ (message | tojson) }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
        {% endgeneration %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize("prompt", [False, True])
def test_a_template_of_another_family_renders_as_in_transformers(tokenizers, chat, prompt):
    _, theirs, _ = tokenizers
    turns = [message.model_dump(exclude_none=True) for message in chat]
    expected = theirs.apply_chat_template(turns, chat_template=CHATML, add_generation_prompt=prompt, tokenize=False)
    assert ChatTemplate(CHATML).render(chat, add_generation_prompt=prompt) == expected
