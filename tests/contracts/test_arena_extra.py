"""`pip install moreseek[arena]` is enough: the arena works with the packages of the base and of its extra alone."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from tests.unit.arena.site.endpoints import endpoint
from tests.unit.arena.site.running import Browser

ROOT = Path(__file__).resolve().parents[2]
VOTES = "left,right,winner,worker,prompt\n" + "x,y,left,w1,p1\ny,x,tie,w2,p2\ny,z,right,w3,p3\nz,x,left,w4,p4\n" * 20
RUN = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"{{name}} does not come with moreseek[arena]")
sys.meta_path.insert(0, Absent())
sys.argv = {arguments!r}
from moreseek.cli import main
main()
"""


def normalised(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def closure(names: list[str]) -> set[str]:
    """These packages and all that they need, as installed here."""
    known: set[str] = set()
    while names:
        name = names.pop()
        if name not in known:
            known.add(name)
            try:
                needed = requires(name) or []
            except PackageNotFoundError:
                continue
            names += [normalised(line) for line in needed if "extra ==" not in line]
    return known


@pytest.fixture(scope="module")
def absent() -> list[str]:
    """Top-level modules of everything else that is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["arena"]
    there = closure([normalised(line) for line in lines]) | {"moreseek"}
    found = packages_distributions()
    return sorted(module for module, owners in found.items() if not {normalised(owner) for owner in owners} & there)


def run(absent: list[str], *arguments: object) -> subprocess.CompletedProcess[str]:
    code = RUN.format(absent=set(absent), arguments=["moreseek", *map(str, arguments)])
    environment = {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "120", "MPLBACKEND": "Agg"}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)


def test_torch_is_not_part_of_the_arena(absent):
    if "torch" not in packages_distributions():
        pytest.skip("torch is not installed, so this is such an environment already")
    assert "torch" in absent
    assert "tokenizers" in absent


def test_the_leaderboard_and_its_picture_need_nothing_else(absent, tmp_path):
    path, picture = tmp_path / "votes.csv", tmp_path / "board.png"
    path.write_text(VOTES, encoding="utf-8")
    done = run(absent, "arena", "leaderboard", path, "--json", "--plot", picture)
    assert done.returncode == 0, done.stderr
    assert [row["name"] for row in json.loads(done.stdout)["rows"]] == ["z", "x", "y"]
    assert picture.is_file()


def test_serving_a_battle_and_its_vote_need_nothing_else(absent, tmp_path):
    with endpoint() as server:
        config = tmp_path / "arena.toml"
        one = f'url = "{server.url}"\ninternal = true\nclass = "base"\n'
        config.write_text(
            f'[[contestant]]\nname = "x"\nmodel = "ok"\n{one}[[contestant]]\nname = "y"\nmodel = "second"\n{one}',
            encoding="utf-8",
        )
        arguments = ["moreseek", "arena", "serve", "--config", str(config), "--port", "0"]
        code = RUN.format(absent=set(absent), arguments=arguments)
        process = subprocess.Popen(
            [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, stderr=subprocess.PIPE, text=True
        )
        try:
            found = re.search(r"http://[^/ ]+", line := process.stderr.readline())
            assert found, line + process.stderr.read()
            browser = Browser(found.group())
            assert browser.battle_and_vote().status_code == 200
            assert browser.http.get("/leaderboard.json").json()["votes"] == 1
        finally:
            process.terminate()
            process.communicate(timeout=20)


def test_a_judge_needs_nothing_else_and_local_models_say_what_they_need(absent, tmp_path):
    with endpoint() as server:
        server.say.update(right=lambda prompt: prompt[0], wrong=lambda _: "no")
        one = f'url = "{server.url}"\ninternal = true\nclass = "base"\n'
        config, problems = tmp_path / "arena.toml", tmp_path / "problems.jsonl"
        text = f'[[contestant]]\nname = "x"\nmodel = "right"\n{one}[[contestant]]\nname = "y"\nmodel = "wrong"\n{one}'
        config.write_text(text, encoding="utf-8")
        problems.write_text('{"prompt": "7?", "answer": "7"}\n{"prompt": "8?", "answer": "8"}\n', encoding="utf-8")
        done = run(absent, "arena", "judge", config, "--problems", problems, "--json")
        assert done.returncode == 0, done.stderr
        assert [row["wins"] for row in json.loads(done.stdout)["board"]["rows"]] == [2, 0]
        model = tmp_path / "model.gguf"
        model.write_bytes(b"GGUF")
        config.write_text(f'{text}[[contestant]]\nname = "z"\nclass = "base"\npath = "model.gguf"\n', encoding="utf-8")
        done = run(absent, "arena", "judge", config, "--problems", problems)
        assert done.returncode == 2
        assert "pip install 'moreseek[model]'" in done.stderr


def test_the_comparison_needs_nothing_else(absent, tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text(VOTES, encoding="utf-8")
    done = run(absent, "arena", "compare", "y", "z", "--votes", path)
    assert done.returncode == 0, done.stderr
    assert "z is better than y" in done.stdout
