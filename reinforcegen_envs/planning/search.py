"""Sampling-based search for a joint path: pybullet-planning's ``birrt`` where pybullet is installed, else our own.

pybullet has no wheels for Python 3.12 and later. OMPL 2, which has, cannot stand in: its generators are seeded once a process,
so that a path would depend on what was planned before. Both searches are bounded by iterations, never by the clock, and draw
from a generator that the caller hands in: the same problem and generator give the same path.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from reinforcegen_envs.typing import Array

RESOLUTION = 0.06  # radians between collision checks while searching: 3 cm at the hand
ITERATIONS, RESTARTS, SHORTCUTS = 300, 4, 30  # of one search; samples, new beginnings, tries to shorten what was found
MAX_SECONDS = 60.0  # pybullet-planning wants a limit; none of its searches of so many iterations takes as long
_GLOBAL_RANDOMNESS = threading.Lock()  # environments in threads must not seed over each other's search
_IMPORT = threading.Lock()  # nor find the library in sys.modules while another thread's import is half done


class Problem(NamedTuple):
    """What is searched for.

    Args:
        start, goal: (7,) joints, radians.
        low, high: (7,) the box to draw samples from, radians.
        collides: of joints.
    """

    start: Array
    goal: Array
    low: Array
    high: Array
    collides: Callable[[Array], bool]


@functools.cache
def has_pybullet() -> bool:
    """Whether pybullet-planning can be used."""
    return all(importlib.util.find_spec(name) is not None for name in ("pybullet", "pybullet_planning"))


def search(problem: Problem, rng: np.random.Generator) -> list[Array] | None:
    """A path of (7,) joints, from start to goal, free of collisions at steps of `RESOLUTION`; None if none was found."""
    return (pybullet_search if has_pybullet() else rrt_connect)(problem, rng)


def steps(start: Array, end: Array) -> Iterator[Array]:
    """Joints along a straight line, each at most `RESOLUTION` from the one before, without the first and with the last."""
    count = int(np.ceil(np.abs(end - start).max() / RESOLUTION)) or 1
    return (start + (end - start) * (i / count) for i in range(1, count + 1))


class _Tree:
    """Joints that can be reached from its root, each with the one that it was reached from."""

    def __init__(self, root: Array):
        self._joints = np.empty((256, len(root)))
        self._joints[0] = root
        self._parents = [-1]

    def __getitem__(self, index: int) -> Array:
        return self._joints[index]

    def grow(self, target: Array, collides: Callable[[Array], bool]) -> tuple[int, bool]:
        """Go straight to a target from what is nearest to it, up to a collision; returns the index of where that led, and whether
        to the target."""
        index = int(np.square(self._joints[: len(self._parents)] - target).sum(1).argmin())
        for joints in steps(self._joints[index].copy(), target):
            if collides(joints):
                return index, False
            if len(self._parents) == len(self._joints):
                self._joints = np.concatenate([self._joints, np.empty_like(self._joints)])
            self._joints[len(self._parents)] = joints
            self._parents.append(index)
            index = len(self._parents) - 1
        return index, True

    def way(self, index: int) -> list[Array]:
        """From the root to one of its joints."""
        way = []
        while index >= 0:
            way.append(self._joints[index].copy())
            index = self._parents[index]
        return way[::-1]


def rrt_connect(problem: Problem, rng: np.random.Generator) -> list[Array] | None:
    """Two trees that grow towards samples and towards each other (Kuffner and LaValle 2000), then shortcuts.

    The same result as `search`.
    """
    start, goal, low, high, collides = problem
    if collides(start) or collides(goal):
        return None
    for _ in range(RESTARTS + 1):
        trees = _Tree(start), _Tree(goal)
        for iteration in range(ITERATIONS):
            this, other = trees if iteration % 2 == 0 else trees[::-1]
            # The first sample is the goal: most often the direct way leads furthest.
            sample = rng.uniform(low, high) if iteration else goal
            here, _ = this.grow(sample, collides)
            there, met = other.grow(this[here], collides)
            if met:
                ways = this.way(here), other.way(there)
                if this is not trees[0]:
                    ways = ways[::-1]
                return _shortened([*ways[0], *ways[1][-2::-1]], collides, rng)
    return None


def _shortened(path: list[Array], collides: Callable[[Array], bool], rng: np.random.Generator) -> list[Array]:
    """A path with straight lines between points of it, drawn at random, wherever they are free."""
    for _ in range(SHORTCUTS):
        if len(path) < 3:
            break
        first, last = sorted(int(i) for i in rng.choice(len(path), 2, replace=False))
        if last - first < 2:
            continue
        line = list(steps(path[first], path[last]))
        if not any(collides(joints) for joints in line):
            path = [*path[: first + 1], *line, *path[last + 1 :]]
    return path


def pybullet_search(problem: Problem, rng: np.random.Generator) -> list[Array] | None:
    """pybullet-planning's ``birrt``; the same result as `search`.

    Raises:
        ImportError: pybullet-planning is not installed.
    """
    motion_planners = _pybullet_planning()
    start, goal, low, high, collides = problem

    def distance(a, b) -> float:
        return float(np.linalg.norm(np.subtract(a, b)))

    def extend(a, b):
        return (tuple(joints) for joints in steps(np.asarray(a), np.asarray(b)))

    with global_randomness(rng):
        path = motion_planners.birrt(
            tuple(start),
            tuple(goal),
            distance,
            lambda: tuple(rng.uniform(low, high)),
            extend,
            lambda q, diagnosis=False: collides(np.asarray(q)),
            max_iterations=ITERATIONS,
            restarts=RESTARTS,
            smooth=SHORTCUTS,
            max_time=MAX_SECONDS,
        )
    return None if path is None else [np.asarray(q) for q in path]


@contextlib.contextmanager
def global_randomness(rng: np.random.Generator) -> Iterator[None]:
    """Seed Python's and numpy's global generators from ``rng`` inside the block and restore them after it.

    pybullet-planning draws from both; without this its paths, and the user's own draws, would change from run to run.
    """
    with _GLOBAL_RANDOMNESS:
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
        seed = int(rng.integers(2**32))
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002


def _pybullet_planning():
    """Import pybullet-planning when a search first needs it, without the line pybullet writes."""
    with _IMPORT:
        return sys.modules.get("pybullet_planning") or _import_quietly()


def _import_quietly():
    # The line comes from C code, straight to the file of standard error.
    saved, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import pybullet_planning
    except ImportError as error:
        raise ImportError(
            "pybullet-planning (with pybullet) is not installed: pip install pybullet-planning"
        ) from error
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
    return pybullet_planning
