"""Errors that are written for people: what was wrong, where, and what would be right."""


class MoreseekError(Exception):
    """Base of every error that a user can act on. Its text is shown as it is, without a traceback."""

    exit_code = 2


class InputError(MoreseekError):
    """Wrong input: a recipe, a problem file, a checkpoint, a command line."""


class FaultError(MoreseekError):
    """A fault stopped good work: a full disk, a NaN, a broken verifier. The last checkpoint is kept."""

    exit_code = 3


class RunInUseError(FaultError):
    """Another process holds the run folder's lock."""
