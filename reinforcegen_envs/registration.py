"""The table of ids, ``ReinforceGen/{variant}-{task}[-{mode}[-{stage}]]-v0``, open to tasks from elsewhere.

``Hybrid``, ``Skill`` and ``Residual`` use the weights that are shipped in ``policies/weights/{task, lower case}/``, or those that
``weights=`` names. An id with a stage is its mode's with that ``stage=`` and ``pool="auto"``: for scripts that pass only an id.
``gym.make_vec`` makes a `ThreadVectorEnv` of every id.

A task of one's own joins in with `register_task`, in whatever module defines it. Commands import that module if
``--task-module`` names it, or, once it is installed, if its package declares it as an entry point::

    [project.entry-points."reinforcegen_envs.tasks"]
    stack = "own_task"
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import sys
import warnings
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym
from gymnasium.vector import AutoresetMode

from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.errors import InvalidArgument, is_count, is_one_of
from reinforcegen_envs.ids import MODES, NAMESPACE, STAGE_MODES, VARIANTS, VERSION, env_id, parse_env_id, parse_stage
from reinforcegen_envs.modules import load_task_module
from reinforcegen_envs.perception import as_perception
from reinforcegen_envs.perception.choice import OF_WEIGHTS
from reinforcegen_envs.tasks import PACKAGE_TASKS, TASKS, Task
from reinforcegen_envs.tasks.contract import TaskError, check_task
from reinforcegen_envs.workers import in_every_worker
from reinforcegen_envs.wrappers import Hybrid, Residual, Skill
from reinforcegen_envs.wrappers.stored_pool import AUTO
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

__all__ = [
    "ARGUMENTS", "MODES", "NAMESPACE", "STAGE_MODES", "VARIANTS", "VERSION", "TaskError", "UnexpectedArgument", "env_id",
    "load_task_module", "make_env", "make_vector_env", "parse_env_id", "parse_stage", "register_envs", "register_task",
    "task_modules",
]  # fmt: skip

ENTRY_POINTS = "reinforcegen_envs.tasks"

_PLAIN = (
    "obs_mode", "image_size", "randomize_visuals", "perception", "controller", "render_mode", "camera", "width", "height",
)  # fmt: skip
_HYBRID = ("termination", "initiation", "pose_noise", "replan", "retries", "weights")
_STAGED = ("pool", "pool_size", "earlier_policy", "earlier_pool", "foresight")  # of one stage's skill alone
ARGUMENTS = {
    None: _PLAIN,
    "Hybrid": _PLAIN + _HYBRID,
    "Skill": (*_PLAIN, *_HYBRID, "stage", *_STAGED),
    "Residual": (*_PLAIN, *_HYBRID, "stage", *_STAGED, "residual_scale", "base_policy"),
}

TaskType = TypeVar("TaskType", bound=type[Task])
_modules: dict[str, str] = {}  # name of a task from elsewhere -> the module it comes from, by name or file


class UnexpectedArgument(InvalidArgument, TypeError):
    """An id was made with an argument that its mode does not have; a TypeError, as libraries expect that probe for some."""


def make_env(
    task: str, variant: str, mode: str | None = None, task_module: str | None = None, **kwargs: Any
) -> gym.Env:
    """Build an environment; the entry point of every id, and the way to a mode without one (see the module).

    Args:
        task, variant, mode: which id.
        task_module: where the task comes from, if not from this package: imported if it is not known yet, as in a process
            of its own.
        kwargs: arguments of `ManipulationEnv`, `Hybrid`, `Skill` and `Residual`, as far as the mode has them
            (``residual_scale`` is Residual's ``scale``).

    Raises:
        UnexpectedArgument: an argument the mode does not have.
        InvalidArgument: unknown task, variant or mode, or a value that is not allowed.
    """
    if mode is not None and not is_one_of(mode, filter(None, MODES)):
        raise InvalidArgument(f"unknown mode {mode!r}; choose one of {MODES}")
    if unknown := sorted(set(kwargs) - set(ARGUMENTS[mode])):
        raise UnexpectedArgument(
            f"{env_id(task, variant, mode)} got an unexpected keyword argument {unknown[0]!r}; "
            f"it takes {sorted(ARGUMENTS[mode])}"
        )
    if task_module is not None and task not in TASKS:
        load_task_module(task_module)
    if is_one_of(kwargs.get("perception"), OF_WEIGHTS):
        kwargs["perception"] = as_perception(kwargs["perception"], kwargs.get("weights"))
    env: gym.Env = ManipulationEnv(task, variant, **{k: v for k, v in kwargs.items() if k in _PLAIN})
    if mode is None:
        return env
    hybrid = {k: v for k, v in kwargs.items() if k in _HYBRID}
    whole = mode == "Hybrid" or (mode == "Residual" and kwargs.get("stage") is None)
    if whole:
        if staged := set(_STAGED) & {k for k, v in kwargs.items() if v is not None and v is not False}:
            raise InvalidArgument(f"{sorted(staged)} belong to one stage's skill; name it with stage=")
        env = Hybrid(env, **hybrid)  # type: ignore[arg-type]
    else:
        staged_kwargs = {k: kwargs[k] for k in ("stage", *_STAGED) if k in kwargs}
        env = Skill(env, **staged_kwargs, **hybrid)  # type: ignore[arg-type]
    if mode == "Residual":
        residual = {"scale": kwargs["residual_scale"]} if "residual_scale" in kwargs else {}
        env = Residual(env, base_policy=kwargs.get("base_policy"), **residual)  # type: ignore[arg-type]
    return env


# Where gym.make looks for render modes, to wrap for "human" and "rgb_array_list", when the entry point is a function.
make_env.metadata = ManipulationEnv.metadata  # pyright: ignore[reportFunctionMemberAccess]


def make_vector_env(
    task: str,
    variant: str,
    mode: str | None = None,
    task_module: str | None = None,
    num_envs: int = 1,
    num_threads: int | None = None,
    autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    **kwargs: Any,
) -> ThreadVectorEnv:
    """Build environments that run side by side; the vector entry point of every id.

    What it returns does the same, bit for bit, as ``gym.make_vec`` with ``vectorization_mode="sync"``.

    Args:
        task, variant, mode, task_module: as in `make_env`.
        num_envs: how many, at least 1.
        num_threads, autoreset_mode: as in `ThreadVectorEnv`.
        kwargs: for ``gym.make``, ``max_episode_steps`` and ``disable_env_checker`` among them.

    Raises:
        InvalidArgument: ``num_envs`` or the autoreset mode is not allowed; and what `make_env` raises.
        ValueError: ``num_threads`` is below 1.
    """
    if not is_count(num_envs, 1):
        raise InvalidArgument(f"num_envs {num_envs!r} must be a number of environments, at least 1")
    try:
        autoreset_mode = AutoresetMode(autoreset_mode)
    except ValueError as error:
        modes = [each.value for each in AutoresetMode]
        raise InvalidArgument(f"unknown autoreset_mode {autoreset_mode!r}; choose one of {modes}") from error
    if task_module is not None and task not in TASKS:
        load_task_module(task_module)
    of_stage = mode in STAGE_MODES and kwargs.get("stage") is not None and kwargs.get("pool") == AUTO
    name = env_id(task, variant, mode, kwargs["stage"] if of_stage else None)
    return ThreadVectorEnv([lambda: gym.make(name, **kwargs)] * num_envs, num_threads, autoreset_mode=autoreset_mode)


def register_task(task: TaskType) -> TaskType:
    """Make the ids of a task, in all its variants, every mode and of every stage; also a class decorator.

    A class of the same name from the same module takes the place of the one before it: a module that is loaded again.

    Args:
        task: a subclass of `Task`.

    Returns:
        the class.

    Raises:
        TaskError: the class does not declare what a task must, or there is another task of this name.
    """
    check_task(task)
    module = _home(task)
    for name, other in TASKS.items():  # files are named after tasks in lower case
        if name.lower() == task.name.lower() and (name != task.name or _home(other) != module):
            raise TaskError(
                f"task class {task.__name__}: there is a task {name!r} already, {other.__module__}.{other.__qualname__}; "
                "choose another name"
            )
    TASKS[task.name] = task
    _modules[task.name] = module
    in_every_worker(load_task_module, module)
    _register_ids(task, {"task_module": module})
    return task


def register_envs() -> None:
    """Register every id of the package's tasks with Gymnasium; importing `reinforcegen_envs` does it."""
    for task in PACKAGE_TASKS:
        _register_ids(task, {})


def _register_ids(task: type[Task], kwargs: dict[str, str]) -> None:
    for variant in task.variants:
        for mode in MODES:
            _register(task, variant, mode, kwargs)
        for mode in STAGE_MODES:
            for stage in task.stages:
                _register(task, variant, mode, {**kwargs, "stage": stage.name, "pool": AUTO})


def _register(task: type[Task], variant: str, mode: str | None, kwargs: dict[str, str]) -> None:
    name = env_id(task.name, variant, mode, kwargs.get("stage"))
    gym.registry.pop(name, None)
    gym.register(
        name,
        entry_point="reinforcegen_envs.registration:make_env",
        vector_entry_point="reinforcegen_envs.registration:make_vector_env",
        kwargs={"task": task.name, "variant": variant, "mode": mode, **kwargs},
        # Hybrid modes count connects too, and so are over before Gymnasium's TimeLimit, which does not.
        max_episode_steps=task.horizon,
    )


def _home(task: type[Task]) -> str:
    """The module that a task comes from, as `load_task_module` takes it in another process: its name, or else its file."""
    module = sys.modules[task.__module__]
    file = getattr(module, "__file__", None)
    if file is None or "." in task.__module__:
        return task.__module__
    try:
        found = importlib.machinery.PathFinder.find_spec(task.__module__)
    except (ImportError, ValueError):
        found = None
    importable = found is not None and found.origin is not None and os.path.samefile(found.origin, file)
    return task.__module__ if importable else str(Path(file).resolve())


def task_modules() -> tuple[str, ...]:
    """The modules that registered tasks of their own, for `load_task_module` in another process."""
    return tuple(dict.fromkeys(_modules.values()))


def load_entry_points() -> None:
    """Import the modules that installed packages declare to register tasks; one that fails is left out with a warning."""
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            importlib.import_module(entry.module)
        except Exception as error:  # somebody else's module must not keep this package from being imported
            warnings.warn(
                f"tasks of entry point {entry.name!r} ({entry.value}) are missing: {type(error).__name__}: {error}",
                stacklevel=2,
            )
