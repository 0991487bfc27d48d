"""What all examples of this folder share: one setting, and the curve of success on held-out seeds.

The first skill of Threading, from starts where the base policy brings it off in about six of ten episodes. A zero action is
the base policy, so every curve starts from it.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import reinforcegen_envs
from reinforcegen_envs.agents.evaluation import evaluate_agent
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.statistics import EVALUATION_SEED
from reinforcegen_envs.workers import usable_cores

gym.register_envs(reinforcegen_envs)

ID = "ReinforceGen/D2-Threading-Residual-v0"
COLUMNS = ("steps", "success", "low", "high", "episodes")
# Starts are off by 3 cm and 9 degrees per axis. Where the base policy then misses the needle it lifts an empty hand with all its
# might. A residual of a tenth of the action range turns that round too rarely to learn from in minutes, and what comes later
# teaches nothing.
KWARGS: dict[str, Any] = {"stage": "grasp", "pose_noise": (0.03, 0.15), "residual_scale": 0.3, "max_episode_steps": 60}
STD = 0.5
"""std of the exploration to start with, in the residual's units"""


@dataclasses.dataclass
class Args:
    """Budget of one library's run."""

    steps: int = 60_000
    """control steps of training, all environments together"""
    every: int = 20_000
    """control steps between evaluations"""
    episodes: int = 300
    """episodes of the last evaluation, and of the base policy's, on seeds from 1,000,000; those between have a third"""
    seed: int = 1
    """seed of the training"""
    out: Path = Path("benchmarks/results")
    """folder of library_NAME.csv"""


class Curve:
    """Success against control steps, measured now and then on the same held-out seeds; its first row is the base policy.

    Args:
        name: of the library and algorithm; the table is library_NAME.csv.
        args: how often, over how many episodes, and where to. The base policy's row is kept in library_base.csv.
    """

    def __init__(self, name: str, args: Args):
        self._path, self._args = args.out / f"library_{name}.csv", args
        self._rows: list[list[float]] = []
        base = args.out / "library_base.csv"
        if base.is_file():
            with open(base, newline="") as file:
                self._rows = [[float(row[column]) for column in COLUMNS] for row in csv.DictReader(file)]
        if not self._rows or self._rows[0][-1] != args.episodes:
            self._rows = []
            self._measure(base, 0, lambda _: np.zeros(7, np.float32), args.episodes)

    def due(self, steps: int) -> bool:
        """Whether the training has come to, or past, the next evaluation, or its end."""
        last, every, end = self._rows[-1][0], self._args.every, self._args.steps
        return steps // every > last // every or last < end <= steps

    def measure(self, steps: int, policy: Callable[[Any], np.ndarray]) -> None:
        """Play the held-out seeds, and write the table with the new row.

        Args:
            steps: control steps trained so far.
            policy: one observation (size,) -> one action (7,), without exploration.
        """
        episodes = self._args.episodes
        self._measure(self._path, steps, policy, episodes if steps >= self._args.steps else -(-episodes // 3))

    def _measure(self, path: Path, steps: int, policy: Callable[[Any], np.ndarray], episodes: int) -> None:
        result = evaluate_agent(lambda: gym.make(ID, **KWARGS), policy, episodes, EVALUATION_SEED, usable_cores())
        self._rows.append([steps, result.success, *result.interval, episodes])
        with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows([f"{value:.6g}" for value in row] for row in self._rows)
        print("{:.0f} control steps: success {:.2f} [{:.2f}, {:.2f}]".format(*self._rows[-1]), flush=True)
