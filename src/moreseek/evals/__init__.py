"""Measuring a model on held-out problems, and the report of a run."""
