"""Every `moreseek …` line that README and docs print is a command line that the program understands."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from moreseek.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def lines() -> Iterator[tuple[str, str]]:
    """(page, command line) of every code block, as it would be pasted: ``#`` begins a comment."""
    for page in PAGES:
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.splitlines():
                command = line.removeprefix("$ ")
                if command.startswith("moreseek "):
                    yield page.name, command.partition(" > ")[0]


LINES = sorted(set(lines()))


def parse(line: str) -> None:
    """Parse a command line as the program does, without running it. Raises click's UsageError."""
    command, arguments = typer.main.get_command(app), shlex.split(line, comments=True)[1:]
    context = None
    while True:
        context = command.make_context(arguments[0] if arguments else "moreseek", list(arguments), parent=context)
        if not hasattr(command, "commands"):
            return
        _, command, arguments = command.resolve_command(context, [*context._protected_args, *context.args])


def test_the_pages_print_commands() -> None:
    assert len(LINES) > 60


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_printed_command_line_can_be_pasted(page: str, line: str) -> None:
    parse(line)


@pytest.mark.parametrize(
    "line", ["moreseek evl m", "moreseek eval m --problem p", "moreseek chat m n", "moreseek arena judg"]
)
def test_a_command_line_that_is_none_is_seen(line: str) -> None:
    with pytest.raises(Exception, match=r"No such|unexpected|Missing"):
        parse(line)
