"""What the commands share: a user's error, and being stopped, are one line, not a traceback."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar, cast

import gymnasium as gym
import tyro

from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.ids import env_id
from reinforcegen_envs.modules import load_task_module
from reinforcegen_envs.workers import in_every_worker

ArgsType = TypeVar("ArgsType")
SCRIPT = "reinforcegen"  # the console script, which has every command
# Packages that not every command needs -> the extra that brings them.
OPTIONAL = {
    "torch": "train", "tensorboard": "train", "matplotlib": "train", "imageio": "render", "imageio_ffmpeg": "render",
    "robomimic": "robomimic",
}  # fmt: skip
OPTIONAL_VALUES = {"--ray": "auto"}  # option -> what it means without a value
USAGE_ERROR = 2  # what argparse and tyro exit with


class Stopped(KeyboardInterrupt):
    """The user, or the system, wants the command to stop."""

    def __init__(self, number: int):
        super().__init__(f"signal {number}")
        self.number = number


@dataclasses.dataclass
class Common:
    """For every command."""

    task_module: tuple[str, ...] = ()
    """modules that bring tasks of your own: names of importable ones, or paths of files that call register_task"""


@dataclasses.dataclass
class CommonById(Common):
    """For commands that work in one environment, which can be named in two ways."""

    task: str | None = None
    """name of the task, instead of the id"""
    variant: str = "D2"
    """reset range, with --task"""
    mode: str = "Residual"
    """what the agent controls, with --task: Hybrid, Skill or Residual"""


def run(
    main: Callable[[ArgsType], Any], args_class: type[ArgsType], description: str | None = None, example: str = ""
) -> None:
    """Parse the command line and call ``main``.

    Beside the arguments of the class, every command takes those of `Common`; and one that has ``env_id`` but no ``task``,
    those of `CommonById`.

    Args:
        main: gets the parsed arguments.
        args_class: dataclass of the arguments; ``--help`` shows its docstrings.
        description: shown by ``--help``; default: the docstring of ``args_class``.
        example: arguments of a good first use, for ``--help``.

    Raises:
        SystemExit: see `one_line_errors`; or wrong usage, or ``--help``.
    """
    with one_line_errors():
        main(parse(args_class, description, example))


def parse(args_class: type[ArgsType], description: str | None = None, example: str = "") -> ArgsType:
    """The arguments on the command line; the modules that it names are imported. Arguments as in `run`.

    Raises:
        SystemExit: wrong usage, or ``--help``.
        InvalidArgument: a module that is not there, or two names of the environment.
    """
    fields = {field.name: field for field in dataclasses.fields(cast(Any, args_class))}
    by_id = "env_id" in fields and "task" not in fields

    def line(command: Any, common: Any) -> tuple[Any, Any]:
        return command, common

    line.__annotations__ = {
        "command": tyro.conf.OmitArgPrefixes[args_class],
        "common": tyro.conf.OmitArgPrefixes[CommonById if by_id else Common],
    }
    text = (description or args_class.__doc__ or "").strip()
    if example:
        text += f"\n\nExample:\n\n    {program()} {example}"
    args, common = tyro.cli(line, prog=program(), description=text, args=with_defaults(sys.argv[1:]))
    for module in common.task_module:
        load_task_module(module)
        in_every_worker(load_task_module, module)
    if by_id and common.task is not None:
        if args.env_id != fields["env_id"].default:
            raise InvalidArgument(f"env_id names {args.env_id} and task {common.task}; give one of them")
        args = dataclasses.replace(args, env_id=env_id(common.task, common.variant, common.mode))
    return args


def with_defaults(words: Sequence[str]) -> list[str]:
    """The words of a command line, where options that may stand without a value have been given one."""
    given: list[str] = []
    for word, following in zip_longest(words, words[1:], fillvalue="--"):
        given.append(word)
        if word in OPTIONAL_VALUES and following.startswith("--"):
            given.append(OPTIONAL_VALUES[word])
    return given


def program() -> str:
    """What the user typed to start this command."""
    if sys.argv[0].startswith(SCRIPT):
        return sys.argv[0]
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return Path(sys.argv[0]).name if spec is None else f"python -m {spec.name}"


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
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered is lost in silence
        raise SystemExit(128 + signal.SIGPIPE) from None
    except Exception as error:
        if not is_users(error):
            raise
        print(f"error: {missing_package(error) or error}", file=sys.stderr)
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


def is_users(error: Exception) -> bool:
    """Whether an error says what the user can mend: this package's, Gymnasium's, files that cannot be opened, and optional
    packages that are not installed.

    An error from anywhere else is a defect and keeps its traceback.
    """
    return isinstance(error, (ReinforceGenError, OSError, gym.error.Error)) or bool(missing_package(error))


def missing_package(error: Exception) -> str:
    """What to do about an optional package that could not be imported; "" if the error is something else."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if isinstance(error, ReinforceGenError) or name not in OPTIONAL:
        return ""
    return f"{name} is not installed, and this command needs it: pip install 'reinforcegen-envs[{OPTIONAL[name]}]'"
