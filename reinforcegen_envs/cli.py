"""What the commands share: a user's error, and being stopped, are one line, not a traceback."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, TypeVar

import gymnasium as gym
import tyro

from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError

ArgsType = TypeVar("ArgsType")
USAGE_ERROR = 2  # what argparse and tyro exit with


class Stopped(KeyboardInterrupt):
    """The user, or the system, wants the command to stop."""

    def __init__(self, number: int):
        super().__init__(f"signal {number}")
        self.number = number


def run(main: Callable[[ArgsType], Any], args_class: type[ArgsType], description: str | None = None) -> None:
    """Parse the command line and call ``main``.

    Args:
        main: gets the parsed arguments.
        args_class: dataclass of the arguments; ``--help`` shows its docstrings.
        description: shown by ``--help``; default: the docstring of ``args_class``.

    Raises:
        SystemExit: see `one_line_errors`; or wrong usage, or ``--help``.
    """
    with one_line_errors():
        main(tyro.cli(args_class, description=description))


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Inside, a user's error ends the process with a line ``error: message``, and a signal to stop with one word.

    Raises:
        SystemExit: 2 after a user's error; 128 plus the signal's number after one, as in shells.
    """
    try:
        with _stoppable():
            yield
    except Stopped as stop:
        print("interrupted" if stop.number == signal.SIGINT else "terminated", file=sys.stderr)
        raise SystemExit(128 + stop.number) from None
    except Exception as error:
        if not is_users(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USAGE_ERROR) from None


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM raise `Stopped`, so that everything that was begun is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears signals
        return
    numbers = (signal.SIGINT, signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def at_least(least: int, args: object, *names: str) -> None:
    """Check integer arguments.

    Raises:
        InvalidArgument: one of ``args``' attributes ``names`` is below ``least``.
    """
    for name in names:
        if getattr(args, name) < least:
            raise InvalidArgument(f"{name} is {getattr(args, name)}; it must be at least {least}")


def is_users(error: Exception) -> bool:
    """Whether an error says what the user can mend: this package's, Gymnasium's, and files that cannot be opened.

    An error from anywhere else is a defect and keeps its traceback.
    """
    return isinstance(error, (ReinforceGenError, OSError, gym.error.Error))
