"""A tokenizer as the metadata of a .gguf file, such that llama.cpp makes the same ids of a text."""

import json
from typing import Any

from moreseek.errors import InputError
from moreseek.text.gguf import CONTROL, NORMAL, UNUSED, USER_DEFINED, filler
from moreseek.text.gguf_splitters import composes, splitter_name
from moreseek.text.tokenizer import Tokenizer


def tokenizer_metadata(tokenizer: Tokenizer, rows: int, where: str) -> tuple[dict[str, Any], list[str]]:
    """Metadata of a vocabulary with ``rows`` ids (the embedding's rows), and notes on what llama.cpp does otherwise.

    Raises InputError where the tokenizer is no byte-level BPE, splits text as llama.cpp cannot, or has ids beyond rows.
    """
    state = json.loads(tokenizer.backend.to_str())
    _refuse_other_kinds(tokenizer, state, where)
    if tokenizer.vocab_size > rows:
        raise InputError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} ids, the model only {rows}: they do not fit."
        )
    found = splitter_name(tokenizer.backend)
    if found is None:
        raise InputError(
            f"{where}: tokenizer.json splits text in a way that llama.cpp has no name for, so it would make other ids. "
            "Export to a Hugging Face folder instead, or train the tokenizer with moreseek's or Qwen2's pattern."
        )
    name, splitter = found
    notes = [] if splitter.nfc is composes(tokenizer.backend) else [_NFC_NOTE]
    tokens, types = _tokens(tokenizer, state, rows)
    if len(set(tokens)) != len(tokens):
        raise InputError(f"{where}: two ids of the tokenizer have the same text, which llama.cpp does not take.")
    stripped = [
        t["content"] for t in state["added_tokens"] if t.get("lstrip") or t.get("rstrip") or t.get("single_word")
    ]
    if stripped:
        notes.append(f"llama.cpp keeps the spaces around {', '.join(stripped[:3])}; the tokenizer here swallows them")
    metadata: dict[str, Any] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": name,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": _merges(state["model"], where),
    }
    roles, more = _roles(tokenizer, tokens)
    metadata |= roles
    if tokenizer.chat_template:
        metadata["tokenizer.chat_template"] = tokenizer.chat_template
    return metadata, notes + more


_NFC_NOTE = (
    "llama.cpp does not compose characters (NFC) as the tokenizer here does: text with separate accents gets other ids"
)


def _refuse_other_kinds(tokenizer: Tokenizer, state: dict[str, Any], where: str) -> None:
    model = state["model"]
    byte_level = "ByteLevel" in json.dumps(state.get("decoder"))
    plain = not any(model.get(key) for key in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"))
    if model.get("type") != "BPE" or model.get("byte_fallback") or not byte_level or not plain:
        raise InputError(
            f"{where}: tokenizer.json holds a tokenizer ({model.get('type')}) that is no byte-level BPE; only those "
            "can be written to a .gguf file. Export to a Hugging Face folder instead."
        )
    if composes(tokenizer.backend) is None:
        raise InputError(
            f"{where}: tokenizer.json changes text before it splits it, in a way that llama.cpp cannot. "
            "Export to a Hugging Face folder instead."
        )


def _tokens(tokenizer: Tokenizer, state: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    tokens, types = [filler(id) for id in range(rows)], [UNUSED] * rows
    for text, id in tokenizer.backend.get_vocab(with_added_tokens=True).items():
        tokens[id], types[id] = text, NORMAL
    for token in state["added_tokens"]:
        tokens[token["id"]] = token["content"]
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    return tokens, types


def _merges(model: dict[str, Any], where: str) -> list[str]:
    pairs = [merge.split(" ", 1) if isinstance(merge, str) else merge for merge in model["merges"]]
    if any(" " in part for pair in pairs for part in pair):
        raise InputError(f"{where}: a merge of tokenizer.json holds a space, which a .gguf file cannot.")
    return [" ".join(pair) for pair in pairs]


def _roles(tokenizer: Tokenizer, tokens: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Which ids start, end and pad a text, and whether an encoder adds the first by itself."""
    framed = tokenizer.backend.encode("a", add_special_tokens=True).ids
    roles: dict[str, Any] = {"tokenizer.ggml.eos_token_id": tokenizer.eos_ids[0]}
    if len(tokenizer.eos_ids) > 1:
        roles["tokenizer.ggml.eot_token_id"] = tokenizer.eos_ids[1]
    roles["tokenizer.ggml.padding_token_id"] = tokenizer.pad_id
    if tokenizer.bos_id is not None:
        roles["tokenizer.ggml.bos_token_id"] = tokenizer.bos_id
    roles["tokenizer.ggml.add_bos_token"] = framed[0] == tokenizer.bos_id
    roles["tokenizer.ggml.add_eos_token"] = framed[-1] in tokenizer.eos_ids
    roles["tokenizer.ggml.add_space_prefix"] = False
    lost = [tokens[id] for id in tokenizer.eos_ids[2:]]
    return roles, [f"a .gguf file names two end tokens; {', '.join(lost)} may not end a text there"] if lost else []
