"""A language model as judge: asked twice with the answers swapped, its replies cached, its budget kept."""

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from moreseek.arena.live.contestants import LLMJudge
from moreseek.arena.live.endpoint import Clients, ContestantError, Reply, ask
from moreseek.arena.live.judging import BudgetSpentError, UndecidedError
from moreseek.arena.live.settings import House
from moreseek.arena.store.judges import Battle
from moreseek.arena.votes import A_WINS, B_WINS, BOTH_BAD, TIE
from moreseek.errors import InputError
from moreseek.run_folder import write_json

_VERDICT = re.compile(r"\[\[(A|B|TIE|BAD)\]\]")
_OUTCOMES = {"A": A_WINS, "B": B_WINS, "TIE": TIE, "BAD": BOTH_BAD}
_SWAPPED = {A_WINS: B_WINS, B_WINS: A_WINS, TIE: TIE, BOTH_BAD: BOTH_BAD}
_PLACES = ("question", "answer_a", "answer_b")
_TEMPLATE_TOKENS = 64  # around the messages of a chat, at most


def load_prompt(path: str) -> str:
    """The prompt's text. Raises InputError where a file is missing or lacks a place for what is judged."""
    if not path:
        return resources.files("moreseek.arena.live").joinpath("judge_prompt.txt").read_text(encoding="utf-8")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the judge's prompt cannot be read ({error}).") from error
    missing = [place for place in _PLACES if f"{{{place}}}" not in text]
    if missing:
        raise InputError(f"{path}: the judge's prompt lacks {{{missing[0]}}}. It needs {{question}}, "
                         "{answer_a} and {answer_b}.")  # fmt: skip
    return text


def filled_in(template: str, question: str, answer_a: str, answer_b: str) -> str:
    """The prompt of one order. What stands inside question and answers is not filled in again."""
    values = {"question": question, "answer_a": answer_a, "answer_b": answer_b}
    return re.sub(r"\{(question|answer_a|answer_b)\}", lambda found: values[found[1]], template)


def verdict_of(text: str) -> int:
    """The last verdict in a judge's reply. Raises UndecidedError where there is none."""
    found = _VERDICT.findall(text)
    if not found:
        raise UndecidedError("its reply holds no verdict ([[A]], [[B]], [[TIE]] or [[BAD]])")
    return _OUTCOMES[found[-1]]


def agreed(first: int, second: int) -> int:
    """One outcome from both orders, the second already turned back: where they differ, a tie (Zheng et al. 2023)."""
    return first if first == second else TIE


@dataclass
class Spent:
    """What one run of a judge took so far. Calls under way count with the most that they can take."""

    calls: int = 0
    tokens: int = 0
    usd: float = 0.0


class AskedJudge:
    """A judge behind an OpenAI-compatible endpoint."""

    def __init__(self, settings: LLMJudge, house: House, clients: Clients, cache: Path) -> None:
        self.name, self._judge, self._house, self._clients = settings.name, settings, house, clients
        self._template = load_prompt(settings.prompt)
        self._cache = cache
        self.spent, self.from_cache = Spent(), 0

    @property
    def settings(self) -> dict[str, Any]:
        """What shapes its judgements: model, prompt, and how it is sampled."""
        judge = self._judge
        return {
            "kind": "llm", "model": judge.model, "temperature": judge.temperature, "max_tokens": judge.max_tokens,
            "system": judge.system, "prompt": hashlib.sha256(self._template.encode()).hexdigest()[:16],
        }  # fmt: skip

    def knows(self, battle: Battle) -> bool:
        """Not a battle in which an answer names its author: it would not be blind."""
        return all(told.leak is None for told in battle.told)

    async def outcome(self, battle: Battle) -> int:
        """Both orders, and one outcome from them."""
        left, right = battle.told[0].text, battle.told[1].text
        prompts = [filled_in(self._template, battle.prompt, *two) for two in ((left, right), (right, left))]
        known = [self._remembered(prompt) for prompt in prompts]
        # The budget of both calls is set aside before the first one: half a battle would be money for nothing.
        most = self._set_aside([prompt for prompt, reply in zip(prompts, known, strict=True) if reply is None])
        first, second = [
            reply if reply is not None else await self._ask(prompt, most.pop(0))
            for prompt, reply in zip(prompts, known, strict=True)
        ]
        return agreed(first, _SWAPPED[second])

    def _file(self, prompt: str) -> Path:
        """Where the reply is kept: named by the hash of everything that it depends on."""
        judge = self._judge
        asked = [judge.url, judge.model, judge.system, judge.temperature, judge.max_tokens, prompt]
        name = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        return self._cache / name[:2] / f"{name}.json"

    def _remembered(self, prompt: str) -> int | None:
        """The verdict in a kept reply. A damaged file is as good as none."""
        with suppress(OSError, ValueError, KeyError, TypeError, UndecidedError):
            verdict = verdict_of(json.loads(self._file(prompt).read_text(encoding="utf-8"))["reply"])
            self.from_cache += 1
            return verdict
        return None

    async def _ask(self, prompt: str, most: Spent) -> int:
        """A verdict that was paid for; the reply is kept."""
        reply = Reply(self._judge.opens_thinking)
        try:
            await ask(self._clients, self._judge, [{"role": "user", "content": prompt}], self._house, reply)
        except ContestantError as error:
            raise UndecidedError(str(error)) from None
        if reply.tokens is not None and reply.prompt_tokens is not None:
            self.spent.tokens += reply.tokens + reply.prompt_tokens - most.tokens
            self.spent.usd += (self._judge.cost(reply.prompt_tokens, reply.tokens) or 0.0) - most.usd
        verdict = verdict_of(reply.text)
        file = self._file(prompt)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"model": self._judge.model, "reply": reply.text})
        return verdict

    def _set_aside(self, prompts: list[str]) -> list[Spent]:
        """The most that each call can take, now spent. Raises BudgetSpentError where it is more than is left."""
        judge, spent = self._judge, self.spent
        assert judge.max_tokens is not None
        calls = []
        for prompt in prompts:
            size = len((prompt + judge.system).encode("utf-8", "replace")) + _TEMPLATE_TOKENS  # a token has a byte
            calls.append(Spent(1, size + judge.max_tokens, judge.cost(size, judge.max_tokens) or 0.0))
        after = Spent(
            spent.calls + len(calls),
            spent.tokens + sum(call.tokens for call in calls),
            spent.usd + sum(call.usd for call in calls),
        )
        if calls and (
            after.calls > judge.most_calls
            or (judge.most_tokens is not None and after.tokens > judge.most_tokens)
            or (judge.most_usd is not None and after.usd > judge.most_usd)
        ):
            raise BudgetSpentError
        self.spent = after
        return calls
