import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moreseek.errors import InputError
from moreseek.text.tokenizer import SPECIAL_TOKENS, Tokenizer, train_tokenizer

TEXTS = [
    "The cat sat on the mat. The cat ate.",
    "12+34=46;46-5=41",
    "你好，世界",
    "    def f():\n        return 1\n",
] * 20
TOKENIZER = train_tokenizer(TEXTS, 320)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text, special=False)) == text
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(st.sampled_from([*SPECIAL_TOKENS, "<", "|", "end|>", " a", "é"])).map("".join))
def test_special_tokens_typed_by_a_user_never_become_control_ids(text):
    ids = TOKENIZER.encode(text, special=False)
    assert set(ids).isdisjoint(TOKENIZER.special_tokens.values())
    assert TOKENIZER.decode(ids) == text


def test_control_strings_stay_text_even_where_the_vocabulary_holds_them_as_words():
    tokens = {"<|end|>": 0, "<": 1, "|": 2, "e": 3, "n": 4, "d": 5, ">": 6, "|e": 7, "|en": 8, "|end": 9, "|end|": 10}
    tokens |= {"|end|>": 11}
    merges = [["|", "e"], ["|e", "n"], ["|en", "d"], ["|end", "|"], ["|end|", ">"], ["<", "|end|>"]]
    state = {"version": "1.0", "model": {"type": "BPE", "vocab": tokens, "merges": merges}}
    added = {"id": 0, "content": "<|end|>", "special": True, "normalized": False}
    state["added_tokens"] = [{**added, "single_word": False, "lstrip": False, "rstrip": False}]
    backend = type(TOKENIZER.backend).from_str(json.dumps(state))
    tokenizer = Tokenizer(backend, eos_ids=[0], pad_id=0)
    assert tokenizer.encode("<|end|>") == [0]
    assert tokenizer.encode("<|end|>", special=False) == [1, 11]


def test_digits_are_single_tokens():
    ids = TOKENIZER.encode("1234567")
    assert [TOKENIZER.decode([id]) for id in ids] == list("1234567")


def test_special_tokens_are_single_ids_and_thinking_survives_skipping_them():
    ids = TOKENIZER.encode("<|assistant|><think>a</think>b<|end|>")
    assert len(ids) == 6
    assert ids[-1] == TOKENIZER.eos_ids[0]
    assert TOKENIZER.decode(ids, skip_special=True) == "<think>a</think>b"


def test_training_is_deterministic():
    assert train_tokenizer(TEXTS, 320).fingerprint() == TOKENIZER.fingerprint()
    assert train_tokenizer(TEXTS[:1], 320).fingerprint() != TOKENIZER.fingerprint()


def test_a_vocabulary_below_bytes_and_special_tokens_is_refused_with_the_minimum():
    with pytest.raises(InputError, match="at least 264"):
        train_tokenizer(TEXTS, 263)
    assert train_tokenizer(TEXTS, 264).vocab_size == 264


def test_batches_equal_single_texts():
    texts = ["12+34=<|end|>", "", "The cat\n\n  x", "你好"]
    assert TOKENIZER.encode_batch(texts) == [TOKENIZER.encode(text) for text in texts]


def test_a_long_text_is_encoded_as_a_short_one_and_lets_other_threads_run():
    """Counted in this process's processor time: what else the machine does must not fail it."""
    text = "世界，你好。The cat <|end|> sat.\n" * 20_000
    found, worst, last = [], 0.0, time.process_time()
    thread = threading.Thread(target=lambda: found.append(TOKENIZER.encode(text, special=False)))
    begun = last
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        worst, last = max(worst, time.process_time() - last), time.process_time()
    spent = last - begun
    assert found[0] == TOKENIZER.encode(text[:1_000], special=False)[:100] + found[0][100:]
    assert TOKENIZER.decode(found[0]) == text
    assert spent > 0.1  # or there was nothing to see
    assert worst < 0.5 * spent


def test_half_a_character_is_refused():
    with pytest.raises(InputError, match="surrogate"):
        TOKENIZER.encode("a\ud800")
    with pytest.raises(InputError, match="surrogate"):
        TOKENIZER.encode_batch(["ok", "a\ud800"])


def test_a_saved_tokenizer_loads_as_it_was(tmp_path):
    TOKENIZER.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint() == TOKENIZER.fingerprint()
    assert (loaded.eos_ids, loaded.pad_id, loaded.bos_id) == (TOKENIZER.eos_ids, TOKENIZER.pad_id, TOKENIZER.bos_id)
    assert "chat_template" not in json.loads((tmp_path / "tokenizer_config.json").read_text())


def test_a_hub_folder_loads_with_inline_template_and_several_end_tokens(tmp_path):
    TOKENIZER.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": {"content": "<|end|>"}, "chat_template": "{{ 1 }}"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')
    loaded = Tokenizer.load(tmp_path)
    assert loaded.eos_ids == (2, 1)
    assert loaded.pad_id == 2
    assert loaded.bos_id is None
    assert loaded.chat_template == "{{ 1 }}"
    loaded.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").chat_template == "{{ 1 }}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", None, "no tokenizer.json"),
        ("tokenizer.json", "{}", "not a tokenizer"),
        ("tokenizer_config.json", "[1", "not valid JSON"),
        ("tokenizer_config.json", "[1]", "JSON object"),
        ("tokenizer_config.json", "{}", "no end token"),
    ],
)
def test_a_broken_folder_is_refused_with_what_is_missing(tmp_path, name, content, message):
    TOKENIZER.save(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        Tokenizer.load(tmp_path)
