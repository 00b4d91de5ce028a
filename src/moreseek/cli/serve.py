"""`moreseek serve`: models behind an OpenAI-compatible API and a chat page."""

import logging
from collections.abc import Collection, Iterable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from moreseek.cli.site import listen, run
from moreseek.config import did_you_mean
from moreseek.engine.llm import LLM
from moreseek.engine.precision import Asked
from moreseek.errors import InputError
from moreseek.model.export import open_model
from moreseek.model.transformer import Transformer
from moreseek.run_folder import RunFolder, resolve_model
from moreseek.server.app import build_app
from moreseek.server.documents.library import Documents
from moreseek.server.models import Models, ServedModel
from moreseek.server.service import Served
from moreseek.server.turns import FairQueue
from moreseek.training.device import sampling_device

WEIGHT_BYTES = 4  # a parameter in memory at most
NICE = 5  # of the engine's threads: whoever writes streams and answers /health comes first, as that takes little


def serve(
    models: list[str], host: str, port: int, keys: tuple[str, ...], running: int, queue: int, memory_gib: float | None,
    idle_s: float | None, drain_s: float, precision: Asked, documents: list[str],
) -> None:  # fmt: skip
    """Answer until told to stop. The first model is loaded at once, the others when they are first asked for."""
    console = Console(stderr=True, highlight=False, markup=False)
    _log()
    found: dict[Path, ServedModel] = {}
    named: dict[str, ServedModel] = {}
    for name, path in named_models(models).items():
        if path not in found:
            found[path] = served_model(name, path, running, queue, precision)
        named[name] = found[path]
    folders = named_documents(documents, named)
    indexed = {folder: Documents(folder) for folder in dict.fromkeys(folders.values())}
    for folder, library in indexed.items():
        console.print(f"{folder}: {library.index.count} passages of {library.index.files} files", soft_wrap=True)
    served = Served(
        Models(named, None if memory_gib is None else int(memory_gib * (1 << 30)), idle_s), keys, drain_s,
        {name: indexed[folder] for name, folder in folders.items()},
    )  # fmt: skip
    listening = listen(host, port)
    address = f"http://{host}:{listening.getsockname()[1]}"
    console.print(f"{', '.join(named)} at {address}/v1, a chat page at {address}/", soft_wrap=True)
    run(build_app(served), listening, served)
    if not served.models.begun and served.models.first.fault:
        raise InputError(served.models.first.fault)


def named_models(arguments: Iterable[str]) -> dict[str, Path]:
    """What each name means. An argument is a MODEL or NAME=MODEL; a run also has its finished stages, as NAME/STAGE.

    Raises InputError for what is no model, and where two models would have one name.
    """
    named: dict[str, Path] = {}
    for argument in arguments:
        name, equals, model = argument.partition("=")
        if not equals or Path(argument).exists():
            name, model = served_name(argument), argument
        if not name or not model:
            raise InputError(f"{argument}: write NAME=MODEL.")
        known = [(name, resolve_model(model))]
        run_folder = RunFolder(Path(model))
        if run_folder.is_run:
            known += [(f"{name}/{stage.name}", stage.model) for stage in run_folder.finished()]
        for one, path in known:
            if named.setdefault(one, _real(path)) != _real(path):
                raise InputError(f"two models would be served as {one}. Give one of them a name: OTHER={model}")
    return named


def _real(path: Path) -> Path:
    """The folder behind links. A file keeps its name: in Hugging Face's cache it is a link to one without .gguf."""
    return path.resolve() if path.is_dir() else path.parent.resolve() / path.name


def named_documents(arguments: Iterable[str], models: Collection[str]) -> dict[str, Path]:
    """Which models look into which folder. An argument is a FOLDER, for all of them, or NAME=FOLDER, for one.

    Raises InputError for a name that no model has, and for two folders for one model.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not equals or Path(argument).exists():
            name, folder = "", argument
        if (equals and not folder) or (name and name not in models):
            raise InputError(f"--documents {argument}: write NAME=FOLDER{did_you_mean(name, list(models))}")
        for one in [name] if name else models:
            if found.setdefault(one, Path(folder)) != Path(folder):
                raise InputError(f"--documents: {one} looks into {found[one]} already. Put both into one folder.")
    return found


def served_name(model: str) -> str:
    """runs/tiny-r1/zero is served as tiny-r1/zero, a folder or a file by its last name."""
    path = Path(model)
    if path.suffix == ".gguf":
        return path.stem
    path = path.resolve() if path.name in ("", ".", "..") else path
    if path.name == "model" and len(path.parts) > 2:  # inside a run
        return "/".join(path.parts[-3:-1])
    parts = path.parts
    return "/".join(parts[parts.index("runs") + 1 :]) if "runs" in parts[:-1] else path.name


def read_keys(given: list[str], file: Path | None) -> tuple[str, ...]:
    """The keys of the options and of a file, one a line; empty lines and those that begin with # do not count.

    Raises InputError for a file that cannot be read or has no key, and for what cannot stand in a header.
    """
    keys = list(given)
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: the keys cannot be read ({error}).") from error
        found = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
        if not found:
            raise InputError(f"{file}: no key in it. Write one a line.")
        keys += found
    for number, key in enumerate(keys, 1):
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(f"API key {number} of {len(keys)}: a key has printable ASCII characters and no spaces.")
    return tuple(dict.fromkeys(keys))


def served_model(name: str, path: Path, running: int = 256, queue: int = 256, precision: Asked = "auto") -> ServedModel:
    """What is known of a model before it is loaded. Raises InputError where its files are damaged or hostile."""
    config = open_model(path).config
    with torch.device("meta"):
        model = Transformer(config)
    tied = model.head.numel() if model.lm_head is None else 0  # once to look up, and once packed as the head
    return ServedModel(
        name, partial(_open, path, running, precision), FairQueue(running, queue), config.max_position_embeddings,
        WEIGHT_BYTES * (model.size + tied), int(path.stat().st_mtime),
    )  # fmt: skip


def _open(path: Path, running: int, precision: Asked) -> LLM:
    llm = LLM(path, running, precision, sampling_device())
    _ = llm.loop  # made here like the runner, so that the first request waits for neither
    llm.engine.runner.spare = 1  # for the event loop, or with two cores for the reader of the stream
    llm.loop.be_nice(NICE)
    return llm


def _log() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    log = logging.getLogger("moreseek")
    log.setLevel(logging.INFO)
    log.addHandler(handler)
