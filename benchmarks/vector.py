"""How many more control steps a second 16 environments in threads make than one, in one run.

    python benchmarks/vector.py

Both step `D2-Threading-Residual-Insert` with its stored pool and residuals of zero, episode after episode. Pieces of both are
interleaved, and of each the median counts. The fastest would not be fair: a step costs what its contacts cost, and one
environment has phases without any, while 16 are never all in such a phase. On two cores the ratio cannot pass 2.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import tyro
from report import Figure, write_report

import reinforcegen_envs  # noqa: F401 (registers the ids)
from reinforcegen_envs.workers import usable_cores

ID = "ReinforceGen/D2-Threading-Residual-Insert-v0"


@dataclass
class Args:
    """Measure the thread vector environment."""

    envs: int = 16
    """environments in threads"""
    steps: int = 100
    """vector steps in a piece; the single environment makes as many control steps in one of its own"""
    repeats: int = 20
    """pieces of each"""


def main(args: Args) -> None:
    """Run both, write the table."""
    envs = gym.make_vec(ID, num_envs=args.envs, vectorization_mode="vector_entry_point")
    single = gym.make(ID, disable_env_checker=True)
    envs.reset(seed=0)
    single.reset(seed=0)
    zero = np.zeros(7, np.float32)
    zeros = np.zeros((args.envs, 7), np.float32)
    seconds: dict[str, list[float]] = {"one": [], "many": []}
    for _ in range(args.repeats):
        began = time.perf_counter()
        for _ in range(args.steps):
            envs.step(zeros)
        seconds["many"].append((time.perf_counter() - began) / (args.steps * args.envs))
        began = time.perf_counter()
        for _ in range(args.steps * args.envs // 2):
            _, _, terminated, truncated, _ = single.step(zero)
            if terminated or truncated:
                single.reset()
        seconds["one"].append((time.perf_counter() - began) / (args.steps * args.envs // 2))
    rates = {name: 1 / float(np.median(each)) for name, each in seconds.items()}
    figures = [
        Figure(f"{args.envs} environments in threads over one", rates["many"] / rates["one"], "", ">= 1.85"),
        Figure("control steps a second, one environment", rates["one"], "1/s"),
        Figure(
            f"control steps a second, {args.envs} environments", rates["many"], "1/s", "", f"{usable_cores()} cores"
        ),
    ]
    write_report("vector", figures)


if __name__ == "__main__":
    main(tyro.cli(Args))
