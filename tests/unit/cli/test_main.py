"""What ends a command becomes its message and its exit code."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer

import moreseek.cli
from moreseek.errors import FaultError, InputError, MoreseekError, RunInUseError

Ending = Callable[[BaseException | None], tuple[int, str]]


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ending:
    """ending(error): exit code and stderr of a command that ends with this error."""

    def run(error: BaseException | None) -> tuple[int, str]:
        app = typer.Typer()

        @app.command()
        def act() -> None:
            if error is not None:
                raise error

        monkeypatch.setattr(moreseek.cli, "app", app)
        monkeypatch.setattr(sys, "argv", ["moreseek"])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as end:
            moreseek.cli.main()
        return int(end.value.code or 0), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (InputError("r.toml: no."), 2, "moreseek: r.toml: no.\n"),
        (FaultError("step 3: no."), 3, "moreseek: step 3: no.\n"),
        (RunInUseError("in use."), 3, "moreseek: in use.\n"),
        (typer.Exit(5), 5, ""),
        (KeyboardInterrupt(), 130, "moreseek: stopped.\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), 3, "moreseek: /a/b: Permission denied.\n"),
        (typer.BadParameter("no number"), 2, "Invalid value: no number"),
    ],
)
def test_an_ending_has_its_code_and_its_message(
    error: BaseException | None, code: int, said: str, ending: Ending
) -> None:
    found, message = ending(error)
    assert found == code
    assert said in message
    assert "Traceback" not in message


def words(*arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """Both outputs of a real command line in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["moreseek", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit):
        moreseek.cli.main()
    return "".join(capsys.readouterr())


@pytest.mark.parametrize("group", [(), ("arena",)])
def test_the_list_of_commands_fits_a_terminal_of_80_columns(group, monkeypatch, capsys) -> None:
    listed = words(*group, "--help", monkeypatch=monkeypatch, capsys=capsys)
    assert "..." not in listed.split("Commands:")[1]


def test_a_wrong_command_line_says_where_its_help_is(monkeypatch, capsys) -> None:
    said = words("eval", "m", "--problem", "x", monkeypatch=monkeypatch, capsys=capsys)
    assert said.startswith("moreseek: No such option")
    assert said.endswith(" eval --help` shows how.\n")
    assert words(monkeypatch=monkeypatch, capsys=capsys).startswith("Usage: ")


@pytest.mark.parametrize("encoding", ["ascii", "gbk", "latin-1"])
def test_a_terminal_without_a_letter_shows_a_question_mark_and_no_traceback(encoding, tmp_path) -> None:
    votes = tmp_path / "votes.csv"
    votes.write_text("a,b,outcome\nträge,快,tie\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "moreseek", "arena", "leaderboard", votes], capture_output=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode(encoding)
    assert "?" in shown
    assert "1000" in shown


def test_a_full_disk_says_what_to_do(ending: Ending) -> None:
    code, message = ending(OSError(errno.ENOSPC, "No space left on device", "/runs/a/metrics.jsonl"))
    assert code == 3
    assert message.startswith("moreseek: /runs/a/metrics.jsonl: the disk is full.")
    assert "the same command" in message
    assert "None" not in ending(OSError(errno.ENOSPC, "No space left on device"))[1]


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(standalone_mode: bool) -> None:
        raise KeyError("a defect of ours")

    monkeypatch.setattr(moreseek.cli, "app", broken)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(KeyError):
        moreseek.cli.main()


def test_every_error_for_people_has_an_exit_code_of_the_contract() -> None:
    assert (MoreseekError.exit_code, InputError.exit_code) == (2, 2)
    assert (FaultError.exit_code, RunInUseError.exit_code) == (3, 3)
