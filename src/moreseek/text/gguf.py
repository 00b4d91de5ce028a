"""The tokenizer inside a .gguf file, built as the model's authors had it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, processors

from moreseek.config import did_you_mean
from moreseek.errors import InputError
from moreseek.text.gguf_file import GGUFFile, read_gguf
from moreseek.text.gguf_splitters import SPLITTERS, Splitter
from moreseek.text.tokenizer import Tokenizer

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # llama.cpp's token types; the middle two are matched whole

# Ends of a turn that files leave out of their metadata; llama.cpp also knows them by name.
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>")


def filler(id: int) -> str:
    """The text of an id that the model has and the tokenizer has not, as llama.cpp's converter writes it."""
    return f"[PAD{id}]"


@dataclass(frozen=True)
class TokenIds:
    """The ids that a file gives a role. ``eos``: its own end first, then the other ends of a turn."""

    eos: tuple[int, ...]
    bos: int | None
    pad: int | None


def load_gguf_tokenizer(path: Path | str) -> Tokenizer:
    """The tokenizer of a .gguf file, with its control tokens, chat template and end ids.

    Needs no extra package. Raises InputError where the file is damaged, its kind of vocabulary or pre-tokenizer
    is not supported, or it names no end token.
    """
    file = read_gguf(path)
    kind = file.get("tokenizer.ggml.model", str)
    if kind != "gpt2":
        raise InputError(f"{path}: tokenizer.ggml.model is '{kind}'; only byte-level BPE ('gpt2') is supported.")
    name = file.get("tokenizer.ggml.pre", str)
    if name not in SPLITTERS:
        hint = did_you_mean(name, list(SPLITTERS))
        raise InputError(f"{path}: the pre-tokenizer '{name}' (tokenizer.ggml.pre) is not supported{hint}")
    ids = gguf_token_ids(file)
    if not ids.eos:
        raise InputError(f"{path}: it names no end token (tokenizer.ggml.eos_token_id).")
    template = file.get("tokenizer.chat_template", str, "")
    return Tokenizer(
        _backend(file, SPLITTERS[name], ids.bos),
        eos_ids=ids.eos,
        pad_id=ids.eos[0] if ids.pad is None else ids.pad,
        bos_id=ids.bos,
        chat_template=template or None,
        config=_config(file),
    )


def gguf_token_ids(file: GGUFFile) -> TokenIds:
    """Which ids end, start and pad a text. Raises InputError for an id outside the vocabulary."""
    tokens = file.get_list("tokenizer.ggml.tokens", str)

    def named(role: str) -> int | None:
        key = f"tokenizer.ggml.{role}_token_id"
        if key not in file.metadata:
            return None
        id = file.get(key, int)
        if not 0 <= id < len(tokens):
            raise InputError(f"{file.path}: {key} is {id}, outside its vocabulary of {len(tokens)}.")
        return id

    types = file.get_list("tokenizer.ggml.token_type", int)
    control = {text: id for id, (text, kind) in enumerate(zip(tokens, types, strict=False)) if kind == CONTROL}
    ends = [named("eos"), named("eot"), *map(control.get, _TURN_ENDS)]
    return TokenIds(tuple(dict.fromkeys(id for id in ends if id is not None)), named("bos"), named("padding"))


def _backend(file: GGUFFile, splitter: Splitter, bos: int | None) -> tokenizers.Tokenizer:
    tokens = file.get_list("tokenizer.ggml.tokens", str)
    types = file.get_list("tokenizer.ggml.token_type", int)
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens) or len(types) != len(tokens):
        raise InputError(f"{file.path}: damaged: its tokens repeat, or do not match tokenizer.ggml.token_type.")
    # Ids that only the embedding has: converters fill their place, since llama.cpp wants a text for each.
    fillers = [id for id, kind in enumerate(types) if kind == UNUSED and tokens[id] == filler(id)]
    for id in fillers:
        del vocabulary[tokens[id]]
    whole = [(text, kind) for text, kind in zip(tokens, types, strict=True) if kind in (CONTROL, USER_DEFINED)]
    merges = _merges(file)
    try:
        backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges, ignore_merges=splitter.ignore_merges))
        backend.add_tokens([tokenizers.AddedToken(t, special=kind == CONTROL, normalized=False) for t, kind in whole])
        if bos is not None and file.get("tokenizer.ggml.add_bos_token", bool, False):
            backend.post_processor = _start_with(tokens[bos], bos)
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{file.path}: its tokens and merges make no tokenizer ({error}).") from error
    if splitter.nfc:
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = splitter.pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    return backend


def _start_with(token: str, id: int) -> processors.TemplateProcessing:
    """For transformers, which then starts texts as the model expects. Our own encode adds nothing."""
    return processors.TemplateProcessing(
        single=[token, "$A"], pair=[token, "$A", f"{token}:1", "$B:1"], special_tokens=[(token, id)]
    )


def _merges(file: GGUFFile) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for merge in file.get_list("tokenizer.ggml.merges", str):
        left, space, right = merge.partition(" ")
        if not left or not space or not right:
            raise InputError(f"{file.path}: damaged: the merge {merge!r} is not two texts with a space between.")
        pairs.append((left, right))
    return pairs


def _config(file: GGUFFile) -> dict[str, Any]:
    """What tokenizer_config.json keeps beside the roles: the length that the model reads."""
    architecture = file.get("general.architecture", str, "")
    context = file.get(f"{architecture}.context_length", int, 0)
    return {"model_max_length": context} if context > 0 else {}
