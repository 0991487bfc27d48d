"""Learning curves of residual PPO on every stage: stage success against control steps and wall clock.

    python benchmarks/curves.py --out runs/curves --results benchmarks/results

Starts are off by 2 cm and 6 degrees per axis (twice the evaluation's noise, which leaves the residual something to learn),
from pools made here with the shipped policies; evaluation starts come from a pool of other seeds. One process a core, each
stepping its environments in one thread. Runs that are complete are kept.
"""

from __future__ import annotations

import csv
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from reinforcegen_envs.agents.plotting import plot_curves
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.workers import usable_cores
from reinforcegen_envs.wrappers import fill_pool

NOISE = (0.02, 0.1047198)


@dataclass
class Args:
    """PPO curves of a task's stages."""

    task: str = "Threading"
    """task name"""
    variant: str = "D2"
    """reset range"""
    algorithm: str = "ppo_residual"
    """"ppo_residual" or "td3_residual\""""
    seeds: int = 3
    """runs a stage"""
    steps: int = 120_000
    """control steps a run"""
    out: Path = Path("runs/curves")
    """folder of runs and pools"""
    results: Path = Path("benchmarks/results")
    """folder of the PNG and CSV"""
    workers: int = 0
    """runs side by side; 0 means one for every core that this process may use"""


def make_pools(args: Args, stage: str) -> tuple[Path, Path]:
    """Training and held-out starts of a stage."""
    paths = args.out / f"pool-{stage}-train.npz", args.out / f"pool-{stage}-held-out.npz"
    for path, count, seed in zip(paths, (800, 200), (0, 500_000), strict=True):
        if not path.is_file():
            fill_pool.fill(
                fill_pool.Args(
                    task=args.task, variant=(args.variant,), stage=stage, count=count, pose_noise=NOISE, seed=seed,
                    initiation="student", out=path,
                )
            )  # fmt: skip
    return paths


def command(args: Args, stage: str, seed: int, pools: tuple[Path, Path]) -> list[str]:
    """The command of one run."""
    return [
        "-m", f"reinforcegen_envs.agents.{args.algorithm}",
        "--env-id", f"ReinforceGen/{args.variant}-{args.task}-Residual-v0", "--stage", stage, "--seed", str(seed),
        "--pool", str(pools[0]), "--eval-pool", str(pools[1]), "--total-steps", str(args.steps), "--num-threads", "1",
        "--eval-every", "20000", "--runs-dir", str(args.out), "--run-name", name(args, stage, seed),
    ]  # fmt: skip


def name(args: Args, stage: str, seed: int) -> str:
    """Name of one run's folder."""
    return f"{args.algorithm}-{stage}-{seed}"


def main(args: Args) -> None:
    """Make pools, train, and write curves."""
    args.out.mkdir(parents=True, exist_ok=True)
    stages = [stage.name for stage in TASKS[args.task].stages]
    jobs = []
    for stage in stages:
        pools = make_pools(args, stage)
        for seed in range(1, args.seeds + 1):
            if not (args.out / name(args, stage, seed) / "result.json").is_file():
                jobs.append(command(args, stage, seed, pools))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(job: list[str]) -> None:
        folder = args.out / job[-1]
        if (folder / "checkpoint.pt").is_file():
            job = [*job, "--resume"]
        print(shlex.join(["python", *job]), flush=True)
        with open(args.out / f"{job[job.index('--run-name') + 1]}.log", "w") as log:
            subprocess.run([sys.executable, *job], env=environment, stdout=log, stderr=log, check=True)

    with ThreadPoolExecutor(args.workers or usable_cores()) as pool:
        list(tqdm(pool.map(run, jobs), total=len(jobs), unit="run"))

    groups = {
        stage: [args.out / name(args, stage, seed) / "progress.csv" for seed in range(1, args.seeds + 1)]
        for stage in stages
    }
    label = f"{args.variant}-{args.task}"
    stem = f"{args.algorithm}-{label.lower()}"
    plot_curves(args.results / f"{stem}.png", groups, f"{args.algorithm}, {label}, starts off by 2 cm and 6 degrees")
    with atomic_path(args.results / f"{stem}.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = None
        for stage, files in groups.items():
            for seed, progress in enumerate(files, start=1):
                with open(progress, newline="") as rows:
                    for row in csv.DictReader(rows):
                        keep = (
                            "step",
                            "seconds",
                            "charts/success",
                            "eval/success",
                            "eval/success_low",
                            "eval/success_high",
                        )
                        line = {"stage": stage, "seed": seed, **{key: row[key] for key in keep}}
                        if writer is None:
                            writer = csv.DictWriter(file, list(line))
                            writer.writeheader()
                        writer.writerow(line)


if __name__ == "__main__":
    main(tyro.cli(Args))
