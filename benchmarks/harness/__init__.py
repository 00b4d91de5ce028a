"""What the benchmarks share: our side as a process of its own, and the comparison of two processes."""
