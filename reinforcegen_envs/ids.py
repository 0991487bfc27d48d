"""The grammar of ids: ``ReinforceGen/{variant}-{task}[-{mode}]-v0``."""

from __future__ import annotations

import re

from reinforcegen_envs.errors import InvalidArgument

NAMESPACE = "ReinforceGen"
VERSION = 0
MODES = (None, "Hybrid", "Skill", "Residual")
VARIANTS = ("D0", "D1", "D2")  # of the package's tasks; others may have variants of their own

_WORD = "[A-Za-z][A-Za-z0-9]*"  # what a variant or a task may be called: a dash separates the parts
_MODE = "|".join(filter(None, MODES))
_ID = re.compile(rf"{NAMESPACE}/(?P<variant>{_WORD})-(?P<task>{_WORD})(?:-(?P<mode>{_MODE}))?-v[0-9]+")


def env_id(task: str, variant: str, mode: str | None = None) -> str:
    """The id of a task, variant and mode."""
    return f"{NAMESPACE}/{variant}-{task}{f'-{mode}' if mode else ''}-v{VERSION}"


def parse_env_id(name: str) -> tuple[str, str, str | None]:
    """Task, variant and mode of an id, with or without Gymnasium's ``module:`` before it.

    Whether there is such a task, and whether in that version, is not looked up.

    Raises:
        InvalidArgument: not an id of this package.
    """
    match = _ID.fullmatch(name.rpartition(":")[2])
    if match is None:
        modes = ", ".join(filter(None, MODES))
        raise InvalidArgument(
            f"{name!r} is not an id of {NAMESPACE}; one reads {env_id('TASK', 'VARIANT')!r} or "
            f"{env_id('TASK', 'VARIANT', 'MODE')!r}, with one of the modes {modes}"
        )
    return match["task"], match["variant"], match["mode"]


def is_word(name: str) -> bool:
    """Whether a variant or a task may be called so: letters and digits, a letter first, and not as a mode is."""
    return re.fullmatch(_WORD, name) is not None and name not in MODES
