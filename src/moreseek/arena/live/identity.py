"""Does an answer say who wrote it? Such a battle is not blind, and its vote is kept apart."""

import re
from collections.abc import Iterable
from functools import lru_cache

_MAKERS: tuple[str, ...] = (
    "openai", "chatgpt", "gpt", "anthropic", "claude", "google", "gemini", "gemma", "deepseek", "qwen", "tongyi",
    "alibaba", "llama", "mistral", "mixtral", "cohere", "grok", "xai", "kimi", "moonshot", "01.ai", "glm", "chatglm",
    "zhipu", "baichuan", "ernie", "baidu", "doubao", "bytedance", "hunyuan", "tencent", "minimax", "internlm",
    "microsoft", "copilot", "nemotron", "nvidia", "smollm", "hugging face", "olmo", "ibm", "stepfun", "moreseek",
    "通义", "千问", "阿里", "深度求索", "智谱", "文心", "百度", "豆包", "字节", "混元", "腾讯", "月之暗面", "百川",
)  # fmt: skip
_SPEAKS_OF_ITSELF = re.compile(
    r"\bi['’]?\s?a?m\b|\bmy name is\b|\bi was (?:made|created|trained|developed|built)\b"
    r"|\bas an? (?:ai|model|assistant)\b|\b(?:made|created|trained|developed|built) by\b|\bcall me\b"
    r"|我是|我叫|我的名字|由.{0,12}(?:开发|训练|研发|创造|推出)|作为.{0,6}模型",
    re.IGNORECASE,
)
_NEAR = 60  # characters after "I am" in which a name is the speaker's own
_DISTINCT = re.compile(r"[0-9\-_./]")


def leak(answer: str, names: Iterable[str], prompt: str) -> str | None:
    """The words in which an answer gives away a contestant, or None.

    ``names`` are names, models and families of all contestants. A distinctive one (with a digit or a hyphen in it)
    gives its bearer away wherever it stands, unless the question brought it up; a plain word, or the name of a
    maker, only where the answer speaks of itself.
    """
    distinct, known = _patterns(tuple(names))
    for name in distinct:
        found = name.search(answer)
        if found and not name.search(prompt):
            return _around(answer, found.start(), found.end())
    for said in _SPEAKS_OF_ITSELF.finditer(answer):
        # 由…开发 holds the maker's name inside the phrase; all others have it behind.
        found = known.search(answer[said.start() : said.end() + _NEAR].split("\n")[0])
        if found:
            return _around(answer, said.start(), said.start() + found.end())
    return None


@lru_cache(maxsize=4)
def _patterns(names: tuple[str, ...]) -> tuple[list[re.Pattern[str]], re.Pattern[str]]:
    """The distinctive names one by one; and all names and makers together. Compiling them takes a third of a second."""
    longer = [part for full in names for part in (full, full.rpartition("/")[2]) if len(part) >= 3]
    words = {name: _word(name) for name in (*_MAKERS, *longer)}
    distinct = [name for name in dict.fromkeys(longer) if _DISTINCT.search(name) and len(name) >= 5]
    return (
        [re.compile(words[name], re.IGNORECASE) for name in distinct],
        re.compile("|".join(words.values()), re.IGNORECASE),
    )


def _word(name: str) -> str:
    """A pattern of the name as a word of its own, however its parts are joined."""
    parts = [re.escape(part) for part in re.split(r"[\s\-_]+", name) if part]
    body = r"[\s\-_]*".join(parts)
    return rf"(?<![A-Za-z0-9]){body}(?![A-Za-z])"


def _around(text: str, start: int, end: int) -> str:
    return text[max(0, start - 20) : end + 20].strip()[:160]
