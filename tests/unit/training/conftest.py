"""A small model, its tokenizer and a GRPO method whose verifiers a test writes itself."""

import itertools
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from moreseek.model.config import ModelConfig
from moreseek.model.transformer import Transformer, build
from moreseek.records import Problem
from moreseek.rewards.verifier import with_examples
from moreseek.text.tokenizer import Tokenizer, train_tokenizer
from moreseek.training.grpo import GRPO
from moreseek.training.settings import GRPOSettings

NUMBERS = itertools.count()  # the rubric remembers functions by name, so every test's module has a name of its own


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny products gain nothing from a second thread, and wait for it on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train_tokenizer(["1+2=3;"], 264)


@pytest.fixture
def verifier(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """verifier(function): a name under which a recipe finds this function. It has no examples to be tried on."""

    def register(function: Callable[[Problem, str], Any]) -> str:
        module = types.ModuleType(f"verifiers_of_test_{next(NUMBERS)}")
        module.__dict__["score"] = with_examples(lambda problem: ([], []))(lambda p, c: function(p, c))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        return f"{module.__name__}:score"

    return register


@pytest.fixture
def make_grpo(tokenizer: Tokenizer, verifier: Callable[..., str]) -> Callable[..., GRPO]:
    """make_grpo(score, **settings): GRPO on 6 problems with a small model, rewarded by ``score(problem, text)``."""

    def make(score: Callable[[Problem, str], Any], seed: int = 1, count: int = 6, **settings: Any) -> GRPO:
        problems = [Problem(prompt=f"{i}+1=", answer=str(i + 1), verifier=verifier(score)) for i in range(count)]
        table = {"method": "grpo", "name": "zero", "start_from": "base", "steps": 8, "prompts_per_step": 2}
        table |= {"group_size": 4, "max_completion_tokens": 5} | settings
        return GRPO(make_model(tokenizer), tokenizer, problems, GRPOSettings.model_validate(table), seed)

    return make


def make_model(tokenizer: Tokenizer, seed: int = 3) -> Transformer:
    config = ModelConfig(
        model_type="llama", vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=128, eos_token_id=list(tokenizer.eos_ids), initializer_range=0.5,
    )  # fmt: skip
    model = build(config, seed=seed)
    with torch.no_grad():  # what initialise leaves at zero would hide the layers
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(seed))
    return model
