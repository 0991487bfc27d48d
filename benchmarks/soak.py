"""Every task stepped for long in two threads: no NaN, nothing that leaks, nothing that drifts.

    python benchmarks/soak.py                                              # 1.2 million control steps
    python benchmarks/soak.py --tasks Square --steps 2000

In each thread one environment under residuals at random (whole tasks, planner and base policy), and one without any mode under
actions at random, which throw things about; they take turns, episode by episode. Control steps of connects count as well.
- *finite*: every observation and reward is; a simulation that diverges raises, and would end this.
- *leak*: resident memory at the end, over what it was after the first quarter; open files likewise.
- *drift*: the first and the last episode are the same one, and must be equal bit for bit, with the planner's connects in them.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hashlib
import itertools
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np
from report import Figure, write_report
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, CountOrZero, checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.ids import env_id
from reinforcegen_envs.tasks import TASKS

HOLD = 4  # control steps for which a random action is held, so that the arm gets somewhere
SAME_SEED, SAME_STEPS = 7, 60  # the episode that is played first and last
PLAIN_STEPS = 300  # of an episode without a mode, whose own horizon is many times that


@dataclass
class Args:
    """Step every task for long."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """task names"""
    variant: str = "D2"
    """reset range"""
    steps: Count = 200_000
    """control steps a task, of all threads together"""
    threads: Count = 2
    """threads, each with environments of its own"""
    seed: CountOrZero = 0
    """of actions and resets"""


def episode(
    env: gym.Env, seed: int, rng: np.random.Generator, largest: float, hold: int = 1
) -> Iterator[tuple[np.ndarray, float, int]]:
    """Play one with uniform actions, each held for ``hold`` steps; yields observation, reward, control steps, the reset first."""
    observation, info = env.reset(seed=seed)
    yield observation, 0.0, info["sim_steps"]
    action = np.zeros(7, np.float32)
    for acted in itertools.count():
        if acted % hold == 0:
            action = rng.uniform(-largest, largest, 7).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        yield observation, float(reward), info["sim_steps"]
        if terminated or truncated:
            return


class Soak:
    """What one thread steps.

    Args:
        args: the command's.
        task: name of the task.
        thread: its number.
    """

    def __init__(self, args: Args, task: str, thread: int):
        self._rng = np.random.default_rng([args.seed, list(TASKS).index(task), thread])
        self._residual = gym.make(env_id(task, args.variant, "Residual"), disable_env_checker=True)
        self._plain = gym.make(env_id(task, args.variant), disable_env_checker=True)
        self.steps = self.episodes = 0

    def run(self, steps: int, bar: tqdm, lock: threading.Lock) -> None:
        """Play episodes until at least so many steps were made.

        Raises:
            FloatingPointError: an observation or reward is not finite.
        """
        end = self.steps + steps
        in_turn = (self._residual, math.inf), (self._plain, PLAIN_STEPS)
        while self.steps < end:
            made = self._episode(*in_turn[self.episodes % 2])
            self.steps += made
            self.episodes += 1
            with lock:
                bar.update(made)

    def _episode(self, env: gym.Env, longest: float) -> int:
        steps = 0
        for observation, reward, made in episode(env, int(self._rng.integers(2**31)), self._rng, 1.0, HOLD):
            if not (np.isfinite(observation).all() and np.isfinite(reward)):
                raise FloatingPointError(f"{env}: observation {observation}, reward {reward}")
            steps += made
            if steps >= longest:
                break
        return steps

    def same(self) -> str:
        """A digest of an episode that is always the same, in both modes."""
        digest = hashlib.sha256()
        for env in (self._residual, self._plain):
            played = episode(env, SAME_SEED, np.random.default_rng(SAME_SEED), 0.3)
            for observation, reward, _ in itertools.islice(played, SAME_STEPS + 1):
                digest.update(observation.tobytes() + np.float64(reward).tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Give back what the environments hold."""
        self._residual.close()
        self._plain.close()


def resident() -> float:
    """Resident memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def soak(args: Args, task: str) -> list[Figure]:
    """Step one task; returns what came of it."""
    soaks = [Soak(args, task, i) for i in range(args.threads)]
    began, lock = time.monotonic(), threading.Lock()
    each = -(-args.steps // args.threads)
    with (
        ThreadPoolExecutor(args.threads) as pool,
        tqdm(total=each * args.threads, unit="step", desc=task, smoothing=0.0) as bar,
    ):
        first = list(pool.map(Soak.same, soaks))
        list(pool.map(lambda one: one.run(each // 4, bar, lock), soaks))
        memory, files = resident(), len(os.listdir("/proc/self/fd"))
        list(pool.map(lambda one: one.run(each - one.steps, bar, lock), soaks))
        grown, opened = resident() - memory, len(os.listdir("/proc/self/fd")) - files
        last = list(pool.map(Soak.same, soaks))
    steps, episodes = sum(one.steps for one in soaks), sum(one.episodes for one in soaks)
    for one in soaks:
        one.close()
    seconds = time.monotonic() - began
    differ = sum(a != b for a, b in zip(first, last, strict=True)) + (len(set(first)) > 1)
    return [
        Figure(f"{task}: steps", steps, "", f">= {args.steps}", f"{episodes} episodes, {seconds:.0f} s"),
        Figure(f"{task}: memory grown in the last three quarters", grown, "MB", "<= 10"),
        Figure(f"{task}: files left open", opened, "", "<= 0"),
        Figure(f"{task}: episodes that changed", differ, "", "<= 0"),
    ]


def main(args: Args) -> None:
    """Step all tasks, and write the table.

    Raises:
        InvalidArgument: unknown tasks.
        SimulationError: a simulation diverged.
    """
    args = checked(args)
    if unknown := sorted(set(args.tasks) - set(TASKS)):
        raise InvalidArgument(f"unknown task {unknown[0]!r}; choose from {sorted(TASKS)}")
    figures = [figure for task in args.tasks for figure in soak(args, task)]
    write_report("soak", figures)


if __name__ == "__main__":
    cli.run(main, Args)
