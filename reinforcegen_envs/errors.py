"""The package's exceptions: one base, so that a caller can catch them all, and a command can tell them from defects."""

from __future__ import annotations


class ReinforceGenError(Exception):
    """Something that the user can mend; the message says what was wrong, what is allowed and what to do.

    Every class of the package's errors derives from it, beside the built-in one that callers would expect.
    """


class InvalidArgument(ReinforceGenError, ValueError):
    """An argument is not one of the allowed values."""


class MissingPackage(ReinforceGenError, ImportError):
    """An optional package is not installed; the message says how to get it."""
