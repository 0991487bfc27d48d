"""What it saves to ask the base policy for the actions of many environments at once, in one run.

    python benchmarks/batch_policy.py

One batched call over the observations of some environments against as many single calls, on the shipped weights and on
observations from episodes, whose networks are as busy as they are in use. Pieces are interleaved and repeated, and of each
the fastest run counts: what other processes take away is noise that only adds time.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import tyro
from report import Figure, write_report

import reinforcegen_envs  # noqa: F401 (registers the ids)
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.skill import SkillPolicy
from reinforcegen_envs.tasks import TASKS


@dataclass
class Args:
    """Measure batched calls of the base policy."""

    task: str = "Threading"
    """whose shipped weights are asked"""
    envs: int = 8
    """environments in a batch"""
    calls: int = 100
    """calls in one piece of work"""
    repeats: int = 200
    """how often each is repeated"""
    seed: int = 0
    """seed of the first episode"""


def episodes(args: Args) -> np.ndarray:
    """(envs, size) observations, one an episode, each a few more control steps into it: of all stages."""
    env = gym.make(f"ReinforceGen/D2-{args.task}-Residual-v0", disable_env_checker=True)
    seen = []
    for i in range(args.envs):
        obs, _ = env.reset(seed=args.seed + i)
        for _ in range(10 * i):
            obs, _, terminated, truncated, _ = env.step(np.zeros(7))
            if terminated or truncated:
                break
        seen.append(obs[:-7])  # without base action
    return np.array(seen)


def fastest(args: Args, pieces: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of one call of each piece, the fastest of all repeats."""
    seconds = dict.fromkeys(pieces, np.inf)
    for _ in range(args.repeats):
        for name, piece in pieces.items():
            began = time.perf_counter()
            for _ in range(args.calls):
                piece()
            seconds[name] = min(seconds[name], (time.perf_counter() - began) / args.calls)
    return seconds


def figures(args: Args, policy: SkillPolicy, observations: np.ndarray) -> list[Figure]:
    """The table's rows."""
    rows = [row[None] for row in observations]

    def single() -> None:
        for row in rows:
            policy.act(row)

    alone, together = np.concatenate([policy.act(row) for row in rows]), policy.act(observations)
    if alone.tobytes() != together.tobytes():
        raise RuntimeError("the batch differs from its rows")
    seconds = fastest(args, {"single": single, "batch": lambda: policy.act(observations)})
    detail = f"{1e6 * seconds['single']:.1f} over {1e6 * seconds['batch']:.1f} microseconds"
    return [
        Figure(f"{args.envs} single calls over one batched", seconds["single"] / seconds["batch"], "", ">= 2", detail),
        Figure("a single call", 1e6 * seconds["single"] / args.envs, "us"),
        Figure("a batched call, by environment", 1e6 * seconds["batch"] / args.envs, "us"),
    ]


def main(args: Args) -> None:
    """Measure, print and write."""
    policy = Bundle.open(TASKS[args.task]).base()
    write_report("batch_policy", figures(args, policy, episodes(args)))


if __name__ == "__main__":
    main(tyro.cli(Args))
