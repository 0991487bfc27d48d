"""How many connects the planner solves, and how long it takes: both connects of Threading D2 over 500 resets.

    python benchmarks/planner.py

Each reset plays one source demonstration adapted to the scene, without noise, so the second connect starts
with the needle really in the hand. Goals are the adapted starts of the skills, as in generation. A reset is
unreachable if inverse kinematics puts no source demonstration's key poses within reach.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import csv
from collections import Counter
from dataclasses import dataclass

import numpy as np
import tyro
from report import RESULTS, Figure, write_report
from tqdm import tqdm

from reinforcegen_envs.demos import generate
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.planning.motion import SOLVED, ConnectPlanner, Plan
from reinforcegen_envs.statistics import wilson_interval
from reinforcegen_envs.tasks import TASKS

UNREACHABLE = "unreachable"


@dataclass
class Args:
    """Measure the planner."""

    task: str = "Threading"
    """task name"""
    variant: str = "D2"
    """reset range"""
    resets: int = 500
    """resets to plan in"""
    seed: int = 0
    """reset i draws from seed and i alone"""


def record_plans() -> list[Plan]:
    """Have every plan of this process appended to the list that is returned."""
    plans: list[Plan] = []
    plan = ConnectPlanner.plan

    def recorded(self: ConnectPlanner, *args, **kwargs) -> Plan:
        plans.append(plan(self, *args, **kwargs))
        return plans[-1]

    ConnectPlanner.plan = recorded
    return plans


def measure(args: Args) -> list[dict]:
    """One row a connect: reset, stage, status, milliseconds, collision checks, what became of the attempt."""
    adapter = generate.make_adapter(generate.Args(task=args.task, variant=args.variant, action_noise=0.0))
    stages = [stage.name for stage in TASKS[args.task].stages]
    plans = record_plans()
    adapter.attempt((args.seed, args.resets))  # compile and load everything
    rows = []
    for reset in tqdm(range(args.resets), unit="reset", disable=None):
        plans.clear()
        outcome, _ = adapter.attempt((args.seed, reset))
        if not plans:
            plans.append(Plan(UNREACHABLE))
        for stage, plan in zip(stages, plans, strict=False):
            rows.append({"reset": reset, "stage": stage} | plan.info() | {"outcome": outcome})
    return rows


def summarise(rows: list[dict], resets: int) -> list[Figure]:
    """The table's figures, for each connect and for both together."""
    figures = []
    stages = dict.fromkeys(row["stage"] for row in rows)
    groups = {stage: [row for row in rows if row["stage"] == stage] for stage in stages}
    for name, group in {**groups, "both": rows}.items():
        statuses = Counter(row["status"] for row in group)
        solved = sum(statuses[status] for status in SOLVED)
        reachable = len(group) - statuses[UNREACHABLE]
        target = ">= 0.99" if name == "both" else ""
        low, high = wilson_interval(solved, len(group))
        detail = f"{solved}/{len(group)}, 95% interval {low:.3f} to {high:.3f}; {dict(statuses)}"
        figures.append(Figure(f"{name}: solved, of all", solved / len(group), "", target, detail))
        figures.append(Figure(f"{name}: solved, of reachable", solved / max(reachable, 1), "", target))
        times = np.array([row["milliseconds"] for row in group if row["status"] != UNREACHABLE])
        median, late = float(np.median(times)), float(np.percentile(times, 95))
        both = name == "both"
        figures.append(Figure(f"{name}: time, median", median, "ms", "<= 10" if both else ""))
        detail = f"slowest {times.max():.0f} ms"
        figures.append(Figure(f"{name}: time, 95%", late, "ms", "<= 100" if both else "", detail))
    followed = [row for row in rows if row["status"] in SOLVED]
    arrived = sum(not row["outcome"].startswith(f"{row['stage']}: connect") for row in followed)
    detail = f"{arrived}/{len(followed)}: the hand came to where the skill starts, and nothing fell"
    figures.append(Figure("both: arrived, of solved", arrived / max(len(followed), 1), "", "", detail))
    success = sum(row["outcome"] == "success" for row in groups[next(iter(groups))]) / resets
    figures.append(Figure("attempts that succeed, without noise", success, detail=f"{resets} resets"))
    return figures


def main(args: Args) -> None:
    """Measure, print the table, write it and every connect's row to ``benchmarks/results``."""
    rows = measure(args)
    with atomic_path(RESULTS / "planner_connects.csv") as path, open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {"milliseconds": f"{row['milliseconds']:.2f}"})
    write_report("planner", summarise(rows, args.resets))


if __name__ == "__main__":
    main(tyro.cli(Args))
