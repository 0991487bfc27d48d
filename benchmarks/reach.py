"""Which share of the layouts of every task and variant is out of reach of all ten source demonstrations.

    python benchmarks/reach.py

A layout counts as out of reach if, of some run of stages that must be copied from one source, no source's key poses (start,
turn and end of every skill, objects moved as that source moves them) all have an inverse-kinematics solution
from the arm's posture at reset. That is what generation and deployment skip; other grasps might still reach.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dataclasses import dataclass

import tyro
from report import Figure, write_report
from tqdm import tqdm

from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.segments import cut_all, skeleton_of
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.planning.skeleton import Skeleton
from reinforcegen_envs.statistics import wilson_interval
from reinforcegen_envs.tasks import TASKS


@dataclass
class Args:
    """Measure reach."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """task names"""
    resets: int = 400
    """layouts of every variant"""
    seed: int = 0
    """seed of the first reset"""


def measure(task: str, variant: str, skeleton: Skeleton, args: Args) -> Figure:
    """Share of one variant's layouts that is out of reach."""
    env = ManipulationEnv(task, variant)
    engine = env.engine
    kinematics = engine.connector.checker.kinematics
    runs = [i for i, stage in enumerate(env.task.stages) if i == 0 or stage.new_source]
    missed = dict.fromkeys(runs, 0)
    out = 0
    for seed in range(args.seed, args.seed + args.resets):
        env.reset(seed=seed)
        lost = [i for i in runs if skeleton.margins(engine.belief, engine.task, kinematics, i).max() <= 0]
        out += bool(lost)
        for i in lost:
            missed[i] += 1
    low, high = wilson_interval(out, args.resets)
    detail = f"{out}/{args.resets}, 95% interval {low:.3f} to {high:.3f}"
    if len(runs) > 1:
        detail += "; " + ", ".join(f"from {env.task.stages[i].name} on {n}" for i, n in missed.items())
    return Figure(f"{task} {variant}: out of reach", out / args.resets, detail=detail)


def main(args: Args) -> None:
    """Measure, print the table, write it to ``benchmarks/results``."""
    figures = []
    for task in tqdm(args.tasks, unit="task", disable=None):
        skeleton = skeleton_of(cut_all(read_demos(source_file(task), task), TASKS[task]))
        figures += [measure(task, variant, skeleton, args) for variant in sorted(TASKS[task].variants)]
    write_report("reach", figures)


if __name__ == "__main__":
    main(tyro.cli(Args))
