"""What the commands share: a user's error is one line, not a traceback."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import gymnasium as gym
import tyro

ArgsType = TypeVar("ArgsType")
PACKAGE = __name__.split(".")[0]
USAGE_ERROR = 2  # what argparse and tyro exit with


def run(main: Callable[[ArgsType], Any], args_class: type[ArgsType], description: str | None = None) -> None:
    """Parse the command line and call ``main``; on a user's error print ``error: message`` and exit with 2.

    Args:
        main: gets the parsed arguments.
        args_class: dataclass of the arguments; ``--help`` shows its docstrings.
        description: shown by ``--help``; default: the docstring of ``args_class``.

    Raises:
        SystemExit: wrong usage, a user's error, or ``--help``.
    """
    args = tyro.cli(args_class, description=description)
    try:
        main(args)
    except Exception as error:
        if not is_users(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USAGE_ERROR) from None


def at_least(least: int, args: object, *names: str) -> None:
    """Check integer arguments.

    Raises:
        ValueError: one of ``args``' attributes ``names`` is below ``least``.
    """
    for name in names:
        if getattr(args, name) < least:
            raise ValueError(f"{name} is {getattr(args, name)}; it must be at least {least}")


def is_users(error: Exception) -> bool:
    """Whether an error says what the user can mend.

    So do files that cannot be opened, Gymnasium's own errors, this package's error classes, and the errors that this
    package raises itself; an error from deep inside numpy or torch is a defect and keeps its traceback.
    """
    if isinstance(error, (OSError, gym.error.Error)) or type(error).__module__.split(".")[0] == PACKAGE:
        return True
    if not isinstance(error, (ValueError, RuntimeError, ImportError)):
        return False
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    return _belongs_to_package(Path(raised_in))


def _belongs_to_package(path: Path) -> bool:
    """Whether a source file is one of this package's, wherever its parts are installed."""
    import reinforcegen_envs.agents
    import reinforcegen_envs.wrappers

    parts: list[ModuleType] = [reinforcegen_envs, reinforcegen_envs.agents, reinforcegen_envs.wrappers]
    folders = [Path(str(part.__file__)).resolve().parent for part in parts]
    return any(folder in path.resolve().parents for folder in folders)
