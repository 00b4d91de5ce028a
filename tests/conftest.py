"""What every test starts from: two threads, no network, the same random numbers."""

import os
import random
import sys

# Set before anything imports torch, and inherited by the processes that tests start: sums depend on the number of
# threads, and tests compare them bit for bit. torch itself is not imported here: tests without it stay fast.
os.environ["OMP_NUM_THREADS"] = "2"
os.environ["MKL_NUM_THREADS"] = "2"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
