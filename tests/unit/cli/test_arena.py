"""`moreseek arena`: the documented JSON, exit codes, and messages for wrong input."""

import csv
import json
import sys

import pytest

import moreseek.cli

VOTES = "left,right,winner,worker,prompt,category\n" + "".join(
    f"{a},{b},{w},w{i % 40},p{i % 33},{'maths' if i % 2 else 'code'}\n"
    for i, (a, b, w) in enumerate(
        [("good", "bad", "left"), ("bad", "good", "right"), ("good", "fair", "left"), ("fair", "bad", "left"),
         ("bad", "fair", "left"), ("fair", "good", "left"), ("fair", "bad", "tie")] * 60)
)  # fmt: skip
ROW = ["name", "rating", "ci_low", "ci_high", "se", "rank", "rank_low", "rank_high", "battles", "wins", "ties",
       "provisional", "component"]  # fmt: skip


@pytest.fixture
def votes(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text(VOTES, encoding="utf-8")
    return path


@pytest.fixture
def moreseek_(monkeypatch, capsys):
    """moreseek_("arena", …): exit code, stdout, stderr."""

    def run(*arguments, columns=110):
        monkeypatch.setattr(sys, "argv", ["moreseek", *map(str, arguments)])
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit) as end:
            moreseek.cli.main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


def test_the_leaderboards_json_has_the_documented_keys(moreseek_, votes):
    code, out, err = moreseek_("arena", "leaderboard", votes, "--json")
    board = json.loads(out)
    assert (code, err) == (0, "")
    assert {"board", "votes", "gauge", "rows", "side_effect", "warnings"} <= set(board)
    assert (board["board"], board["votes"], board["gauge"]) == ("overall", 420, "mean 1000")
    assert all(list(row) == ROW for row in board["rows"])
    assert [row["name"] for row in board["rows"]] == ["good", "fair", "bad"]
    assert set(board["side_effect"]) == {"value", "ci_low", "ci_high"}
    assert sum(row["rating"] for row in board["rows"]) / 3 == pytest.approx(1000)
    assert board["rows"][0]["battles"] == board["rows"][0]["wins"] + 60 + board["rows"][0]["ties"]


def test_the_table_shows_ranks_intervals_and_the_robustness_line(moreseek_, votes):
    code, out, _ = moreseek_("arena", "leaderboard", votes)
    assert code == 0
    assert "95 % interval" in out
    assert out.index("good") < out.index("fair") < out.index("bad")
    assert "Removing" in out
    assert "shown on the left is worth" in out


@pytest.mark.parametrize(
    "options",
    [["--cluster", "none"], ["--cluster", "voter"], ["--cluster", "prompt"], ["--category", "maths"], ["--cap", "3"],
     ["--ties", "davidson"], ["--ties", "rao-kupper"], ["--min-votes", "1000"], ["--format", "llmfao"]],
    ids=" ".join,
)  # fmt: skip
def test_options_change_the_board_and_keep_its_form(moreseek_, votes, options):
    code, out, _ = moreseek_("arena", "leaderboard", votes, "--json", *options)
    assert code == 0
    assert [row["name"] for row in json.loads(out)["rows"]] == ["good", "fair", "bad"]
    assert moreseek_("arena", "leaderboard", votes, *options)[0] == 0


def test_a_terminal_of_80_columns_shows_every_name_and_interval_whole(moreseek_, tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("a,b,outcome\nSmolLM2-135M,tiny-r1 zero,model_b\n", encoding="utf-8")
    _, out, _ = moreseek_("arena", "leaderboard", path, columns=80)
    assert "…" not in out
    assert "SmolLM2-135M" in out
    assert "tiny-r1 zero" in out
    assert "– is provisional" in out
    assert "2 components" in out  # in words, where the column has no room
    assert "component" in moreseek_("arena", "leaderboard", path)[1].splitlines()[2]


def test_columns_parted_by_semicolons_are_told_for_what_they_are(moreseek_, tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("a;b;outcome\nx;y;tie\n", encoding="utf-8")
    code, _, err = moreseek_("arena", "leaderboard", path)
    assert code == 2
    assert "these by semicolons" in err


def test_rows_and_pictures_go_to_files(moreseek_, votes, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    rows, picture, latex = (tmp_path / name for name in ("board.csv", "board.png", "board.tex"))
    files = ("--csv", rows, "--plot", picture, "--latex", latex)
    code, out, _ = moreseek_("arena", "leaderboard", votes, *files, "--json")
    assert code == 0
    with rows.open(encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [row["name"] for row in json.loads(out)["rows"]]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert latex.read_text(encoding="utf-8").count(r"\\") == 1 + len(json.loads(out)["rows"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cluster", "voters"], "no such cluster 'voters'. Did you mean 'voter'?"),
        (["--cluster", "none,voter"], "'none' stands alone"),
        (["--format", "fastcat"], "Did you mean 'fastchat'?"),
        (["--ties", "davison"], "Did you mean 'davidson'?"),
        (["--ties", "both-bad"], "no vote says both_bad"),
        (["--category", "math"], "no category 'math'. Did you mean 'maths'?"),
        (["--language", "en"], "the votes have no column 'language'"),
        (["--since", "yesterday"], "--since yesterday: a date such as"),
        (["--since", "2026-01-01"], "the votes have no time"),
        (["--style"], "style control needs the answers' style"),
        (["--style", "--features", "tokens,emoji"], "no such feature 'emoji'"),
        (["--features", "tokens"], "add --style"),
        (["--style", "--ties", "davidson"], "does not go with --ties"),
        (["--cap", "0"], "'--cap'"),
        (["--plot", "board.gif"], "ends with .png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options_end_with_code_2_and_say_what_is_right(moreseek_, votes, options, said):
    code, out, err = moreseek_("arena", "leaderboard", votes, "--json", *options)
    assert code == 2
    assert out == ""
    assert said in err
    assert "Traceback" not in err


def test_a_wrong_line_ends_with_code_2_and_nothing_on_stdout(moreseek_, votes):
    votes.write_text(VOTES + "good,bad,won,w1,p1,maths\n", encoding="utf-8")
    code, out, err = moreseek_("arena", "leaderboard", votes, "--json")
    assert (code, out) == (2, "")
    assert "votes.csv:422: column 'winner': outcome 'won'" in err


def test_a_missing_file_ends_with_code_2(moreseek_, tmp_path):
    code, _, err = moreseek_("arena", "leaderboard", tmp_path / "none.csv")
    assert code == 2
    assert "no such file" in err


def test_names_cannot_write_to_the_terminal(moreseek_, tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text('left,right,winner\n"\x1b[31mred",[bold]x[/bold],tie\n', encoding="utf-8")
    _, out, _ = moreseek_("arena", "leaderboard", path)
    assert "\x1b[31mred" not in out
    assert "[bold]x[/bold]" in out


def test_comparing_is_a_gate_for_ci(moreseek_, votes):
    code, out, _ = moreseek_("arena", "compare", "bad", "good", "--votes", votes)
    assert code == 0
    assert "good is better than bad" in out
    code, out, _ = moreseek_("arena", "compare", "good", "bad", "--votes", votes, "--json")
    assert code == 1
    assert json.loads(out)["verdict"] == "worse"
    code, out, _ = moreseek_("arena", "compare", "good", "bad", "--votes", votes, "--direct", "--cluster", "none")
    assert code == 1
    code, _, err = moreseek_("arena", "compare", "good", "god", "--votes", votes)
    assert code == 2
    assert "Did you mean 'good'?" in err


def test_the_real_votes_make_a_board(moreseek_, real_votes):
    path = real_votes / "crowd-comparisons.csv"
    code, out, _ = moreseek_("arena", "leaderboard", path, "--json")
    assert code == 0
    assert json.loads(out)["rows"][0]["name"] == "GPT 4"
    code, out, _ = moreseek_(
        "arena", "leaderboard", path, "--style", "--answers", real_votes / "results.jsonl",
        "--features", "tokens,latency", "--json",
    )  # fmt: skip
    assert code == 0
    assert set(json.loads(out)["style"]) == {"tokens", "latency"}
