"""Files of votes: every format, and for every mistake the file and the line."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import moreseek.arena.vote_files
from moreseek.arena.ratings import bradley_terry
from moreseek.arena.style_columns import with_answers
from moreseek.arena.vote_formats import read_votes
from moreseek.errors import InputError

HEADER = "left,right,winner,worker,prompt\n"
ROWS = "x,y,left,w1,1\ny,x,tie,w2,1\nx,z,right,w1,2\n"


def written(tmp_path: Path, text: str | bytes, name: str = "votes.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return path


def listed(votes) -> list[tuple]:
    """The votes as anybody would write them down."""
    out = []
    for row in range(len(votes)):
        labels = [votes.labels[name] for name in sorted(votes.labels)]
        shown = [each.names[each.codes[row]] if each.codes[row] >= 0 else None for each in labels]
        out.append((votes.names[votes.a[row]], votes.names[votes.b[row]], int(votes.outcome[row]), *shown))
    return out


PLAIN = [("x", "y", 0, "1", "w1"), ("y", "x", 2, "1", "w2"), ("x", "z", 1, "2", "w1")]


@pytest.mark.parametrize(
    "text",
    [
        HEADER + ROWS,
        "\ufeff" + HEADER + ROWS,
        (HEADER + ROWS).replace("\n", "\r\n"),
        (HEADER + ROWS).removesuffix("\n"),
        HEADER + "\n" + ROWS + "\n\n",
        (HEADER + ROWS).replace(",", "\t"),
        HEADER + ROWS.replace("x", '"x"'),
        HEADER + ROWS.replace("x", " x "),
        HEADER + ROWS.replace("left", "LEFT"),
        "prompt,worker,winner,right,left,more\n" + "".join(
            ",".join(reversed(line.split(","))) + ",?\n" for line in ROWS.splitlines()),
        "a,b,outcome,voter,prompt\n" + ROWS.replace("left", "model_a").replace("right", "model_b"),
        "model_a,model_b,winner,judge,prompt\n" + ROWS.replace("left", "model_a").replace("right", "model_b"),
    ],
    ids=["plain", "bom", "crlf", "no last newline", "blank lines", "tabs", "quoted", "spaces", "capitals",
         "other order", "own columns", "lmarena"],
)  # fmt: skip
def test_every_way_to_write_a_table_gives_the_same_votes(tmp_path, text):
    assert listed(read_votes(written(tmp_path, text))) == PLAIN
    assert listed(read_votes(written(tmp_path, text), fast=False)) == PLAIN


def said(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_lmarena_records_with_nested_metadata(tmp_path):
    records = [
        {
            "model_a": "x", "model_b": "y", "winner": "tie (bothbad)", "judge": "u1", "tstamp": 1700000000.5,
            "language": "English", "conversation_a": said("hi", "a"),
            "conv_metadata": {
                "sum_assistant_a_tokens": 7, "sum_assistant_b_tokens": 9, "header_count_a": {"h1": 1, "h2": 2},
                "header_count_b": {"h1": 0, "h2": 0}, "bold_count_a": {"**": 1, "__": 0},
                "bold_count_b": {"**": 0, "__": 3}, "list_count_a": {"ordered": 0, "unordered": 4},
                "list_count_b": {"ordered": 1, "unordered": 1},
            },
        },
        {
            "model_a": "y", "model_b": "x", "winner": "model_b", "judge": "u2", "tstamp": 1700000100,
            "language": "Chinese", "conversation_a": said("hi", "b"),
            "conv_metadata": {
                "sum_assistant_a_tokens": 1, "sum_assistant_b_tokens": 2, "header_count_a": {"h1": 0, "h2": 0},
                "header_count_b": {"h1": 0, "h2": 0}, "bold_count_a": {"**": 0, "__": 0},
                "bold_count_b": {"**": 0, "__": 0}, "list_count_a": {"ordered": 0, "unordered": 0},
                "list_count_b": {"ordered": 0, "unordered": 0},
            },
        },
    ]  # fmt: skip
    array = written(tmp_path, json.dumps(records), "battles.json")
    lines = written(tmp_path, "\n".join(map(json.dumps, records)) + "\n", "battles.jsonl")
    for path in (array, lines):
        for format in ("auto", "lmarena", "fastchat"):
            votes = read_votes(path, format, style=True)
            assert [row[:3] for row in listed(votes)] == [("x", "y", 3), ("y", "x", 1)]
            assert votes.labels["voter"].names == ("u1", "u2")
            assert len(votes.labels["prompt"].names) == 1  # the same question, two conversations
            assert votes.labels["language"].names == ("English", "Chinese")
            assert votes.time.tolist() == [1700000000.5, 1700000100]
            assert {name: pair[0].tolist() for name, pair in votes.features.items()} == {
                "tokens": [7, 9], "headers": [3, 0], "bold": [1, 3], "lists": [4, 2]
            }  # fmt: skip


def test_one_hot_winners_and_answers_as_in_lmarenas_competition(tmp_path):
    text = (
        "id,model_a,model_b,prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"
        '1,x,y,"say, hi","# Title\n\n- one\n- two","**no**",1,0,0\n2,y,x,"say, hi",plain,"a b c",0,0,1\n'
    )
    votes = read_votes(written(tmp_path, text), style=True)
    assert listed(votes) == [("x", "y", 0, "say, hi"), ("y", "x", 2, "say, hi")]
    assert votes.features["lists"].tolist() == [[2, 0], [0, 0]]
    assert votes.features["headers"].tolist() == [[1, 0], [0, 0]]
    assert votes.features["bold"].tolist() == [[0, 1], [0, 0]]
    wrong = text.replace("1,0,0\n2", "1,1,0\n2")
    with pytest.raises(InputError, match=r"votes\.csv:2: winner_model_a, .* are 1, 1, 0; one 1 and two 0"):
        read_votes(written(tmp_path, wrong))


def test_fastchats_raw_log_counts_votes_alone(tmp_path):
    states = [{"model_name": "x"}, {"model_name": "y"}]
    events = [
        {"tstamp": 1.0, "type": "chat", "model": "x"},
        {"tstamp": 2.0, "type": "leftvote", "models": ["", ""], "states": states, "ip": "1.2.3.4"},
        {"tstamp": 3.0, "type": "bothbad_vote", "models": ["", ""], "states": states, "ip": "1.2.3.5"},
    ]
    votes = read_votes(written(tmp_path, "\n".join(map(json.dumps, events)), "log.jsonl"))
    assert [row[:3] for row in listed(votes)] == [("x", "y", 0), ("x", "y", 3)]
    assert len(votes.labels["voter"].names) == 2
    events[1]["models"] = ["x"]
    with pytest.raises(InputError, match=r"log\.jsonl:2: a vote without two models"):
        read_votes(written(tmp_path, "\n".join(map(json.dumps, events)), "log.jsonl"))


MISTAKES = {
    "nothing at all": ("", "1: the file is empty"),
    "a header alone": (HEADER, "a header but no votes"),
    "no column winner": ("left,right,who\nx,y,left\n", "1: the header needs the columns"),
    "a column twice": ("left,left,winner\nx,y,left\n", "1: column 'left' stands twice"),
    "an unknown outcome": (HEADER + ROWS + "x,y,both,w,1\n", "5: column 'winner': outcome 'both' is none of model_a"),
    "an empty outcome": (HEADER + "x,y,,w,1\n", "2: column 'winner': outcome ''"),
    "an empty name": (HEADER + ROWS + "x, ,left,w,1\n", "5: column 'right': a contestant's name is needed"),
    "a field too few": (HEADER + ROWS + "x,y,left,w\n", "5: 4 fields, but the header has 5"),
    "a field too many": (HEADER + "x,y,left,w,1,2\n" + ROWS, "2: 6 fields, but the header has 5"),
    "fields that even out": (HEADER + "x,y,left,w\nx,y,left,w,1,2\n", "2: 4 fields"),
    "after a blank line": (HEADER + "\n" + ROWS + "x,y,?,w,1\n", "6: column 'winner'"),
    "after a field with line breaks": (HEADER + '"x",y,left,"w\n\n1",1\nx,y,?,w,1\n', "5: column 'winner'"),
    "a quote that never ends": (HEADER + ROWS + 'x,"y,left,w,1\nx,y,left,w,1\n', "5: "),
    "a quote in the middle": (HEADER + 'x,y"z,left,w,"1"x\n', "2: "),
    "not UTF-8": (HEADER.encode() + ROWS.encode() + b"x,\xff,left,w,1\n", "5: not UTF-8"),
    "UTF-16": ((HEADER + ROWS).encode("utf-16"), "1: not UTF-8"),
    "a packed file": (b"\x1f\x8b\x08\x00rest", "packed or binary"),
    "a parquet file": (b"PAR1rest", "packed or binary"),
    "a wrong time": ("a,b,outcome,time\nx,y,tie,1.5\nx,y,tie,soon\n", "3: column 'time': 'soon' is neither"),
    "broken JSON": ('{"a": "x", "b": "y", "outcome": "tie"}\n{"a": \n', "2: not a JSON object on one line"),
    "JSON that is no object": ('{"a": "x", "b": "y", "outcome": "tie"}\n[1]\n', "2: a JSON object is needed"),
    "JSON without a name": ('{"a": "x", "b": null, "outcome": "tie"}\n', "1: column 'b': a contestant's name"),
    "JSON with a list for a name": ('{"a": "x", "b": ["y"], "outcome": "tie"}\n', "1: column 'b'"),
    "JSON with a number for an outcome": ('{"a": "x", "b": "y", "outcome": 1}\n', "1: column 'outcome': outcome 1"),
    "JSON with half a character": ('{"a": "x", "b": "\\ud800", "outcome": "tie"}\n', "lone surrogate"),
    "a JSON array cut short": ('[{"a": "x", "b": "y", "outcome": "tie"},\n{"a": "x"', "2: not valid JSON"),
    "a JSON array without end": ('[{"a": "x", "b": "y", "outcome": "tie"},\n', "2: the JSON array has no end"),
    "no columns in JSON": ('{"left": "x"}\n', "1: no columns a, b, outcome or left, right, winner"),
    "very deep JSON": ("[" * 100_000, "1: not valid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_file_and_line(tmp_path, name):
    text, said = MISTAKES[name]
    path = written(tmp_path, text)
    for fast in (True, False):
        with pytest.raises(InputError) as caught:
            read_votes(path, fast=fast)
        assert str(path) in str(caught.value)
        assert said in str(caught.value)


def test_a_mistake_far_down_has_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr(moreseek.arena.vote_files, "BATCH", 7)
    monkeypatch.setattr(moreseek.arena.vote_files, "BLOCK", 100)
    path = written(tmp_path, HEADER + ROWS * 300 + "x,y,?,w,1\n" + ROWS * 5)
    for fast in (True, False):
        with pytest.raises(InputError, match=r"votes\.csv:902: column 'winner': outcome '\?'"):
            read_votes(path, fast=fast)


def test_a_folder_a_missing_file_and_an_unknown_format_are_told(tmp_path):
    with pytest.raises(InputError, match="a folder"):
        read_votes(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_votes(tmp_path / "votes.csv")
    with pytest.raises(InputError, match="Did you mean 'lmarena'"):
        read_votes(written(tmp_path, HEADER + ROWS), "lmarna")
    with pytest.raises(InputError, match="needs the columns model_a, model_b, winner; found left"):
        read_votes(written(tmp_path, HEADER + ROWS), "lmarena")


FIELD = st.text(st.sampled_from('ab"éx ,\n\r\t模\U0001f600'), max_size=12)
NAME = FIELD.map(lambda text: "n" + text + "n")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(NAME, NAME, st.sampled_from(["left", "right", "tie"]), FIELD), min_size=1, max_size=25),
    st.integers(20, 90),
)
def test_the_fast_reader_reads_what_pythons_csv_reader_reads(tmp_path_factory, rows, block):
    import csv

    path = tmp_path_factory.mktemp("twins") / "votes.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("left", "right", "winner", "worker"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moreseek.arena.vote_files, "BLOCK", block)
        assert read_or_told(path, True) == read_or_told(path, False)


def read_or_told(path: Path, fast: bool) -> list[tuple] | str:
    try:
        return listed(read_votes(path, fast=fast))
    except InputError as error:
        return str(error)  # a bare carriage return ends a row, which then is too short


RECORD = '{"a": "x", "b": "y", "outcome": "tie"}'
JUNK = st.sampled_from(
    ["a,b,outcome", "x,y,tie", RECORD, "[", "]", "{", "}", '"', ",", "\n", "\r", "\0", "\t", "é", "null"]
)


def test_the_first_mistake_of_a_file_is_the_one_told(tmp_path, monkeypatch):
    for block, batch in ((1 << 20, 1 << 16), (40, 2)):
        monkeypatch.setattr(moreseek.arena.vote_files, "BLOCK", block)
        monkeypatch.setattr(moreseek.arena.vote_files, "BATCH", batch)
        for fast in (True, False):
            for rows, line in (
                ("x,y,?,w,1\nx,y\n", "2: column 'winner'"),
                ("x,y\nx,y,?,w,1\n", "2: 2 fields"),
                (ROWS + 'x,y,?,w,1\n"x"y,y,tie,w,1\n', "5: column 'winner'"),
                (ROWS + '"x"y,y,tie,w,1\nx,y,?,w,1\n', "5: ',' expected"),
                (ROWS + "x,y,?,w,1\n,y,tie,w,1\n", "5: column 'winner'"),
            ):
                with pytest.raises(InputError, match=re.escape(f"votes.csv:{line}")):
                    read_votes(written(tmp_path, HEADER + rows), fast=fast)


@example(data=b"\xef")
@example(data=b"\0\n\0\n,")
@example(data=b"a,b,outcome\nx,y,nobody\nx")
@settings(max_examples=300, deadline=None)
@given(data=st.one_of(st.binary(max_size=60), st.lists(JUNK, max_size=14).map(lambda parts: "".join(parts).encode())))
def test_any_bytes_are_votes_or_a_message(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("junk") / "votes.csv"
    path.write_bytes(data)
    results = [read_or_told(path, fast) for fast in (True, False)]
    assert results[0] == results[1]
    assert isinstance(results[0], list) or str(path) in results[0]


def test_values_that_share_a_slot_of_the_hash_table_are_told_apart(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    names = [f"model {'x' * int(rng.integers(0, 70))}{i}" for i in range(300)]
    rows = "".join(f"{names[i]},{names[j]},tie,v{i * j}\n" for i, j in rng.integers(0, 300, (4000, 2)))
    path = written(tmp_path, "left,right,winner,worker\n" + rows)
    wanted = listed(read_votes(path, fast=False))
    monkeypatch.setattr("moreseek.arena.csv_blocks._BITS", 4)
    assert listed(read_votes(path)) == wanted


def test_long_prompts_are_kept_apart_by_their_hash(tmp_path):
    long = "q" * 300
    votes = read_votes(written(tmp_path, HEADER + f"x,y,tie,w,{long}1\ny,x,tie,w,{long}2\nx,y,tie,w,{long}1\n"))
    assert votes.labels["prompt"].codes.tolist() == [0, 1, 0]
    assert max(map(len, votes.labels["prompt"].names)) <= 64


def test_the_same_name_in_two_unicode_forms_is_one_contestant(tmp_path):
    votes = read_votes(written(tmp_path, HEADER + "caf\u00e9,y,left,w,1\ncafe\u0301,y,left,w,1\n"))
    assert votes.names == ("caf\u00e9", "y")


def test_times_are_seconds_or_dates(tmp_path):
    text = "a,b,outcome,time\nx,y,tie,2026-05-01\nx,y,tie,2026-05-01T02:00:00+02:00\nx,y,tie,\nx,y,tie,1777593600\n"
    time = read_votes(written(tmp_path, text)).time
    assert time[0] == time[1] == time[3] == 1777593600
    assert math.isnan(time[2])


def test_answers_of_their_own_file_give_the_style(tmp_path):
    votes = read_votes(written(tmp_path, HEADER + ROWS))
    rows = [("x", 1, "a b", 2), ("y", 1, "**c**", 4), ("x", 2, "- d", 1), ("z", 2, "", 0), ("x", 1, "a b c d", 4)]
    rows.append(("other", 9, "", 1))
    answers = [dict(zip(("name", "prompt", "answer", "latency"), row, strict=True)) for row in rows]
    path = written(tmp_path, "\n".join(map(json.dumps, answers)), "answers.jsonl")
    found = with_answers(votes, path).features
    assert found["tokens"].tolist() == [[3, 5], [5, 3], [2, 0]]
    assert found["latency"].tolist() == [[3, 4], [4, 3], [1, 0]]
    path = written(tmp_path, "\n".join(map(json.dumps, answers[:3])), "answers.jsonl")
    with pytest.raises(InputError, match=r"answers\.jsonl: no answer of 'z' to prompt '2'"):
        with_answers(votes, path)


def test_a_wrong_style_column_has_its_line(tmp_path):
    text = "a,b,outcome,tokens_a,tokens_b\nx,y,tie,3,4\nx,y,tie,3,many\n"
    with pytest.raises(
        InputError, match=r"votes\.csv:3: column 'tokens_b': a number from 0 up is needed, found 'many'"
    ):
        read_votes(written(tmp_path, text), style=True)
    assert len(read_votes(written(tmp_path, text))) == 2  # without style control it does not matter


def test_a_board_from_a_file_is_a_board_from_columns(real_votes):
    votes = read_votes(real_votes / "crowd-comparisons.csv", "llmfao")
    assert (len(votes), len(votes.names)) == (8931, 59)
    columns = {"a": [votes.names[i] for i in votes.a], "b": [votes.names[i] for i in votes.b], "outcome": votes.outcome}
    found, wanted = bradley_terry(columns), bradley_terry(votes)
    assert dict(zip(found.names, found.rating.round(9), strict=True)) == dict(
        zip(wanted.names, wanted.rating.round(9), strict=True)
    )


def test_votes_on_battles_whose_names_were_shown_are_left_out_and_counted(tmp_path):
    rows = [{"model_a": "x", "model_b": "y", "winner": "tie", "anony": blind} for blind in (True, False, True)]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    votes = read_votes(written(tmp_path, lines, "battles.jsonl"))
    assert len(votes) == 2
    assert "1 votes on battles whose names were shown" in bradley_terry(votes).warnings[0]
    table = "model_a,model_b,winner,anony\nx,y,tie,True\nx,y,tie,False\n"
    assert len(read_votes(written(tmp_path, table))) == 1
    with pytest.raises(InputError, match="every vote is on a battle whose names were shown"):
        read_votes(written(tmp_path, table.replace("True", "False")))


def test_fastchats_masks_are_no_names_and_its_states_are_conversations(tmp_path):
    state = lambda name: {"model_name": name, "messages": [["USER", "hi"], ["ASSISTANT", f"**{name}**"]]}  # noqa: E731
    event = {"type": "leftvote", "models": ["Model A", "Model B"], "states": [state("x"), state("y")], "ip": "1.2.3.4"}
    votes = read_votes(written(tmp_path, json.dumps(event) + "\n", "log.jsonl"), style=True)
    assert votes.names == ("x", "y")
    assert votes.features["bold"].tolist() == [[1, 1]]
    assert len(votes.labels["prompt"].names) == 1
