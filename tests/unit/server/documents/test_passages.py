"""Documents of every kind to passages with headings and places, and what is wrong with some."""

import json
from itertools import pairwise

import pytest

from moreseek.errors import InputError
from moreseek.server.documents.passages import LONGEST, find_files, read_passages
from moreseek.server.documents.terms import dense


def passages(folder):
    return list(read_passages(folder, find_files(folder)))


def placed(folder):
    return [(passage.file, passage.line, passage.title, passage.text) for passage in passages(folder)]


def test_markdown_is_parted_by_its_headings(tmp_path):
    (tmp_path / "deep").mkdir()
    text = (
        "intro\n\n# Salt\n\n## Storage ##\nKeep it dry.\n\n```\n# no heading\n```\n\n### Bags\nOf paper.\n# Pep\nHot.\n"
    )
    (tmp_path / "deep" / "a.md").write_text(text)
    assert placed(tmp_path) == [
        ("deep/a.md", 1, "a", "intro"),
        ("deep/a.md", 6, "Salt › Storage", "Keep it dry.\n\n```\n# no heading\n```"),
        ("deep/a.md", 13, "Salt › Storage › Bags", "Of paper."),
        ("deep/a.md", 15, "Pep", "Hot."),
    ]


def test_plain_text_has_no_headings_and_any_line_ends(tmp_path):
    (tmp_path / "notes.txt").write_bytes(b"\xef\xbb\xbf# one\r\n\r\ntwo\r\n")
    assert placed(tmp_path) == [("notes.txt", 1, "notes", "# one\n\ntwo")]


def test_lines_of_json_have_titles_and_the_numbers_of_their_lines(tmp_path):
    records = [{"text": "first", "title": "One"}, {"text": "second", "source": {"any": 1}}]
    (tmp_path / "a.jsonl").write_text("\n" + "\n\n".join(json.dumps(record) for record in records))
    assert placed(tmp_path) == [("a.jsonl", 2, "One", "first"), ("a.jsonl", 4, "a", "second")]


@pytest.mark.parametrize("text", ["word " * 4_000, "很长的一句话。" * 900, "字" * 5_000, "x" * 9_000, "line\n" * 3_000])
def test_long_texts_are_cut_into_bounded_passages_that_lose_nothing(tmp_path, text):
    (tmp_path / "a.txt").write_text(text)
    found = passages(tmp_path)
    assert len(found) > 3
    assert all(len(one.text) + 2 * dense(one.text) <= LONGEST + 1 for one in found)
    whole = text.split()[0] if " " in text or "\n" in text else text[:1]
    assert sum(one.text.count(whole) for one in found) >= text.count(whole)
    assert [one.line for one in found] == sorted(one.line for one in found)


def test_passages_of_a_section_overlap_and_know_their_lines(tmp_path):
    paragraphs = [f"Paragraph {number} " + "word " * 40 for number in range(20)]
    (tmp_path / "a.md").write_text("# T\n" + "\n\n".join(paragraphs))
    found = passages(tmp_path)
    for one, other in pairwise(found):
        assert one.text.rsplit("Paragraph ", 1)[1].split()[0] == other.text.split()[1]
    lines = (tmp_path / "a.md").read_text().split("\n")
    assert all(lines[one.line - 1].startswith(one.text[:12]) for one in found)


def test_of_a_pack_its_documents_are_taken_and_hidden_files_never(tmp_path):
    (tmp_path / "pack.toml").write_text("")
    (tmp_path / "problems.jsonl").write_text("{}")
    (tmp_path / "documents" / ".git").mkdir(parents=True)
    (tmp_path / "documents" / ".git" / "b.md").write_text("secret")
    (tmp_path / "documents" / "a.md").write_text("seen")
    (tmp_path / "documents" / "picture.png").write_bytes(b"\xff")
    assert placed(tmp_path) == [("a.md", 1, "a", "seen")]


def test_a_name_that_is_no_unicode_is_shown_as_far_as_it_can_be(tmp_path):
    (tmp_path / "\udcff.md").write_text("text")
    assert placed(tmp_path) == [("\ufffd.md", 1, "\ufffd", "text")]


FAULTS = {
    "not UTF-8": ("a.md", b"one\ntwo \xff\n", "a.md:2: not UTF-8"),
    "no JSON": ("a.jsonl", b'{"text": "x"}\n{"text"', "a.jsonl:2: not a JSON object"),
    "no text": ("a.jsonl", b'{"title": "x"}', "a.jsonl:1: key 'text' is missing"),
    "half a character": ("a.jsonl", b'{"text": "\\ud800"}', "a.jsonl:1: holds half of a character"),
    "nothing": ("a.png", b"", "no .md, .txt, .jsonl file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_is_said_with_file_and_line(tmp_path, fault):
    name, raw, message = FAULTS[fault]
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(InputError, match=message):
        passages(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.txt").write_text("a secret of the machine")
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "a.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(InputError, match="leads out of the folder"):
        find_files(tmp_path / "documents")
    with pytest.raises(InputError, match="no such folder"):
        find_files(tmp_path / "nothing")
