"""Text from tokens as they come, against decoding the whole completion each time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from moreseek.engine.stops import TextStream


class Bytes:
    """A tokenizer whose token i is the byte i; 256 is a word, 257 is three bytes of a character of four."""

    words = {256: b"stop", 257: "🙂".encode()[:3], 258: "🙂".encode()[3:], 259: "深度".encode()}

    def decode(self, ids):
        return b"".join(self.words.get(i) or bytes([i]) for i in ids).decode("utf-8", "replace")


def slow(ids, stops, include):
    """The text of the whole completion, cut at the first stop string that came."""
    for count in range(1, len(ids) + 1):
        text = Bytes().decode(ids[:count])
        if text.endswith("�") and count < len(ids):
            continue
        found = [(text.find(stop), -len(stop), stop) for stop in stops if stop in text]
        if found:
            at, _, stop = min(found)
            return text[: at + len(stop) if include else at], True
    return Bytes().decode(ids), False


tokens = st.lists(
    st.one_of(st.integers(97, 101), st.sampled_from([10, 32, 256, 259]), st.just((257, 258)), st.just(0xE6)),
    max_size=60,
).map(lambda parts: [i for part in parts for i in (part if isinstance(part, tuple) else (part,))])
stop_strings = st.lists(
    st.sampled_from(["stop", "ab", "abc", "cab", "🙂", "🙂a", "深度", "度s", "\n", "aa b"]), max_size=3
)


@settings(max_examples=300)
@given(ids=tokens, stops=stop_strings, include=st.booleans())
def test_a_stream_shows_what_the_whole_text_is(ids, stops, include):
    expected, cut = slow(ids, stops, include)
    stream, shown = TextStream(Bytes(), stops, include), ""
    for token in ids:
        new = stream.push(token)
        shown += new
        assert expected.startswith(shown)  # nothing is shown that has to be taken back
        assert stream.text == shown
        if stream.stopped:
            break
    shown += stream.finish()
    assert (shown, stream.stopped) == (expected, cut)


def test_half_a_character_waits_for_its_rest():
    stream = TextStream(Bytes())
    assert [stream.push(97), stream.push(257), stream.push(258)] == ["a", "", "🙂"]


def test_what_may_become_a_stop_string_waits():
    stream = TextStream(Bytes(), ["stop"])
    assert [stream.push(ord(c)) for c in "a sto"] == ["a", " ", "", "", ""]
    assert stream.push(ord("p")) == ""
    assert stream.stopped
    other = TextStream(Bytes(), ["stop"])
    assert "".join(other.push(ord(c)) for c in "a stor") == "a stor"


def test_the_rest_comes_at_the_end():
    stream = TextStream(Bytes(), ["stop"])
    assert [stream.push(ord("s")), stream.push(257)] == ["", ""]
    assert stream.finish() == "s�"


def test_no_stop_string_ends_the_text_before_min_tokens():
    stream = TextStream(Bytes(), ["a"], min_tokens=3)
    assert "".join(map(stream.push, b"aab")) == "aab"
    assert stream.push(ord("a")) == ""
    assert stream.stopped


def test_a_stop_string_that_came_before_min_tokens_ends_nothing_later():
    stream = TextStream(Bytes(), ["ab", "a long one"], min_tokens=3)
    assert "".join(map(stream.push, b"abc")) == "abc"
    assert not stream.stopped


class ByteFallback:
    """Llama 2's way with characters outside its vocabulary: a token a byte, and all of a run of them is broken where
    one is.
    """

    def __init__(self):
        vocab = {"<unk>": 0, "\u2581": 1, "a": 2} | {f"<0x{byte:02X}>": 3 + byte for byte in range(256)}
        self.backend = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
        parts = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        self.backend.decoder = decoders.Sequence(parts)

    def encode(self, text):
        return self.backend.encode(text.replace(" ", "\u2581"), add_special_tokens=False).ids

    def decode(self, ids):
        return self.backend.decode(list(ids), skip_special_tokens=False)


@settings(max_examples=100)
@given(text=st.text(st.sampled_from("a é深🙂"), max_size=40))
def test_characters_that_are_a_token_a_byte_come_whole(text):
    tokenizer = ByteFallback()
    ids = tokenizer.encode(text)
    stream = TextStream(tokenizer)
    assert "".join(map(stream.push, ids)) + stream.finish() == tokenizer.decode(ids)


def test_end_tokens_are_no_text():
    stream = TextStream(Bytes(), skip={256})
    assert stream.push(256) == ""
    assert stream.finish() == ""


def test_the_work_a_token_does_not_grow_with_the_text():
    decoded = 0

    class Counting(Bytes):
        def decode(self, ids):
            nonlocal decoded
            decoded += len(ids)
            return super().decode(ids)

    stream = TextStream(Counting(), ["never"])
    for i in range(2000):
        stream.push(97 + i % 4)
    assert decoded < 2000 * 20


@pytest.mark.parametrize("token", [0xE6, 0xFF])
def test_bytes_that_never_become_a_character_do_not_hold_back_all_that_follows(token):
    stream = TextStream(Bytes())
    for _ in range(100):
        stream.push(token)
    assert len(stream.text) > 50
