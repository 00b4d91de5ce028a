import json

import numpy as np
import pytest

from moreseek.data.shards import TokenShards, write_shards
from moreseek.errors import FaultError, InputError

DOCUMENTS = [[1, 2, 3], [4], [5, 6, 7, 8], [9, 9]]


@pytest.fixture
def folder(tmp_path):
    write_shards(tmp_path / "shards", DOCUMENTS, 300, "tokenizer", shard_tokens=5)
    return tmp_path / "shards"


def documents_of(shards):
    return [shards.document(s, i).tolist() for s, lengths in enumerate(shards.lengths) for i in range(len(lengths))]


def test_documents_come_back_from_several_shards(folder):
    shards = TokenShards.open(folder, "tokenizer")
    assert documents_of(shards) == DOCUMENTS
    assert len(shards) == 4
    assert shards.tokens == 10
    assert len(shards.index.shards) == 2
    assert shards.document(0, 0).dtype == np.uint16


def test_large_vocabularies_use_four_bytes(tmp_path):
    shards = write_shards(tmp_path / "s", [[70_000]], 100_000, "t")
    assert documents_of(shards) == [[70_000]]


def test_writing_stops_at_the_tokens_asked_for_and_leaves_out_empty_documents(tmp_path):
    endless = ([1, 2] if i % 2 else [] for i in range(10**9))
    assert write_shards(tmp_path / "s", endless, 300, "t", tokens=5).tokens == 6


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    def broken():
        yield [1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shards(tmp_path / "s", broken(), 300, "t")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_fault_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FaultError, match="No space left"):
        write_shards(tmp_path / "s", DOCUMENTS, 300, "t")
    assert not list(tmp_path.iterdir())


def test_what_a_killed_run_left_is_written_anew(tmp_path):
    (tmp_path / "s.partial").mkdir()
    (tmp_path / "s.partial" / "shard-00009.tokens").write_text("half")
    assert documents_of(write_shards(tmp_path / "s", DOCUMENTS, 300, "t")) == DOCUMENTS
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize(
    ("documents", "message"),
    [([], "no documents"), ([[]], "no documents"), ([[1], [300]], "id 300 is outside"), ([[-1]], "id -1 is outside")],
)
def test_wrong_documents_are_refused(tmp_path, documents, message):
    with pytest.raises(InputError, match=message):
        write_shards(tmp_path / "s", documents, 300, "t")


def test_an_existing_folder_is_not_overwritten(folder):
    with pytest.raises(InputError, match="exists already"):
        write_shards(folder, DOCUMENTS, 300, "tokenizer")


def test_another_tokenizer_is_refused(folder):
    with pytest.raises(InputError, match="another tokenizer"):
        TokenShards.open(folder, "other")


def flip(path):
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("shard-00001.tokens", lambda path: path.unlink(), "shard-00001.tokens: this shard is missing"),
        ("shard-00000.lengths", lambda path: path.write_bytes(b"1234"), "bytes wanted, 4 found"),
        ("shard-00000.tokens", flip, "altered"),
        ("shard-00000.lengths", flip, "altered"),
        ("index.json", lambda path: path.unlink(), "no token shards"),
        ("index.json", lambda path: path.write_text("{"), "not an index"),
        ("index.json", lambda path: path.write_text(path.read_text().replace("shard-00000", "../x")), "own folder"),
        (
            "index.json",
            lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2})),
            "format 2",
        ),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file(folder, name, harm, message):
    harm(folder / name)
    with pytest.raises(InputError, match=message):
        TokenShards.open(folder)
