"""What is found for a question; the index file, kept and made anew; questions that are no questions but attacks."""

import json
import os
import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from moreseek.errors import InputError
from moreseek.server.documents import index as index_module
from moreseek.server.documents import library
from moreseek.server.documents.index import Index
from moreseek.server.documents.library import Documents

ROOT = Path(__file__).resolve().parents[4]
QUESTIONS = Path(__file__).with_name("questions.json")
RETURNS = """# Returns

## Period
Goods may be returned within 30 days of delivery.

## Costs
The buyer pays the postage of a return.
"""
CHINESE = """# 退货

## 期限
收货后三十天内可以退货，逾期不予受理。

## 运费
退货的运费由买家承担，VIP 客户除外。
"""
LAMP = {"title": "Café lamp", "text": "A lamp for cafés: 40 W, model XK-200, 产品编号 7781."}
PAGES = {
    "returns.md": RETURNS, "zh/退货.md": CHINESE, "zh/储存.txt": "盐要放在干燥处。\n\n糖也一样，不要受潮。",
    "products.jsonl": json.dumps(LAMP),
    **{f"filler{letter}.txt": f"Nothing of interest stands in note {letter}. 这里没有内容。" for letter in "cdefghjkl"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "moreseek"


@pytest.fixture
def folder(tmp_path):
    for name, text in PAGES.items():
        (tmp_path / "documents" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "documents" / name).write_text(text, encoding="utf-8")
    return tmp_path / "documents"


def best(index, question, **more):
    return [f"{passage.file}:{passage.line}" for passage in index.search(question, 3, **more)][:1]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("盐", "zh/储存.txt:1"), ("期限", "zh/退货.md:4"), ("运费", "zh/退货.md:7"), ("运费谁付？", "zh/退货.md:7"),
        ("退货期限是多少天", "zh/退货.md:4"), ("请问糖怎么储存呢", "zh/储存.txt:1"), ("VIP客户的运费", "zh/退货.md:7"),
        ("产品编号7781是什么？", "products.jsonl:1"), ("xk-200", "products.jsonl:1"),
        ("ＸＫ-２００", "products.jsonl:1"), ("Within how many days can I return goods?", "returns.md:4"),
        ("who pays postage when returning", "returns.md:7"),
        ("CAFE LAMPS", "products.jsonl:1"), ("the lamp for 咖啡", "products.jsonl:1"),
    ],
)  # fmt: skip
def test_questions_find_their_passage_in_both_languages_and_mixed(folder, question, expected):
    assert best(Index.of(folder), question) == [expected]


@pytest.mark.parametrize(
    "question",
    ["", "?", "what is it", "怎么样", "Who won the football match?", "今天天气怎么样", "Tell me a joke about elephants",
     "hello", "你好，谢谢", "🙂", "\x00", "the and of"],
)  # fmt: skip
def test_nothing_is_found_where_nothing_matches(folder, question):
    assert Index.of(folder).search(question, 3) == []


HOSTILE = [
    '"', "'", "*", "lamp*", "NEAR(lamp sugar)", "lamp OR", "OR", "AND NOT", "title:lamp", "{title body}: lamp", "^lamp",
    'lamp" OR "1', "lamp'; DROP TABLE passages; --", "(((((", "-lamp +lamp", "lamp\x00lamp", "\\", "%", "lamp AND (",
    "a" * 9_000, '盐" OR "', "盐*", "\ue0000\ue001", "<|end|>",
]  # fmt: skip


@pytest.mark.parametrize("question", HOSTILE)
def test_no_question_is_taken_for_the_language_of_searches(folder, question):
    index = Index.of(folder)
    found = index.search(question, 3)
    assert all("lamp" in passage.text or "盐" in passage.text for passage in found)
    if "lamp" in question and "NEAR" not in question and "DROP" not in question and "title body" not in question:
        assert found
    assert index.search("盐", 3)


def test_in_a_single_document_a_question_that_holds_more_than_it_does_is_found_too(tmp_path):
    (tmp_path / "退货.md").write_text("# 退货\n收货后三十天内可以退货。\n")
    index = Index.of(tmp_path)
    assert best(index, "退货期限是多久？") == ["退货.md:2"]
    assert best(index, "今天天气怎么样") == []


def test_files_and_folders_narrow_it(folder):
    index = Index.of(folder)
    assert best(index, "退货 period", files=["returns.md"]) == ["returns.md:4"]
    assert {passage.file for passage in index.search("退货 盐", 9, ["zh"])} == {"zh/退货.md", "zh/储存.txt"}
    for nowhere in ("z", "zh/退", "%", "*", "../documents/zh", "returns.md' OR 1"):
        assert index.search("退货", 9, [nowhere]) == []


def test_no_more_than_k_are_given_the_best_first(folder):
    index = Index.of(folder)
    assert len(index.search("note of interest", 5)) == 5
    assert index.search("退货运费", 1)[0].line == 7


def test_the_index_is_kept_while_the_documents_are_the_same_and_made_anew_when_they_change(folder, cache):
    Index.of(folder).close()
    [kept] = cache.glob("documents-*.sqlite")
    made = kept.stat().st_ino
    os.utime(folder / "returns.md")
    Index.of(folder).close()
    assert kept.stat().st_ino == made
    open_index = Index.of(folder)
    (folder / "returns.md").write_text("Umbrellas are never taken back.")
    assert best(Index.of(folder), "umbrellas") == ["returns.md:1"]
    assert kept.stat().st_ino != made
    assert best(open_index, "postage of returns") == ["returns.md:7"]  # who had it open still has it
    assert [path.name for path in cache.iterdir()] == [kept.name]


@pytest.mark.parametrize("damage", [lambda raw: raw[:3000], lambda raw: b"x" * len(raw), lambda raw: b"",
                                    lambda raw: raw[:5000] + b"\xff" * 4096 + raw[9096:]])  # fmt: skip
def test_a_damaged_index_is_made_anew(folder, cache, damage):
    Index.of(folder).close()
    [kept] = cache.glob("documents-*.sqlite")
    kept.write_bytes(damage(kept.read_bytes()))
    assert best(Index.of(folder), "盐") == ["zh/储存.txt:1"]


def test_a_process_that_dies_while_it_indexes_leaves_the_old_index(folder, cache, monkeypatch):
    Index.of(folder).close()
    [kept] = cache.glob("documents-*.sqlite")
    before = kept.read_bytes()
    (folder / "returns.md").write_text("Other words.")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(index_module, "indexed", die)
    with pytest.raises(KeyboardInterrupt):
        Index.of(folder)
    assert kept.read_bytes() == before


def test_where_nothing_can_be_kept_the_index_is_in_memory(folder, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the cache should be")
    assert best(Index.of(folder), "盐") == ["zh/储存.txt:1"]
    assert "cannot be kept" in caplog.text


def test_a_full_disk_is_no_reason_to_stop(folder, monkeypatch, cache):
    fill, calls = index_module._fill, []

    def full(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise sqlite3.OperationalError("database or disk is full")
        fill(*arguments)

    monkeypatch.setattr(index_module, "_fill", full)
    assert best(Index.of(folder), "盐") == ["zh/储存.txt:1"]
    assert list(cache.iterdir()) == []


def test_many_threads_search_at_once(folder):
    index, found = Index.of(folder), []
    threads = [threading.Thread(target=lambda: found.append(best(index, "退货期限"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [["zh/退货.md:4"]] * 16


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_running_server_follows_its_documents_and_a_fault_in_them_leaves_the_old_ones(folder, monkeypatch, caplog):
    monkeypatch.setattr(library, "LOOK_S", 0.0)
    documents = Documents(folder)
    (folder / "new.txt").write_text("Zebras are striped.")
    until(lambda: documents.search("zebras", 1))
    (folder / "new.txt").write_bytes(b"Zebras \xff")
    until(lambda: documents.search("zebras", 1) and "not UTF-8" in caplog.text)
    (folder / "new.txt").unlink()
    until(lambda: not documents.search("zebras", 1))


def test_documents_without_a_word_are_refused(tmp_path):
    (tmp_path / "a.md").write_text("\n\n")
    with pytest.raises(InputError, match="hold no text"):
        Documents(tmp_path)


@pytest.fixture(scope="module")
def own_pages(tmp_path_factory):
    """The project's own documents: real text in English and Chinese."""
    folder = tmp_path_factory.mktemp("pages")
    for page in [
        *(ROOT / "docs").glob("*.md"),
        ROOT / "README.zh-CN.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "ARCHITECTURE.md",
    ]:
        shutil.copy(page, folder)
    return folder


def test_nine_of_ten_questions_about_real_documents_find_their_section_among_four(own_pages, record_property):
    """Questions in people's words, written beside the pages; each names the file and a part of the passage's text."""
    index, asked = Index.of(own_pages), json.loads(QUESTIONS.read_text(encoding="utf-8"))
    missed, first = [], 0
    for question, file, words in asked["found"]:
        hits = [place for place, passage in enumerate(index.search(question, 4))
                if passage.file == file and words in " ".join(passage.text.split())]  # fmt: skip
        missed += [] if hits else [question]
        first += bool(hits) and hits[0] == 0
    total = len(asked["found"])
    record_property("recall_at_4", 1 - len(missed) / total)
    print(f"recall@4 {total - len(missed)}/{total}, first {first}/{total}; missed: {missed}")
    assert len(missed) <= 0.1 * total, missed
    wrongly = [question for question in asked["nothing"] if index.search(question, 4)]
    print(f"found for what is not there: {len(wrongly)}/{len(asked['nothing'])}: {wrongly}")
    assert len(wrongly) <= 0.1 * len(asked["nothing"]), wrongly
