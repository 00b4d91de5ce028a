"""docs/operating.md and the files of examples/deploy name options and metrics that exist."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer

from moreseek.cli import app
from moreseek.server.metrics import Metrics, engines
from moreseek.server.models import Models, ServedModel
from moreseek.server.turns import FairQueue

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "examples" / "deploy"


def options():
    command = typer.main.get_command(app)
    return {
        option for parameter in command.commands["serve"].params for option in parameter.opts if option.startswith("--")
    }


def test_options_of_the_examples_exist():
    unit = (DEPLOY / "moreseek.service").read_text(encoding="utf-8")
    [started] = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", unit, re.MULTILINE)
    container = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    [entry] = re.findall(r"^ENTRYPOINT (.*)$", container, re.MULTILINE)
    used = {*re.findall(r"--[a-z-]+", started), *re.findall(r"--[a-z-]+", entry)}
    assert {"--host", "--port", "--api-key-file", "--drain"} <= used <= options()


def test_systemd_accepts_the_unit(tmp_path):
    """As it stands, but for the environment, which is not here."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    text = (DEPLOY / "moreseek.service").read_text(encoding="utf-8")
    program = "/opt/moreseek/.venv/bin/moreseek"
    assert program in text
    unit = tmp_path / "moreseek.service"
    for spoilt, fine in ((text, True), (text.replace("RestartSec=", "RestartSecs="), False)):
        unit.write_text(spoilt.replace(program, shutil.which("true")))
        done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=60)
        assert ("moreseek.service" not in done.stderr) == fine, done.stderr


def test_the_health_check_of_the_container_runs(tmp_path):
    container = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    [check] = re.findall(r"^HEALTHCHECK .*CMD \\\n\s+(.*)$", container, re.MULTILINE)
    command = json.loads(check)
    assert command[0] == "python"
    compile(command[2], "HEALTHCHECK", "exec")


def test_the_container_installs_extras_and_copies_files_that_exist():
    container = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [extras] = re.findall(r"'\.\[(.*)\]'", container)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for files in re.findall(r"^COPY (.*) \S+$", container, re.MULTILINE):
        assert all((ROOT / name).exists() for name in files.split())


def test_the_page_has_every_option_and_every_metric():
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    assert {option for option in options() if option not in ("--help", "--host", "--port")} <= set(
        re.findall(r"--[a-z-]+", page)
    )
    models = Models({"m": ServedModel("m", lambda: None, FairQueue(1, 1), 1)})
    names = {one.name.removeprefix("moreseek:") for one in [*vars(Metrics()).values(), *engines(models)]}
    assert names == set(
        re.findall(
            r"`([a-z_0-9]+)`",
            "".join(re.findall(r"^\| (`[a-z_`, 0-9]+`) \| (?:counter|gauge|histogram)", page, re.MULTILINE)),
        )
    )
