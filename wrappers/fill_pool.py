"""Fill a reset pool: run the stages before a skill, connect to it, and keep the state.

python -m reinforcegen_envs.wrappers.fill_pool --variant D2 --stage insert --count 600 --out pool.npz
"""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.registration import make_env
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.wrappers.pool import StartPool

EARLIER_POLICIES = ("base", "tuned")


@dataclass
class Args:
    """Fill a reset pool for one stage's skill."""

    task: str = "Threading"
    """task name"""
    variant: str = "D2"
    """reset range"""
    stage: str = "insert"
    """stage whose skill starts are collected"""
    count: int = 600
    """snapshots"""
    pose_noise: tuple[float, float] = (0.0, 0.0)
    """standard deviations of the noise on initiation poses, metres and radians per axis"""
    seed: int = 0
    """snapshot i is made from seed + i alone; keep below 1,000,000, where evaluation begins"""
    weights: str | None = None
    """folder of base weights and predictors; default: the shipped one"""
    earlier_policy: str = "base"
    """who plays the stages before: "base", or "tuned", which adds the residual weights that are in the weights' folder"""
    initiation: str = "teacher"
    """"teacher" or "student" chooses initiation poses"""
    out: Path = Path("pool.npz")
    """file to write"""
    workers: int = 0
    """processes; 0 means one a core"""


_env: Any = None


def _start_worker(args: Args) -> None:
    global _env
    earlier = Bundle.open(TASKS[args.task], args.weights).tuned() if args.earlier_policy == "tuned" else None
    _env = make_env(
        args.task,
        args.variant,
        "Skill",
        stage=args.stage,
        pose_noise=tuple(args.pose_noise),
        weights=args.weights,
        initiation=args.initiation,
        earlier_policy=earlier,
    )


def _work(seed: int) -> dict[str, Any]:
    _env.reset(seed=seed)
    return _env.get_state()


def fill(args: Args) -> StartPool:
    """Make the pool and write it.

    Raises:
        ValueError: unknown task, variant or stage.
        SkillResetError: the stages before the skill hardly ever succeed.
    """
    cli.at_least(1, args, "count")
    if args.earlier_policy not in EARLIER_POLICIES:
        raise ValueError(f"unknown earlier_policy {args.earlier_policy!r}; choose one of {EARLIER_POLICIES}")
    if args.task not in TASKS:
        raise ValueError(f"unknown task {args.task!r}; choose one of {sorted(TASKS)}")
    cli.at_least(0, args, "workers", "seed")
    _start_worker(args)  # complain before any process starts
    seeds = range(args.seed, args.seed + args.count)
    workers = args.workers or os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(workers, _start_worker, (args,)) as processes:
        states = list(tqdm(processes.imap(_work, seeds, chunksize=4), total=args.count, unit="snapshot"))
    manifest = {k: v for k, v in asdict(args).items() if k not in ("out", "workers")}
    pool = StartPool.of(states, manifest)
    pool.save(args.out)
    return pool


if __name__ == "__main__":
    cli.run(fill, Args)
