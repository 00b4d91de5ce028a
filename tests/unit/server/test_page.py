"""The chat page's files: all there, unchanged where they are others', in both languages; and its headers."""

import hashlib
import re

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from moreseek.server.page import STATIC, page_routes

VENDOR = STATIC / "vendor"
OURS = sorted(path for path in STATIC.rglob("*.js") if VENDOR not in path.parents)


@pytest.fixture(scope="module")
def client():
    return TestClient(Starlette(routes=page_routes()))


def test_the_page_and_all_that_it_names_is_served(client):
    page = client.get("/")
    names = re.findall(r'(?:src|href)="(static/[^"]+)"', page.text)
    assert len(names) > 4
    for name in names:
        answer = client.get(f"/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["cache-control"] == "no-cache"
    assert re.match(r"(text|application)/javascript", client.get("/static/chat.js").headers["content-type"])


def test_the_policy_lets_nothing_in_from_elsewhere(client):
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?:|\*|data:", policy)


@pytest.mark.parametrize(
    "path", ["/static/%2e%2e/page.py", "/static/chat/%2e%2e/%2e%2e/app.py", "/static/", "/static/chat"]
)
def test_no_file_beside_the_page_is_served(client, path):
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_a_module_is_short_and_what_it_imports_is_there(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") < 300
    for name in re.findall(r'(?:from |import |import\()"([^"]+)"', text):
        assert (path.parent / name).is_file(), name


def test_libraries_are_the_files_that_were_brought():
    lines = (VENDOR / "SHA256SUMS").read_text().splitlines()
    wanted = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = [path for path in VENDOR.rglob("*") if path.is_file() and path.name not in ("README.md", "SHA256SUMS")]
    found = {
        f"./{path.relative_to(VENDOR).as_posix()}": hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    assert found == wanted
    assert all((folder / "LICENSE").is_file() for folder in VENDOR.iterdir() if folder.is_dir())


def test_every_word_is_there_in_both_languages():
    words = (STATIC / "chat" / "words.js").read_text(encoding="utf-8")
    english, chinese = words.partition("  zh: {")[::2]
    names = [re.findall(r'\b(\w+): "', part.partition("}; // prettier-ignore")[0]) for part in (english, chinese)]
    only_english = {name for name in names[0] if name.endswith("One")}  # Chinese has no plural
    assert set(names[0]) - only_english == set(names[1])
    page = (STATIC / "chat.html").read_text(encoding="utf-8")
    assert set(re.findall(r'data-(?:word|hint|label)="(\w+)"', page)) <= set(names[0])
