"""The training loop (there is one) and the methods that feed it."""
