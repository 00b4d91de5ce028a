"""Verifiers and the rubric that weighs them. No torch in here."""
