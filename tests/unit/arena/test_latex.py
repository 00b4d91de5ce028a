"""A board as a table for LaTeX."""

import re
import shutil
import subprocess

import pytest

from moreseek.arena.latex import escaped, latex_of
from moreseek.arena.leaderboard import board_json
from moreseek.arena.ratings import bradley_terry

HOSTILE = r"a_b & 100% $x$ #1 {y} ~^ \input{/etc/passwd} <|>" + '"`'


def board():
    names = ["plain", HOSTILE, "third"]
    a, b = [names[i % 3] for i in range(60)], [names[(i + 1) % 3] for i in range(60)]
    outcomes = [("model_a", "tie", "model_b", "model_a")[i % 4] for i in range(60)]
    return board_json(bradley_terry({"a": a, "b": b, "outcome": outcomes}))


def test_every_contestant_has_a_row_of_seven_cells_with_its_numbers():
    found = board()
    rows = [line for line in latex_of(found).splitlines() if line.endswith(r" \\")][1:]
    assert len(rows) == 3
    for line, row in zip(rows, found["rows"], strict=True):
        cells = re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))
        assert len(cells) == 7
        assert cells[0] == str(row["rank"])
        assert cells[2] == escaped(row["name"])
        assert cells[3] == f"{row['rating']:.0f}"


def test_names_are_text_and_no_commands():
    assert escaped(r"\input{x}") == r"\textbackslash{}input\{x\}"
    assert not re.search(r"(?<!\\)[&%$#_]", escaped("&%$#_"))


def test_latex_sets_it(tmp_path):
    program = shutil.which("pdflatex") or shutil.which("tectonic")
    if program is None:
        pytest.skip("no LaTeX here")
    text = "\\documentclass{article}\\usepackage[T1]{fontenc}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "x.tex").write_text(text + latex_of(board()) + "\\end{document}\n")
    command = [program, "-halt-on-error", "x.tex"] if "pdflatex" in program else [program, "x.tex"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60).returncode == 0
