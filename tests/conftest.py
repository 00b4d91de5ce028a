"""What every test starts from: two threads, no network, the same random numbers."""

import os
import random
import sys
from pathlib import Path

# Set before anything imports torch, and inherited by the processes that tests start: sums depend on the number of
# threads, and tests compare them bit for bit. torch itself is not imported here: tests without it stay fast.
os.environ["OMP_NUM_THREADS"] = "2"
os.environ["MKL_NUM_THREADS"] = "2"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import hypothesis
import numpy as np
import pytest

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
