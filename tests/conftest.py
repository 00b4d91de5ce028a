"""What every test starts from: two threads, no network, the same random numbers."""

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Set before anything imports torch, and inherited by the processes that tests start: sums depend on the number of
# threads, and tests compare them bit for bit. torch itself is not imported here: tests without it stay fast.
os.environ["OMP_NUM_THREADS"] = "2"
os.environ["MKL_NUM_THREADS"] = "2"
os.environ["GOMP_SPINCOUNT"] = "1000"  # a thread that waits leaves its core to the tests of the other process
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import hypothesis
import numpy as np
import pytest

if TYPE_CHECKING:
    from moreseek.engine.llm import LLM

# The same examples at every run: what a change did not break does not fail. --hypothesis-profile=default explores.
hypothesis.settings.register_profile("same-examples", derandomize=True)
hypothesis.settings.load_profile("same-examples")


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_votes() -> Path:
    """llmfao's folder of real human votes, which lies beside the checkout; tests with it skip where it does not."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / "votes" / "llmfao"
    if not (folder / "crowd-comparisons.csv").is_file():
        pytest.skip(f"no real votes: {folder} is not there")
    return folder


def save_small_llama(folder: Path, texts: list[str], vocab_size: int, context: int) -> None:
    """A small Llama with random weights and a tokenizer made from the texts."""
    from moreseek.model.config import ModelConfig
    from moreseek.model.transformer import build
    from moreseek.model.weights import save_model
    from moreseek.text.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(texts, vocab_size)
    config = ModelConfig(
        model_type="llama", vocab_size=tokenizer.vocab_size, hidden_size=16, intermediate_size=24,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=context,
        eos_token_id=list(tokenizer.eos_ids), initializer_range=0.3,
    )  # fmt: skip
    save_model(build(config, seed=3), folder)
    tokenizer.save(folder)


@pytest.fixture(scope="session")
def make_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """make_folder(texts, vocab_size, context): such a model's folder."""

    def make(texts: list[str], vocab_size: int, context: int) -> Path:
        folder = tmp_path_factory.mktemp("model")
        save_small_llama(folder, texts, vocab_size, context)
        return folder

    return make


@pytest.fixture(scope="session")
def make_llm(make_folder: Callable[..., Path]) -> Iterator[Callable[..., "LLM"]]:
    """make_llm(texts, vocab_size, context): an LLM of such a folder."""
    from moreseek.engine.llm import LLM

    made: list[LLM] = []

    def make(texts: list[str], vocab_size: int, context: int) -> LLM:
        made.append(LLM(make_folder(texts, vocab_size, context)))
        return made[-1]

    yield make
    for llm in made:
        llm.loop.close()
