"""Sampling: one batched sampler under training, evaluation and chat."""
