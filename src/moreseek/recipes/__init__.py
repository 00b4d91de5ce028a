"""Recipes: a graph of stages, fingerprints, and the runner that skips, resumes or refuses."""
