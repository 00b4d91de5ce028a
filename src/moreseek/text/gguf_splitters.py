"""How vocabularies cut text into words before merging, and llama.cpp's names for it (``tokenizer.ggml.pre``).

A tokenizer.json says it in regular expressions, a .gguf file only by a name that is built into llama.cpp. So a name is
read as the expressions that its models were trained with, and found again by what the expressions do.
"""

import itertools
import json
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import pre_tokenizers

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)


@dataclass(frozen=True)
class Splitter:
    """How a family of vocabularies cuts text into words before merging."""

    steps: tuple[pre_tokenizers.PreTokenizer, ...]
    nfc: bool = False
    ignore_merges: bool = False  # a word that is in the vocabulary is taken whole

    @property
    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.Sequence(list(self.steps))


def _by_patterns(*patterns: str) -> tuple[pre_tokenizers.PreTokenizer, ...]:
    return (
        *(pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated") for pattern in patterns),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    )


_GPT2_STEP = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_GPT2 = Splitter((_GPT2_STEP,))
_DIGITS = Splitter((pre_tokenizers.Digits(individual_digits=True), _GPT2_STEP))
_QWEN2 = Splitter(_by_patterns(_WORDS.replace("NUMBER", r"\p{N}")), nfc=True)
_LLAMA3 = Splitter(_by_patterns(_WORDS.replace("NUMBER", r"\p{N}{1,3}")), ignore_merges=True)

# As llama.cpp's converter names them. It writes "default" where it knew no better; llama.cpp reads
# that as no model was trained, so we read it as GPT-2, as transformers does.
SPLITTERS = {
    "default": _GPT2,
    "gpt-2": _GPT2,
    "gpt2": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": Splitter(_QWEN2.steps),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "deepseek-v3": Splitter(_by_patterns(*_DEEPSEEK_V3)),
}

# The name to write for each of them, the commonest first.
_WRITTEN = ("deepseek-r1-qwen", "qwen2", "gpt-2", "smollm", "llama-bpe", "deepseek-v3")

# One of every kind of character that some expression tells apart; splitters are equal if they cut all triples equally.
_KINDS = ("a", "Z", "é", "e\u0301", "你", "カ", "1", "23", "½", "'s", "'RE", "!", "+", " ", "  ", "\n", "\r\n", "\t",
          "\u3000", "🙂")  # fmt: skip


def splitter_name(backend: tokenizers.Tokenizer) -> tuple[str, Splitter] | None:
    """llama.cpp's name for how a tokenizer splits, told by what it does to text; None where it has no name for it.

    The splitter that is returned may compose characters (NFC) or not, unlike the tokenizer: see ``composes``.
    """
    if backend.pre_tokenizer is None:
        return None
    ignores = bool(json.loads(backend.to_str())["model"].get("ignore_merges"))
    composed = composes(backend)
    fitting = [name for name in _WRITTEN if SPLITTERS[name].ignore_merges == ignores]
    fitting.sort(key=lambda name: SPLITTERS[name].nfc != composed)
    for name in fitting:
        splitter = SPLITTERS[name].pre_tokenizer
        if all(_cuts(splitter, text) == _cuts(backend.pre_tokenizer, text) for text in _probes()):
            return name, SPLITTERS[name]
    return None


def composes(backend: tokenizers.Tokenizer) -> bool | None:
    """Whether a tokenizer composes characters (NFC) before it splits; None where it changes text in another way."""
    state = json.loads(backend.to_str())["normalizer"]
    kinds = _normalizers(state) if state else []
    return None if set(kinds) - {"NFC"} else bool(kinds)


def _normalizers(state: dict[str, Any]) -> list[str]:
    inner = state.get("normalizers")
    return [state["type"]] if inner is None else [kind for item in inner for kind in _normalizers(item)]


def _probes() -> list[str]:
    """Texts that hold every sequence of three kinds: twenty long ones, since a call costs more than its text."""
    return ["".join(itertools.chain.from_iterable((first, b, c, "x ", first, b, c, "\n7")
            for b, c in itertools.product(_KINDS, _KINDS))) for first in _KINDS]  # fmt: skip


def _cuts(splitter: pre_tokenizers.PreTokenizer, text: str) -> list[tuple[int, int]]:
    return [span for _, span in splitter.pre_tokenize_str(text)]
