"""A board as a table for LaTeX."""

from typing import Any

from moreseek.evals.wording import visible

_SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "`": r"\textasciigrave{}",
}  # fmt: skip


def latex_of(board: dict[str, Any]) -> str:
    """The leaderboard's JSON as a ``tabular`` with booktabs' rules; ``-`` is the rank of the provisional.

    A document needs ``\\usepackage{booktabs}``; names beyond Latin, XeLaTeX or LuaLaTeX and a font that has them.
    """
    called = " ".join(visible(board["board"]).split())  # a comment ends with its line
    lines = [
        f"% {called}: {board['votes']:,} votes, {board['gauge']}, {board['level']:.0%} intervals",
        r"\begin{tabular}{rrlrrrr}",
        r"\toprule",
        r"Rank & Range & Model & Rating & Interval & Votes & Wins \\",
        r"\midrule",
        *map(_row, board["rows"]),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _row(row: dict[str, Any]) -> str:
    rank, reach = ("-", "") if row["rank"] is None else (str(row["rank"]), f"{row['rank_low']}--{row['rank_high']}")
    cells = (
        rank, reach, escaped(visible(row["name"])), f"{row['rating']:.0f}",
        f"[{row['ci_low']:.0f}, {row['ci_high']:.0f}]", f"{row['battles']:,.6g}", f"{row['wins']:,.6g}",
    )  # fmt: skip
    return " & ".join(cells) + r" \\"


def escaped(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_SIGNS.get(sign, sign) for sign in text)
