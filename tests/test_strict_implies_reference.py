"""Strict success never holds where MimicGen's check does not; `benchmarks/strict_implies_reference.py` is the long form."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.tasks import TASKS

NEAR_GOAL = 400


@pytest.fixture(scope="module")
def benchmark():
    folder = str(Path(__file__).parents[1] / "benchmarks")
    sys.path.insert(0, folder)
    yield importlib.import_module("strict_implies_reference")
    sys.path.remove(folder)


@pytest.mark.parametrize("task", sorted(TASKS))
def test_strict_implies_reference_along_demonstrations_and_near_the_goal(benchmark, task):
    env = ManipulationEnv(task, "D0")
    visited, near = benchmark.Tally(), benchmark.Tally()
    snapshots = benchmark.replayed(env, read_demos(source_file(task), task)[:2], visited)
    states = benchmark.near_goal(env, snapshots, np.random.default_rng(0))
    for index in range(NEAR_GOAL):
        next(states)
        near.count(env, str(index))
    assert not visited.places and not near.places
    assert 0 < visited.strict < 0.5 * visited.states
    # It has met both: states that count, and states that fool the reference.
    assert near.strict > 5 and near.reference - near.strict > 5


def test_the_tally_finds_a_violation(benchmark):
    """The reference check of a nut that is nowhere near its peg is false: strict predicates that all hold violate."""
    env = ManipulationEnv("Square", "D0")
    env.reset(seed=0)
    tally = benchmark.Tally()
    tally.count(env, "reset")
    env._predicates = dict.fromkeys(env.predicates(), True)
    tally.count(env, "made up")
    assert (tally.states, tally.strict, tally.reference, tally.places) == (2, 1, 0, ["made up"])
