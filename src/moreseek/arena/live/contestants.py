"""Who is asked: endpoints, the contestants behind them or on this machine, and LLM judges."""

import ipaddress
import os
import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from moreseek.config import Settings

_UNSEEN = r"\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff"  # or reads as what it is not
NAME = re.compile(f"[^<>{_UNSEEN}]{{1,80}}")
_LINE = re.compile(f"[^{_UNSEEN}]{{0,200}}")


def _checked(name: str) -> str:
    """A name that can be shown anywhere. Raises ValueError."""
    if not NAME.fullmatch(name) or name != name.strip():
        raise ValueError("a name has 1 to 80 visible characters, without < and >")
    return name


def _one_line(text: str) -> str:
    """What pages show beside a name. Raises ValueError."""
    if not _LINE.fullmatch(text):
        raise ValueError("one line of at most 200 visible characters is needed")
    return text


Named = Annotated[str, AfterValidator(_checked)]
Line = Annotated[str, AfterValidator(_one_line)]


class Endpoint(Settings):
    """A model behind an OpenAI-compatible API, and how it is asked."""

    url: str = Field("", description="the endpoint up to and with /v1")
    model: Line = Field("", description="what the endpoint calls it")
    api_key_env: str = Field("", description="the environment variable that holds the key")
    internal: bool = Field(False, description="allow a URL that points at this machine or a private network")
    temperature: float | None = Field(None, ge=0, le=2, description="none given: the endpoint's own")
    max_tokens: int | None = Field(None, ge=1, description="longest completion, thinking included")
    system: str = Field("", description="system prompt; the registry publishes it")
    opens_thinking: bool = Field(False, description="its template opens `<think>`, so that its text starts inside")
    price_in: float | None = Field(None, ge=0, description="USD for a million prompt tokens")
    price_out: float | None = Field(None, ge=0, description="USD for a million completion tokens")

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: str) -> str:
        if not url:
            return url
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("an http:// or https:// URL is needed, such as https://host/v1")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("the URL holds more than an address; a key belongs into api_key_env's variable")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _is_outside(self) -> "Endpoint":
        if self.url and not self.internal and is_internal(urlsplit(self.url).hostname or ""):
            who = getattr(self, "name", self.url)
            raise ValueError(f"'{who}' points inside this machine or network; say internal = true if that is meant")
        return self

    @property
    def api_key(self) -> str | None:
        """The key, from the environment at every call, so that it is nowhere else."""
        return os.environ.get(self.api_key_env) if self.api_key_env else None

    def cost(self, prompt_tokens: int | None, tokens: int | None) -> float | None:
        """What a call cost in USD; None where a price or a count is not known."""
        if self.price_in is None or self.price_out is None or tokens is None or prompt_tokens is None:
            return None
        return (self.price_in * prompt_tokens + self.price_out * tokens) / 1e6


class Contestant(Endpoint):
    """One model that fights: behind a URL, or on this machine (a run's stage, a folder, a .gguf file)."""

    name: Named = Field(description="how boards call it; a name is never used again for something else")
    kind: Literal["base", "reasoning"] = Field(alias="class", description="battles are within a class by default")
    family: Line = Field(
        "", description="shown in the registry and after the vote; default: the run's name, or its own"
    )
    run: str = Field("", description="a run's folder, in place of url and model: the arena loads the model itself")
    stage: str = Field("", description="which stage of the run; default: the last finished one")
    step: int | None = Field(None, ge=1, description="a checkpoint of the stage, by its step")
    checkpoints: bool = Field(False, description="every kept checkpoint of the stage, each a contestant: `NAME @STEP`")
    path: str = Field("", description="a model folder, a .gguf file or package:PACKAGE/FILE, in place of url and model")
    quota: int | None = Field(None, ge=1, description="most votes; declared before the first one")
    withdrawn: str = Field("", description="the reason; the row stays, and no battle is drawn any more")

    @model_validator(mode="after")
    def _is_somewhere(self) -> "Contestant":
        if sum(map(bool, (self.url, self.run, self.path))) != 1:
            raise ValueError(f"'{self.name}' needs one of url, run and path: where its answers come from")
        if bool(self.url) != bool(self.model):
            raise ValueError(f"'{self.name}': url and model belong together")
        if (self.stage or self.step or self.checkpoints) and not self.run:
            raise ValueError(f"'{self.name}': stage, step and checkpoints belong to a run")
        if ((self.step or self.checkpoints) and not self.stage) or (self.step and self.checkpoints):
            raise ValueError(f"'{self.name}': say stage with step, or with checkpoints")
        return self

    @property
    def shaping(self) -> dict[str, object]:
        """What shapes its answers, for the registry."""
        keys = ("temperature", "max_tokens", "system", "opens_thinking", "price_in", "price_out")
        from_run = {"stage": self.stage, "step": self.step} if self.step is not None else {}
        return {key: getattr(self, key) for key in keys} | from_run


class LLMJudge(Endpoint):
    """A model that judges battles: it is shown both answers in both orders."""

    name: Named = Field(description="how its board is called")
    prompt: str = Field("", description="a file with {question}, {answer_a}, {answer_b}; default: the one that ships")
    temperature: float | None = Field(0.0, ge=0, le=2, description="of its verdicts")
    max_tokens: int | None = Field(1024, ge=1, description="longest verdict, thinking included")
    most_calls: int = Field(1000, ge=0, description="in one run of the command; replies from the cache are free")
    most_tokens: int | None = Field(None, ge=1, description="the same, prompts included")
    most_usd: float | None = Field(None, gt=0, description="the same, by price_in and price_out")

    @model_validator(mode="after")
    def _is_complete(self) -> "LLMJudge":
        if not self.url or not self.model:
            raise ValueError(f"judge '{self.name}' needs a url and a model")
        if self.most_usd is not None and (self.price_in is None or self.price_out is None):
            raise ValueError(f"judge '{self.name}': most_usd needs price_in and price_out")
        if self.max_tokens is None:
            raise ValueError(f"judge '{self.name}' needs max_tokens: its budget counts on them")
        return self


def is_internal(host: str) -> bool:
    """Whether a host name or address stands for this machine or a private network."""
    name = host.rstrip(".").casefold()
    if (
        name == "localhost"
        or name.endswith((".localhost", ".local", ".internal"))
        or ("." not in name and ":" not in name)
    ):
        return True
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:
        return name.replace(".", "").isdigit()  # 127.1 and the like
