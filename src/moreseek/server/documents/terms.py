"""What is looked for: words, and characters and their pairs where a script writes words without spaces."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

# Han with its extensions, kana, Hangul. (SQLite's tokenizer would take a whole clause of these for one word.)
_DENSE = "\u3005\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af"
_RUN = re.compile(f"([{_DENSE}]+)|((?:(?![{_DENSE}])[^\\W_])+)")
_LONGEST = 40  # characters of a word that count: more is no word
_HEAD, _TAIL = 400, 800  # characters at the begin and the end of a long question that are looked for
_MOST = 200  # and its terms
_CUT_END, _CUT_START = re.compile("[A-Za-z0-9]+$"), re.compile("^[A-Za-z0-9]+")  # a word that was cut is another word
_DENSE_ONE = re.compile(f"[{_DENSE}]")

# Words of questions rather than of what is asked about. Chinese ones also part a clause: no pair reaches across them.
_COMMON = frozenset(
    re.split(
        " ",
        "a about after all also am an and any are as at be been before but by can could did do does doing done else "
        "for from get had has have he her here him his how i if in into is it its just let like may me might more "
        "most must my no not of on one only or other our out over own please shall she should show so some such tell "
        "than that the their them then there these they this those to too up us use very was we were what when where "
        "whether which while who whom whose why will with would you your yours "
        "anyone anything everything explain know mean someone something want",
    )
)
_PARTING = re.compile(
    "你好|您好|谢谢|为什么|怎么样|怎么办|是不是|有没有|能不能|可不可以|请问|什么|怎么|怎样|如何|多少|哪些|哪个|哪里|哪儿|是否|可以|应该|我们|你们|他们"
    "|告诉|关于|以及|或者|还是|一下|[的了吗呢吧啊呀嘛我你他她它们这那是在和与或]"
)


def dense(text: str) -> int:
    """How many characters belong to scripts that write words without spaces."""
    return 0 if text.isascii() else len(_DENSE_ONE.findall(text))


def indexed(text: str) -> str:
    """The terms of a text, parted by spaces, as the index takes them."""
    found: list[str] = []
    for run, is_dense in _runs(text):
        found += [*run, *_pairs(run)] if is_dense else [run]
    return " ".join(found)


def asked(text: str) -> list[str]:
    """The terms that a question looks for, each once: words, pairs, and a character that stands alone."""
    if len(text) > _HEAD + _TAIL:
        text = f"{_CUT_END.sub('', text[:_HEAD])}\n{_CUT_START.sub('', text[-_TAIL:])}"
    found: dict[str, None] = {}
    for run, is_dense in _runs(text):
        if not is_dense:
            found |= {run: None} if run not in _COMMON else {}
            continue
        for part in filter(None, _PARTING.split(run)):
            found |= dict.fromkeys(_pairs(part) or [part])
    return list(found)[-_MOST:]


def _runs(text: str) -> Iterator[tuple[str, bool]]:
    for match in _RUN.finditer(unicodedata.normalize("NFKC", text).casefold()):
        yield (match[1], True) if match[1] else (match[2][:_LONGEST], False)


def _pairs(run: str) -> list[str]:
    return [run[place : place + 2] for place in range(len(run) - 1)]
