"""The votes that every side of benchmarks/arena.py rates: 100 contestants, a third ties. numpy alone, so that peers'
environments can import it."""

import numpy as np

CONTESTANTS = 100
OUTCOMES = ("model_a", "model_b", "tie", "both_bad")


def drawn(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Codes of the left and right contestant and of the outcome, (n,) each."""
    rng = np.random.default_rng(1)
    strength = rng.normal(0, 0.8, CONTESTANTS)
    a = rng.integers(0, CONTESTANTS, n, dtype=np.int32)
    b = (a + rng.integers(1, CONTESTANTS, n, dtype=np.int32)) % CONTESTANTS
    draw = rng.random(n, dtype=np.float32)
    win = 0.67 / (1 + np.exp(strength[b] - strength[a]))
    outcome = np.select([draw < win, draw < 0.67, draw < 0.9], [0, 1, 2], 3).astype(np.int8)
    return a, b.astype(np.int32), outcome
