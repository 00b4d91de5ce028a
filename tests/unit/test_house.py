"""The rules of the house: layers, style, types, what may be imported where, links that lead somewhere."""

import ast
import json
import os
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "moreseek"
TOOLS = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "NO_COLOR": "1", "COLUMNS": "120"}

FEATHERWEIGHT_PACKAGES = ("text", "data", "rewards", "arena")
FEATHERWEIGHT_MODULES = ("errors", "records", "config", "cli", "evals.statistics", "evals.report")
CONTAINER_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def run(*command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=240
    )


def assert_clean(*command: object) -> None:
    result = run(*command)
    assert result.returncode == 0, f"{' '.join(map(str, command))}\n{result.stdout}\n{result.stderr}"


def python(code: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-c", code)


def source_trees() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text(encoding="utf-8"))


@cache
def project_files() -> tuple[Path, ...]:
    """Every file that belongs to the project: tracked, or new and not ignored."""
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    paths = (ROOT / name for name in listing.stdout.split("\0") if name)
    return tuple(path for path in paths if path.is_file())


def project_texts() -> Iterator[tuple[str, str]]:
    for path in project_files():
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture


# --------------------------------------------------------------------------------------------------------- style


def test_nothing_imports_what_stands_above_it() -> None:
    assert_clean(TOOLS / "lint-imports", "--no-cache", "--no-logo")


def test_ruff_has_nothing_to_say() -> None:
    assert_clean(TOOLS / "ruff", "check", "--no-cache")


def test_the_code_is_formatted() -> None:
    assert_clean(TOOLS / "ruff", "format", "--check", "--no-cache")


def test_pyright_has_nothing_to_say() -> None:
    if run(TOOLS / "pyright", "--version").returncode != 0:
        pytest.skip("pyright needs Node.js, or the network to bring it")
    assert_clean(TOOLS / "pyright", "--pythonpath", sys.executable)


def test_no_module_is_named_for_nothing_in_particular() -> None:
    nameless = {"utils", "util", "common", "helpers", "helper", "misc", "manager"}
    assert [str(path) for path, _ in source_trees() if nameless & {path.stem, path.parent.name}] == []


# --------------------------------------------------------------------------------------------------- light starts


def test_import_moreseek_imports_no_torch() -> None:
    loaded = python("import sys, moreseek, json; print(json.dumps(sorted(sys.modules)))")
    assert loaded.returncode == 0, loaded.stderr
    assert {"torch", "numpy", "pydantic"} & set(json.loads(loaded.stdout)) == set()


def test_text_data_rewards_and_reports_import_no_torch() -> None:
    """Import-linter sees our own imports; this also sees what a third-party library would drag in."""
    modules = [f"moreseek.{name}" for name in FEATHERWEIGHT_MODULES]
    for package in FEATHERWEIGHT_PACKAGES:
        files = sorted((SOURCE / package).rglob("*.py"))
        modules += [".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in files]
    loaded = python(
        "import importlib, sys\n"
        f"for name in {modules!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, f'{name} imports torch'\n"
    )
    assert loaded.returncode == 0, loaded.stderr


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["run", "--help"], ["arena", "leaderboard", "--help"]], ids=" ".join
)
def test_help_and_version_import_no_torch(arguments: list[str]) -> None:
    answered = python(
        "import sys\n"
        f"sys.argv = {['moreseek', *arguments]!r}\n"
        "from moreseek.cli import main\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert answered.returncode == 0, answered.stderr
    assert answered.stdout.strip()


def test_help_answers_within_half_a_second() -> None:
    """Counted in processor time, the best of four: a busy machine must not fail it."""
    command = "import sys; sys.argv = ['moreseek', '--help']; from moreseek.cli import main; main()"
    spent = []
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python(command).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.5, f"moreseek --help took {min(spent):.2f} s"


def test_an_unknown_name_is_an_attribute_error() -> None:
    answer = python("import moreseek; moreseek.no_such_name")
    assert "AttributeError: module 'moreseek' has no attribute 'no_such_name'" in answer.stderr


# --------------------------------------------------------------------------------------------------------- safety


def test_no_source_file_reads_or_writes_pickles() -> None:
    assert [finding for path, tree in source_trees() for finding in pickles_in(path, tree)] == []


def pickles_in(path: Path, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        found = False
        if isinstance(node, ast.Import):
            found = any(alias.name.split(".")[0] in CONTAINER_MODULES for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found = (node.module or "").split(".")[0] in CONTAINER_MODULES
            found |= node.module == "torch" and any(alias.name in {"load", "save"} for alias in node.names)
        elif isinstance(node, ast.Call):
            found = ast.unparse(node.func) in {"torch.load", "torch.save"}
            found |= any(word.arg == "allow_pickle" and ast.unparse(word.value) != "False" for word in node.keywords)
        if found:
            yield f"{path}:{getattr(node, 'lineno', 0)}: {ast.unparse(node)}"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('model.bin')",
        "from torch import load",
        "import numpy as np\nnp.load('a.npy', allow_pickle=True)",
    ],
)
def test_the_pickle_check_sees(code: str) -> None:
    assert list(pickles_in(Path("example.py"), ast.parse(code)))


def test_the_project_stands_without_its_neighbour_folders() -> None:
    """Only tests and benchmarks may look beside the checkout, and they skip when nothing is there."""
    beside = re.compile(r"\.\./" + r"shared|(?<![\w.])/(?:work|root)/")
    allowed = ("tests/", "benchmarks/")
    assert [name for name, text in project_texts() if not name.startswith(allowed) and beside.search(text)] == []


# -------------------------------------------------------------------------------------------- documents, packaging

LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:src|href|srcset)=\"([^\"]+)\"")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


def anchors(markdown: str) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    titles = (re.sub(r"[`*]|\]\([^)]*\)|\[", "", title).lower() for title in HEADING.findall(FENCE.sub("", markdown)))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> Iterator[str]:
    for groups in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        target = "".join(groups)
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue  # elsewhere on the web, or mail
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists():
            yield f"{page.relative_to(ROOT)}: {target}: no such file"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield f"{page.relative_to(ROOT)}: {target}: no such heading"


def test_every_link_in_the_documents_leads_somewhere() -> None:
    pages = [path for path in project_files() if path.suffix == ".md"]
    assert [link for page in pages for link in broken_links(page)] == []


def test_a_broken_link_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text("# One `two`\n[a](page.md#one-two) [b](gone.md) [c](#nowhere)\n```\n[d](code.md)\n```\n")
    assert list(broken_links(page)) == ["page.md: gone.md: no such file", "page.md: #nowhere: no such heading"]


def test_every_direct_requirement_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    requirements = [line for requirement_list in lists for line in requirement_list]
    wanted = {normalised(re.split(r"[<>=!~;\[ ]", line)[0]) for line in requirements} - {"moreseek"}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)
    assert wanted - {normalised(pin.split("==")[0]) for pin in pins} == set()


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_changelog_has_a_place_for_this_version() -> None:
    version = python("import moreseek; print(moreseek.__version__)").stdout.strip()
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_make_alone_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert phony is not None
    listed = re.findall(r"^  make (\S+) ", run("make").stdout, re.MULTILINE)
    assert sorted(listed) == sorted(phony.group(1).split())
