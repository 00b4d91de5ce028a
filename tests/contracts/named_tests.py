"""Tests that are named elsewhere, as "PATH::NAME" below tests/, are there."""

import ast
from functools import cache
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


@cache
def tests_in(path):
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


def assert_there(tests):
    assert tests
    for test in tests:
        path, _, name = test.partition("::")
        assert name in tests_in(path), f"{path} has no {name}"
