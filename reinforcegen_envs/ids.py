"""The grammar of ids: ``ReinforceGen/{variant}-{task}[-{mode}[-{stage}]]-v0``."""

from __future__ import annotations

import re

from reinforcegen_envs.errors import InvalidArgument

NAMESPACE = "ReinforceGen"
VERSION = 0
MODES = (None, "Hybrid", "Skill", "Residual")
STAGE_MODES = ("Skill", "Residual")  # those that have an id for every stage's skill
VARIANTS = ("D0", "D1", "D2")  # of the package's tasks; others may have variants of their own

_WORD = "[A-Za-z][A-Za-z0-9]*"  # what a variant or a task may be called: a dash separates the parts
_MODE = "|".join(filter(None, MODES))
_ID = re.compile(  # a stage is one of STAGE_MODES', not of Hybrid's
    rf"{NAMESPACE}/(?P<variant>{_WORD})-(?P<task>{_WORD})"
    rf"(?:-(?P<mode>{_MODE})(?:(?<!-Hybrid)-(?P<stage>{_WORD}))?)?-v[0-9]+"
)


def env_id(task: str, variant: str, mode: str | None = None, stage: str | None = None) -> str:
    """The id of a task, variant and mode; of one stage's skill alone if a stage is named, which `STAGE_MODES` have."""
    parts = [variant, task, *filter(None, [mode]), *([] if stage is None else [stage_word(stage)])]
    return f"{NAMESPACE}/{'-'.join(parts)}-v{VERSION}"


def stage_word(stage: str) -> str:
    """How an id calls a stage: "grasp_square_nut" -> "GraspSquareNut"."""
    return "".join(part[:1].upper() + part[1:] for part in re.split("[^A-Za-z0-9]+", stage))


def parse_env_id(name: str) -> tuple[str, str, str | None]:
    """Task, variant and mode of an id, with or without Gymnasium's ``module:`` before it.

    Whether there is such a task, and whether in that version, is not looked up.

    Raises:
        InvalidArgument: not an id of this package.
    """
    match = _match(name)
    return match["task"], match["variant"], match["mode"]


def parse_stage(name: str) -> str | None:
    """The stage in an id, as `stage_word` writes it; None if the id is not of one stage. Raises like `parse_env_id`."""
    return _match(name)["stage"]


def _match(name: str) -> re.Match[str]:
    match = _ID.fullmatch(name.rpartition(":")[2])
    if match is None:
        modes = ", ".join(filter(None, MODES))
        raise InvalidArgument(
            f"{name!r} is not an id of {NAMESPACE}; one reads {env_id('TASK', 'VARIANT')!r} or "
            f"{env_id('TASK', 'VARIANT', 'MODE')!r}, with one of the modes {modes}, or "
            f"{env_id('TASK', 'VARIANT', 'MODE', 'STAGE')!r} with {' or '.join(STAGE_MODES)}"
        )
    return match


def is_word(name: str) -> bool:
    """Whether a variant or a task may be called so: letters and digits, a letter first, and not as a mode is."""
    return re.fullmatch(_WORD, name) is not None and name not in MODES


def is_stage_word(word: str) -> bool:
    """Whether a stage may be called so in an id: letters and digits, a letter first."""
    return re.fullmatch(_WORD, word) is not None
