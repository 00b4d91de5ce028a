"""The language of a question, as far as boards tell languages apart: zh, en, or other."""

import re

_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_KANA_OR_HANGUL = re.compile(r"[\u3040-\u30ff\uac00-\ud7af]")
_LATIN = re.compile(r"[A-Za-z]+")
_ENGLISH = frozenset(
    [
        "the",
        "a",
        "an",
        "of",
        "to",
        "in",
        "is",
        "are",
        "and",
        "or",
        "what",
        "which",
        "who",
        "how",
        "why",
        "when",
        "where",
        "does",
        "do",
        "can",
        "could",
        "should",
        "would",
        "if",
        "that",
        "this",
        "for",
        "with",
        "without",
        "on",
        "from",
        "by",
        "me",
        "my",
        "your",
        "i",
        "you",
        "it",
        "write",
        "explain",
        "give",
        "tell",
        "find",
        "solve",
        "show",
        "many",
        "much",
        "there",
    ]
)


def language_of(text: str) -> str:
    """``zh`` where Han characters carry it (and no kana), ``en`` where English words do, else ``other``."""
    han, words = len(_HAN.findall(text)), _LATIN.findall(text)
    if _KANA_OR_HANGUL.search(text):
        return "other"
    if han and han >= len(words):
        return "zh"
    if not words:
        return "other"
    letters = sum(map(len, words))
    foreign = sum(1 for character in text if character.isalpha()) - letters
    known = sum(word.lower() in _ENGLISH for word in words)
    return "en" if foreign * 5 <= letters and known * 8 >= len(words) else "other"
