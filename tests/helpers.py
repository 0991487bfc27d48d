"""What the task tests do in the same way."""

import importlib
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from reinforcegen_envs import caching
from reinforcegen_envs.demos.hdf5 import Demo
from reinforcegen_envs.demos.replay import restore_first_state
from reinforcegen_envs.engine import Snapshot
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

EXAMPLES = Path(__file__).parents[1] / "examples"
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def errors_of(process: subprocess.CompletedProcess[str]) -> str:
    """What a process wrote to its standard error, but for the note that machine code was not there yet."""
    return process.stderr.replace(f"{caching.COMPILING}\n", "")


def benchmark(name: str) -> ModuleType:
    """A script of ``benchmarks``, as a module; the neighbours that it imports stay imported."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(BENCHMARKS))


def hybrid_of(env) -> Any:
    """The Hybrid or Skill wrapper inside an environment."""
    while not hasattr(env, "counters"):
        env = env.env
    return env


def goal_of(hybrid):
    """Where the current stage's connect should end, 4x4."""
    stage = hybrid.engine.stage
    return hybrid.engine.connector.goal(stage, hybrid.skeleton.tools[hybrid.counters.source, stage, 0])


def play(env, steps=15, action=None):
    """Repeat an action, by default none; whether strict success, and whether the reference check, held at any step."""
    action = np.zeros(7) if action is None else action
    strict = reference = False
    for _ in range(steps):
        _, _, terminated, _, info = env.step(action)
        assert terminated == info["success"] == info["is_success"]
        strict |= info["success"]
        reference |= info["reference_success"]
    return strict, reference


def assert_each_plays_as_alone(make, vector, mode, steps):
    """Two environments of one function, side by side, do what each does alone, over the ends of episodes.

    Args:
        make: makes one.
        vector: "sync", "threads" or "processes".
        mode: when a vector environment resets what has ended: NEXT_STEP or SAME_STEP.
        steps: random residuals.
    """
    kind = {"sync": SyncVectorEnv, "threads": ThreadVectorEnv, "processes": AsyncVectorEnv}[vector]
    kwargs = {"context": "fork"} if vector == "processes" else {}
    envs = kind([make] * 2, autoreset_mode=mode, **kwargs)
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (steps, 2, 7)).astype(np.float32)
    try:
        first, _ = envs.reset(seed=3)
        played = [envs.step(action)[:4] for action in actions]
    finally:
        envs.close()
    ends = 0
    for i in range(2):
        env = make()
        obs, _ = env.reset(seed=3 + i)
        np.testing.assert_array_equal(first[i], obs)
        done = False
        for action, (got, reward, terminated, truncated) in zip(actions, played, strict=True):
            if done:
                expected = (env.reset()[0], 0.0, False, False)
            else:
                expected = env.step(action[i])[:4]
            done = bool(expected[2] or expected[3])
            ends += done
            if done and mode == AutoresetMode.SAME_STEP:
                expected, done = (env.reset()[0], *expected[1:]), False
            np.testing.assert_array_equal(got[i], expected[0])
            assert (reward[i], terminated[i], truncated[i]) == expected[1:]
    assert ends


class Moment(NamedTuple):
    """What is seen after one control step of a demonstration."""

    state: Snapshot
    stage: int
    done: list[bool]  # of every stage, whether its end condition holds
    failure: str
    reward: float


def visit(env: ManipulationEnv, demo: Demo) -> list[Moment]:
    """Play a demonstration to its end, judging every state; strict success must imply the reference check in each."""
    restore_first_state(env, demo)
    engine = env.engine
    moments = []
    for action in demo.actions.astype(np.float32):
        _, reward, terminated, _, info = env.step(action)
        assert terminated == info["success"] == info["is_success"]
        assert info["reference_success"] or not all(info["predicates"].values())
        done = [env.task.stage_done(env.sim, i) for i in range(len(env.task.stages))]
        failure = env.task.failure(env.sim, engine.stage)
        moments.append(Moment(env.get_state(), engine.stage, done, failure, float(reward)))
        if terminated:
            break
    assert engine.judge.success
    return moments


def assert_strict_implies_reference(env: ManipulationEnv, states: Iterable[object], least: int) -> None:
    """Strict success implies the reference check in every state, of which some fulfil both and some fool the reference.

    Args:
        env: where the states are.
        states: writes one after the other to the environment when iterated over.
        least: how many there must be of each kind, at least.
    """
    strict = fooled = 0
    for _ in states:
        env.refresh()
        reference, holds = env.task.reference_success(env.sim), all(env.predicates().values())
        assert reference or not holds
        strict += holds
        fooled += reference and not holds
    assert strict > least and fooled > least, (strict, fooled)


@contextmanager
def registrations_undone() -> Iterator[None]:
    """Take back, at the end, what was registered within the block; modules that were imported are forgotten, too."""
    from reinforcegen_envs import registration, workers

    tasks, ids, modules = dict(TASKS), dict(gym.registry), dict(registration._modules)
    first_calls = list(workers._first_calls)
    imported = set(sys.modules)
    try:
        yield
    finally:
        for table, before in ((TASKS, tasks), (gym.registry, ids), (registration._modules, modules)):
            table.clear()
            table.update(before)  # type: ignore[arg-type]
        workers._first_calls[:] = first_calls  # else workers of other tests would import what is gone
        for name in set(sys.modules) - imported:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if file.startswith((tempfile.gettempdir(), str(EXAMPLES))):  # not what those import in their turn
                del sys.modules[name]
