"""`moreseek convert`: a model from one form into another."""

from pathlib import Path

from rich.console import Console

from moreseek.errors import InputError
from moreseek.model.export import DTYPES, Opened, open_model, write_folder_of
from moreseek.model.gguf_export import KINDS, write_model
from moreseek.run_folder import resolve_model
from moreseek.text.gguf_vocabulary import tokenizer_metadata
from moreseek.text.tokenizer import Tokenizer
from moreseek.training.checkpoint import require_whole, write_folder
from moreseek.training.progress import counter


def convert(source: str, target: Path, to: str | None, kind: str | None) -> list[str]:
    """Write the model behind ``source`` (MODEL) to ``target``; what cannot be kept comes back as sentences.

    Nothing that exists is overwritten, and a half-written target is never seen. Raises InputError for a source or a
    combination that is not supported.
    """
    form = to or ("gguf" if target.suffix == ".gguf" else "hf")
    _check_target(target, form, kind)
    path = resolve_model(source)
    if path.is_dir():
        require_whole(path)
    opened, tokenizer = open_model(path), Tokenizer.load(path)
    console = Console(stderr=True)
    if form == "gguf":
        notes = _to_gguf(path, opened, tokenizer, target, kind or opened.type, console)
    else:
        notes = _to_folder(path, opened, tokenizer, target, kind or opened.type, console)
    return notes


def _check_target(target: Path, form: str, kind: str | None) -> None:
    if form == "gguf" and target.suffix != ".gguf":
        raise InputError(f"{target}: name the file ….gguf: moreseek and others tell the format by it.")
    if form == "hf" and target.suffix == ".gguf":
        raise InputError(f"{target}: --to hf makes a folder, so its name must not end in .gguf.")
    if form == "hf" and kind == "q8_0":
        raise InputError("--type q8_0 is for .gguf files; a Hugging Face folder takes f32, f16 or bf16.")
    if target.exists() or target.is_symlink():
        raise InputError(f"{target}: exists already. Choose another name, or remove it first.")
    if not target.absolute().parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.absolute().parent} to put it in.")


def _to_gguf(path: Path, opened: Opened, tokenizer: Tokenizer, target: Path, kind: str, console: Console) -> list[str]:
    config = opened.config
    vocabulary, notes = tokenizer_metadata(tokenizer, config.vocab_size, str(path))
    if config.num_nextn_predict_layers:
        notes.append("the multi-token-prediction block is left out: llama.cpp does not use it")
    temporary = target.with_name(f".writing-{target.name}")
    try:
        step = counter(console, "converting")
        write_model(temporary, config, opened.weights, KINDS[kind.upper()], vocabulary, target.stem, step)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
    return notes


def _to_folder(
    path: Path, opened: Opened, tokenizer: Tokenizer, target: Path, kind: str, console: Console
) -> list[str]:
    config = opened.config
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} ids, the model only {config.vocab_size}: "
            "they do not belong together."
        )
    eos = list(tokenizer.eos_ids)
    ids = {"eos_token_id": eos[0] if len(eos) == 1 else eos, "pad_token_id": tokenizer.pad_id}
    config = config.model_copy(update=ids | {"bos_token_id": tokenizer.bos_id})

    def fill(folder: Path) -> None:
        step = counter(console, "converting")
        write_folder_of(folder, Opened(config, opened.weights, opened.type), DTYPES[kind], step)
        tokenizer.save(folder)

    write_folder(target, fill)
    return []
