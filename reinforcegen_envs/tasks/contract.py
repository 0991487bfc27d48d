"""What a task class must declare, checked once, when it is registered: a message instead of a KeyError later."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.ids import is_stage_word, is_word, stage_word
from reinforcegen_envs.models.objects import Body, Part
from reinforcegen_envs.models.scene import Scene
from reinforcegen_envs.tasks.base import Placement, Shape, Stage, Task

DECLARED = ("name", "scene", "objects", "shapes", "variants", "stages", "horizon")


class TaskError(InvalidArgument):
    """A task class does not declare what a task must."""


def check_task(task: Any) -> None:
    """Check a task class's declarations.

    Raises:
        TaskError: one is missing, of the wrong kind, or does not fit the others.
    """
    if not (inspect.isclass(task) and issubclass(task, Task)):
        raise TaskError(f"{task!r} is no task; register a subclass of reinforcegen_envs.tasks.Task")
    where = f"task class {task.__name__}"
    if missing := [name for name in DECLARED if not hasattr(task, name)]:
        raise TaskError(f"{where} lacks the class attributes {missing}; see reinforcegen_envs.tasks.Task")
    if abstract := sorted(task.__abstractmethods__):
        raise TaskError(f"{where} lacks the methods {abstract}; see reinforcegen_envs.tasks.Task")
    for problem in _problems(task):
        raise TaskError(f"{where}: {problem}")


def _problems(task: type[Task]) -> Iterator[str]:
    """What is wrong with the declarations; checks rely on those before them."""
    if not (isinstance(task.name, str) and is_word(task.name)):
        yield f"name {task.name!r} must be letters and digits, a letter first, and no mode's name"
    if not (isinstance(task.horizon, int) and task.horizon > 0):
        yield f"horizon {task.horizon!r} must be a number of control steps, at least 1"
    if not (isinstance(task.success_steps, int) and task.success_steps > 0):
        yield f"success_steps {task.success_steps!r} must be a number of control steps, at least 1"
    if not isinstance(task.scene, Scene):
        yield f"scene {task.scene!r} must be a reinforcegen_envs.models.scene.Scene"
    bodies = [body.name for body in task.scene.bodies]
    if not (isinstance(task.objects, tuple) and task.objects and len(set(task.objects)) == len(task.objects)):
        yield f"objects {task.objects!r} must be a tuple of different names of the scene's bodies {bodies}"
    yield from _unknown("objects", task.objects, bodies)
    yield from _unknown("joints", task.joints, [joint for body in task.scene.bodies for joint in _joints(body)])
    for name in task.objects:
        if not isinstance(task.shapes.get(name), Shape):
            yield f"shapes[{name!r}] must be a Shape: how high and how wide the object is"
    yield from _variant_problems(task)
    yield from _unknown("symmetries", task.symmetries, task.objects)
    yield from _stage_problems(task)


def _unknown(what: str, names: Iterable[str], allowed: Iterable[str]) -> Iterator[str]:
    if unknown := [name for name in names if name not in allowed]:
        yield f"{what} names {unknown}; choose from {list(allowed)}"


def _joints(part: Body | Part) -> Iterator[str]:
    """Names of the joints within an object."""
    for inner in part.parts:
        yield from (value for key, value in inner.joint if key == "name")
        yield from _joints(inner)


def _variant_problems(task: type[Task]) -> Iterator[str]:
    if not task.variants:
        yield "variants is empty; declare at least one, e.g. 'D0'"
    for variant, places in task.variants.items():
        if not is_word(variant):
            yield f"variant {variant!r} must be letters and digits, a letter first"
        if set(places) != set(task.objects):
            yield f"variant {variant!r} places {sorted(places)}; it must place {sorted(task.objects)}"
        for name, place in places.items():
            ranges = np.array([place.x, place.y, place.yaw]) if isinstance(place, Placement) else np.empty(0)
            if ranges.shape != (3, 2) or not np.isfinite(ranges).all() or (ranges[:, 0] > ranges[:, 1]).any():
                yield f"variant {variant!r} has {place!r} for {name!r}; it must be a Placement of (low, high) pairs"


def _stage_problems(task: type[Task]) -> Iterator[str]:
    if not task.stages:
        yield "stages is empty; declare at least one"
    for stage in task.stages:
        if not isinstance(stage, Stage):
            yield f"stages holds {stage!r}; every one must be a Stage"
        if not (isinstance(stage.horizon, int) and stage.horizon > 0):
            yield f"stage {stage.name!r} has horizon {stage.horizon!r}; it must be a number of control steps, at least 1"
        yield from _unknown(f"stage {stage.name!r}", filter(None, (stage.reference, stage.held)), task.objects)
    names = [stage.name for stage in task.stages]
    if len(set(names)) < len(names):
        yield f"stages are called {names}; names must differ"
    words = [stage_word(name) for name in names]
    if len(set(words)) < len(words) or not all(is_stage_word(word) for word in words):
        yield (
            f"stages are called {names}, in ids {words}, which must differ, and be letters and digits, a letter first"
        )
    signals = [stage.signal for stage in task.stages]
    if None in signals[:-1] or signals[-1] is not None or len(set(signals)) < len(signals):
        yield f"stages have the signals {signals}; all but the last stage need one of their own, the last has None"
    # Then no count of skill steps reaches the task's horizon before its own stages' do: Gymnasium's TimeLimit, which counts
    # them and knows nothing of connects, never cuts an episode short.
    if (total := sum(stage.horizon for stage in task.stages)) > task.horizon:
        yield f"the stages' horizons sum to {total} control steps; horizon {task.horizon} must be at least that"
