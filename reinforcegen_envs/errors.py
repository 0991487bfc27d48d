"""The package's exceptions: one base, so that a caller can catch them all, and a command can tell them from defects."""

from __future__ import annotations

from collections.abc import Iterable


class ReinforceGenError(Exception):
    """Something that the user can mend; the message says what was wrong, what is allowed and what to do.

    Every class of the package's errors derives from it, beside the built-in one that callers would expect.
    """


class InvalidArgument(ReinforceGenError, ValueError):
    """An argument is not one of the allowed values."""


def checked_flag(given: object, name: str) -> bool:
    """An argument that switches something.

    Raises:
        InvalidArgument: it is neither True nor False; the message calls it ``name``.
    """
    if not isinstance(given, bool):
        raise InvalidArgument(f"{name} {given!r} must be True or False")
    return given


def is_count(given: object, least: int) -> bool:
    """Whether an argument is a whole number of at least ``least``; True and False are none."""
    return isinstance(given, int) and not isinstance(given, bool) and given >= least


def is_one_of(given: object, names: Iterable[str]) -> bool:
    """Whether an argument is one of some names; ``in`` fails for arrays and for what cannot be hashed."""
    return isinstance(given, str) and given in names


class MissingPackage(ReinforceGenError, ImportError):
    """An optional package is not installed; the message says how to get it."""
