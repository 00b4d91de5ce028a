"""The kernels' structures as Python writes them, field by field, against the C++ that reads them."""

import ctypes
import subprocess

import pytest

from moreseek.native import bindings, build, step
from moreseek.native.bindings import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason="no native kernels here")

STRUCTURES = {
    "attention.cpp": {"Attention": bindings.AttentionArgs},
    "step.cpp": {name: getattr(step, name) for name in ("Matrix", "FeedForward", "Layer", "Model", "Step")},
    "draft.cpp": {"Draft": step.Draft},
    "multi_step.cpp": {"MultiStep": step.MultiStep},
}
NUMBERS = {
    "step.cpp": {"PANEL": step.PANEL, "BLOCK": step.BLOCK_SIZE, "BYTES": step.FORMATS.index("int8"),
                 "HALVES": step.FORMATS.index("bf16"), "FLOATS": step.FORMATS.index("fp32")},
    "quantised.cpp": {"GROUP": step.GROUP},
}  # fmt: skip


def claims(name, structure):
    """What must hold, as C++ says it."""
    yield f"sizeof({name}) == {ctypes.sizeof(structure)}"
    for field, *_ in structure._fields_:
        where = getattr(structure, field)
        yield f"offsetof({name}, {field}) == {where.offset} && sizeof((({name} *)0)->{field}) == {where.size}"


def refused(tmp_path, source, claimed):
    """What the compiler says against these claims; nothing where they hold."""
    lines = ["#include <cstddef>", f'#include "{build.SOURCES / source}"']
    lines += [f'static_assert({claim}, "{claim.split(" == ")[0]}");' for claim in claimed]
    file = tmp_path / "layout.cpp"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [*build.find_compiler(), "-std=c++17", "-march=native", "-fsyntax-only", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.stderr if done.returncode else ""


@pytest.mark.parametrize("source", STRUCTURES)
def test_every_field_lies_where_the_kernels_read_it(tmp_path, source):
    claimed = [claim for name, structure in STRUCTURES[source].items() for claim in claims(name, structure)]
    assert refused(tmp_path, source, claimed) == ""
    wrong = claimed[-1].replace(" == ", " == 1 + ", 1)
    assert "static" in refused(tmp_path, source, [wrong])  # the test can fail


@pytest.mark.parametrize("source", NUMBERS)
def test_both_sides_count_alike(tmp_path, source):
    claimed = [f"{name} == {value}" for name, value in NUMBERS[source].items()]
    assert refused(tmp_path, source, claimed) == ""
