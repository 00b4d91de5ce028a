"""The tokenizer: text to ids and back, trained here or read from a Hugging Face folder."""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from moreseek.errors import InputError
from moreseek.text.folder_files import check_size, member, read_json_object, read_text
from moreseek.text.template import DEFAULT_TEMPLATE

PAD, BEGIN, END = "<|pad|>", "<|begin|>", "<|end|>"
SPECIAL_TOKENS = (PAD, BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>", "<think>", "</think>")
# Single ids, but text to tokenizers: a decoder that skips special tokens keeps the thinking readable.
TEXT_TOKENS = ("<think>", "</think>")
_BYTES = 256
_MAX_GROWTH = 1_000  # the longest replacement of a normalizer; the field's are a few characters
# Encodings carry more than ids: many at a time would take a hundred times the memory of the ids.
_BATCH = 1_024
_LONG = 4_000  # characters: less is encoded in a few milliseconds
# Qwen2's word pattern: single digits, and known to the tools that convert tokenizers. One expression costs
# a third less time than tokenizers' Digits followed by its ByteLevel expression.
_WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer:
    """A ``tokenizers.Tokenizer`` with the ids that a model needs and its chat template.

    Attributes:
        backend: the ``tokenizers.Tokenizer``.
        vocab_size: one more than the largest id.
        eos_ids: the ids that end a completion; the first is the one that training writes.
        pad_id, bos_id: the padding id, and the id that starts a text where there is one.
        special_tokens: every added token and its id.
        chat_template: Jinja source, or None.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_ids: Sequence[int],
        pad_id: int,
        bos_id: int | None = None,
        chat_template: str | None = DEFAULT_TEMPLATE,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.backend = backend
        self.eos_ids = tuple(eos_ids)
        self.pad_id = pad_id
        self.bos_id = bos_id
        self.chat_template = chat_template
        added = backend.get_added_tokens_decoder()
        self.special_tokens = {token.content: id for id, token in sorted(added.items())}
        self.vocab_size = max([backend.get_vocab_size(with_added_tokens=True) - 1, *added]) + 1
        self._config = dict(config or {})
        # Runs of spaces are added tokens in some vocabularies; they control nothing.
        self._control = {text: id for text, id in self.special_tokens.items() if text.strip()}
        alternatives = sorted(map(re.escape, self._control), key=len, reverse=True)
        self.control_pattern = re.compile("|".join([*alternatives, "\ue000"]))
        self.find_control = self.control_pattern.search
        """Finds a control string (or a private mark of text/chat.py) in a text that a user wrote."""

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a text, nothing added. With ``special=False`` control strings in it are ordinary text."""
        _refuse_surrogates(text)
        if special or not self.find_control(text):
            return _encode(self.backend, text)
        ids = _encode(self._plain_backend, text)
        if not set(ids).isdisjoint(self._control.values()):
            # A vocabulary that also holds its control strings as words: break them after one character.
            return [id for part in self._broken_at_control(text) for id in self.encode(part, special=False)]
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, control strings included; several times faster than one by one."""
        for text in texts:
            _refuse_surrogates(text)
        ids: list[list[int]] = []
        for start in range(0, len(texts), _BATCH):
            try:
                batch = self.backend.encode_batch_fast(texts[start : start + _BATCH], add_special_tokens=False)
            except BaseException as error:
                _refuse_panic(error)
                raise
            ids += [encoding.ids for encoding in batch]
        return ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = False) -> str:
        """The text of ids. Incomplete UTF-8 shows as U+FFFD; ``skip_special`` keeps <think> and </think>."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special)

    @property
    def template_variables(self) -> dict[str, str]:
        """What transformers also hands to a chat template: bos_token, eos_token, pad_token."""
        ids = {"bos_token": self.bos_id, "eos_token": self.eos_ids[0], "pad_token": self.pad_id}
        return {name: self.backend.id_to_token(id) or "" for name, id in ids.items() if id is not None}

    def fingerprint(self) -> str:
        """A hash of all that decides ids and stopping: shards and checkpoints name the tokenizer by it."""
        facts = json.dumps([self.backend.to_str(), self.chat_template, self.eos_ids, self.pad_id, self.bos_id])
        return hashlib.sha256(facts.encode("utf-8", "surrogatepass")).hexdigest()

    def save(self, folder: Path | str) -> None:
        """Write the files that transformers.AutoTokenizer reads: tokenizer.json, tokenizer_config.json, template."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8")
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **self._config,
            **self.template_variables,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", "utf-8")
        if self.chat_template is not None:
            (folder / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> "Tokenizer":
        """Read a folder that we, transformers or the Hub wrote, or a .gguf file.

        Raises InputError where it has no usable tokenizer.
        """
        path = Path(path)
        if path.suffix == ".gguf":
            from moreseek.text.gguf import load_gguf_tokenizer

            return load_gguf_tokenizer(path)
        return _load(path)

    @cached_property
    def _plain_backend(self) -> tokenizers.Tokenizer:
        """The same tokenizer without control tokens: for text that users wrote."""
        state = json.loads(self.backend.to_str())
        state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in self._control]
        return tokenizers.Tokenizer.from_str(json.dumps(state))

    def _broken_at_control(self, text: str) -> list[str]:
        parts: list[str] = []
        start = 0
        for match in self.control_pattern.finditer(text):
            parts.append(text[start : match.start() + 1])
            start = match.start() + 1
        return [part for part in [*parts, text[start:]] if part]


def train_tokenizer(texts: Iterable[str], vocab_size: int, extra_special: Sequence[str] = ()) -> Tokenizer:
    """Train a byte-level BPE with single digits and our special tokens. Deterministic.

    ``vocab_size`` is the most that the vocabulary may hold; little text gives fewer merges. Raises InputError
    where it is smaller than the bytes and special tokens need.
    """
    special = list(dict.fromkeys([*SPECIAL_TOKENS, *extra_special]))
    minimum = _BYTES + len(special)
    if vocab_size < minimum:
        raise InputError(
            f"vocab_size = {vocab_size} is too small: at least {minimum} are needed "
            f"({_BYTES} bytes and {len(special)} special tokens)."
        )
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_WORD), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    state = json.loads(backend.to_str())
    for token in state["added_tokens"]:
        token["special"] = token["content"] not in TEXT_TOKENS
    backend = tokenizers.Tokenizer.from_str(json.dumps(state))
    ids = {name: special.index(name) for name in (PAD, BEGIN, END)}
    return Tokenizer(backend, eos_ids=[ids[END]], pad_id=ids[PAD], bos_id=ids[BEGIN])


def _load(folder: Path) -> Tokenizer:
    path = member(folder, "tokenizer.json")
    if not path.is_file():
        raise InputError(
            f"{folder}: no tokenizer.json. A model folder needs one (transformers' fast tokenizers write it)."
        )
    check_size(path)
    try:
        backend = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{path}: not a tokenizer that can be read ({error}).") from error
    _refuse_growth(backend, path)
    backend.no_padding()
    backend.no_truncation()
    config = _read_json(folder, "tokenizer_config.json")
    eos = _eos_ids(folder, config, backend)
    if not eos:
        raise InputError(
            f"{folder}: no end token. Set eos_token in tokenizer_config.json or eos_token_id in config.json."
        )
    pad = _token_id(backend, config.get("pad_token"))
    template = _chat_template(folder, config)
    for key in ("chat_template", "auto_map", "added_tokens_decoder"):
        config.pop(key, None)
    return Tokenizer(
        backend,
        eos_ids=eos,
        pad_id=eos[0] if pad is None else pad,
        bos_id=_token_id(backend, config.get("bos_token")),
        chat_template=template,
        config=config,
    )


def _eos_ids(folder: Path, config: dict[str, Any], backend: tokenizers.Tokenizer) -> list[int]:
    """The tokenizer's own end token first, then those of generation_config.json or else config.json."""
    own = _token_id(backend, config.get("eos_token"))
    ids = [] if own is None else [own]
    for name in ("generation_config.json", "config.json"):
        value = _read_json(folder, name).get("eos_token_id")
        if value is not None:
            ids += value if isinstance(value, list) else [value]
            break
    known = (id for id in ids if isinstance(id, int) and 0 <= id < 1 << 32)  # what the backend can be asked about
    return list(dict.fromkeys(id for id in known if backend.id_to_token(id) is not None))


def _token_id(backend: tokenizers.Tokenizer, token: Any) -> int | None:
    """The id of a token as tokenizer_config.json names it: a string, or a table with its content."""
    text = token.get("content") if isinstance(token, dict) else token
    return backend.token_to_id(text) if isinstance(text, str) else None


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    path = member(folder, "chat_template.jinja")
    if path.is_file():
        return read_text(path)
    inline = config.get("chat_template") or _read_json(folder, "chat_template.json").get("chat_template")
    if isinstance(inline, list):  # several named templates: the default is the one for chats
        named = (item for item in inline if isinstance(item, dict) and item.get("name") == "default")
        inline = next(named, {}).get("template")
    return inline if isinstance(inline, str) else None


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = member(folder, name)
    return read_json_object(path) if path.is_file() else {}


def _encode(backend: tokenizers.Tokenizer, text: str) -> list[int]:
    try:
        if len(text) > _LONG:  # a batch lets other threads run, a single text does not
            return backend.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return backend.encode(text, add_special_tokens=False).ids
    except BaseException as error:
        _refuse_panic(error)
        raise


def _refuse_panic(error: BaseException) -> None:
    """A stranger's tokenizer.json may hold an expression that backtracks for ever; the library then panics."""
    if type(error).__name__ == "PanicException":  # pyo3's, which no module exports
        raise InputError(
            f"The tokenizer gave up on a text ({error}): its tokenizer.json is damaged or hostile."
        ) from error


def _refuse_growth(backend: tokenizers.Tokenizer, path: Path) -> None:
    """Refuse a normalizer whose replacements, one after the other, could make a short text fill the memory."""
    if backend.normalizer is None:
        return
    growth = 1
    for content in re.findall(r'"(?:content|prepend)":"((?:[^"\\]|\\.)*)"', backend.normalizer.__getstate__().decode()):
        growth *= max(1, len(content))
    if growth > _MAX_GROWTH:
        raise InputError(f"{path}: its normalizer can make a text {growth} times longer, so it is damaged or hostile.")


def _refuse_surrogates(text: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError("The text holds half of a character (a lone surrogate). Re-encode it as UTF-8.")
