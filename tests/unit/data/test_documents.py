from collections import Counter
from itertools import islice

import pytest

from moreseek.data.documents import DocumentSource, iter_documents
from moreseek.errors import InputError
from moreseek.records import Conversation

ARITHMETIC = "moreseek.data.arithmetic:documents"


def test_text_files_give_a_document_a_block(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffOne\r\nmore\r\n\r\n  \r\nZwei é\n\n".encode())
    assert list(iter_documents([DocumentSource(path=str(path))], 1)) == ["One\nmore", "Zwei é"]


def test_json_lines_give_texts_and_conversations(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "One", "url": "x"}\n'
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    text, conversation = iter_documents([DocumentSource(path=str(path))], 1)
    assert text == "One"
    assert isinstance(conversation, Conversation)
    assert conversation.messages[1].content == "b"


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "notes.md").write_text("no")
    assert list(iter_documents([DocumentSource(path=str(tmp_path))], 1)) == ["one", "two"]


def test_sources_mix_by_weight_and_one_that_ends_drops_out(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(["text"] * 100))
    sources = [DocumentSource(source=ARITHMETIC, weight=3.0), DocumentSource(path=str(path))]
    kinds = Counter(type(document) for document in islice(iter_documents(sources, 1), 200))
    assert 30 < kinds[str] < 70
    assert Counter(type(d) for d in islice(iter_documents(sources, 1), 1_000))[str] == 100
    assert list(islice(iter_documents(sources, 7), 50)) == list(islice(iter_documents(sources, 7), 50))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"ok\nbad \xff\n", r"a\.txt:2: not UTF-8"),
        ("a.txt", b"\n \n", "holds no document"),
        ("a.csv", b"x", r"\.txt or \.jsonl"),
        ("a.jsonl", b'{"txt": "x"}', 'a.jsonl:1.*"text" or "messages"'),
        ("a.jsonl", b'{"text": "x"}\n{"text": "\\ud800"}', "a.jsonl:2.*surrogate"),
        ("a.jsonl", b'{"messages": [{"role": "assistant", "content": "a"}]}', "a.jsonl:1.*found assistant"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": "a"}]}', "a.jsonl:1.*found user"),
        ("a.jsonl", b'{"messages": []}', "a.jsonl:1.*found none"),
        ("a.jsonl", b'{"messages": [{"role": "tool", "content": "a"}]}', r"a.jsonl:1.*role"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(iter_documents([DocumentSource(path=str(tmp_path / name))], 1))


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "at least one"),
        ([DocumentSource()], "needs a path"),
        ([DocumentSource(path="nowhere.txt")], "no such file"),
        ([DocumentSource(path="x.txt", settings={"a": 1})], "no settings"),
        ([DocumentSource(source=ARITHMETIC, settings={"worked": 1})], "Did you mean 'worked_share'"),
    ],
)
def test_wrong_sources_are_explained(sources, message):
    with pytest.raises(InputError, match=message):
        next(iter_documents(sources, 1))
