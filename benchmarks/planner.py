"""How many connects the planner solves, and how long it takes: all connects of every task over 200 D2 resets.

    python benchmarks/planner.py

Each reset plays one source demonstration adapted to the scene, without noise, so that later connects start where the
skills before them really end: with the object in the hand, or beside what was just assembled. Goals are the adapted
starts of the skills, as in generation. As there, a connect that cannot be planned to one source's start is tried to
another's where the stage leaves the choice. A connect is unreachable if inverse kinematics puts no source
demonstration's key poses within reach, or finds no posture at its goal. A reset whose skill fails has no later connects.
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
from reinforcegen_envs.planning.connect import Connect
from reinforcegen_envs.planning.motion import SOLVED
from reinforcegen_envs.statistics import wilson_interval
from reinforcegen_envs.tasks import TASKS

UNREACHABLE = "unreachable"


@dataclass
class Args:
    """Measure the planner."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """task names"""
    variant: str = "D2"
    """reset range"""
    resets: int = 200
    """resets of every task to plan in"""
    seed: int = 0
    """reset i draws from seed and i alone"""


def record_connects(adapter: generate.Adapter) -> list[tuple[str, Connect]]:
    """Have every connect of the adapter appended, with its stage's name, to the list that is returned."""
    connects: list[tuple[str, Connect]] = []
    engine = adapter.engine
    stages = engine.task.stages
    engine.events.subscribe("connect_ended", lambda done: connects.append((stages[engine.stage].name, done)))
    return connects


def measure(task: str, args: Args) -> list[dict]:
    """One row a connect: stage, sources tried, status, milliseconds, collision checks, failure, end of the attempt."""
    adapter = generate.make_adapter(generate.Args(task=task, variant=args.variant, action_noise=0.0))
    connects = record_connects(adapter)
    adapter.attempt((args.seed, args.resets))  # compile and load everything
    rows = []
    for reset in tqdm(range(args.resets), desc=task, unit="reset", disable=None):
        connects.clear()
        outcome, _ = adapter.attempt((args.seed, reset))
        tried: dict[str, list[Connect]] = {}
        for stage, connect in connects:
            tried.setdefault(stage, []).append(connect)
        end, _, reason = outcome.partition(": ")
        common = {"task": task, "reset": reset}
        for stage, done in tried.items():
            rows.append(
                common
                | {
                    "stage": stage,
                    "tries": len(done),
                    "status": done[-1].plan.status,
                    "milliseconds": sum(connect.plan.milliseconds for connect in done),
                    "collision_checks": sum(connect.plan.collision_checks for connect in done),
                    "failure": done[-1].failure,
                    "outcome": outcome,
                }
            )
        if reason == UNREACHABLE:
            nothing = {"tries": 0, "milliseconds": 0.0, "collision_checks": 0, "failure": UNREACHABLE}
            rows.append(common | {"stage": end, "status": UNREACHABLE, "outcome": outcome} | nothing)
    return rows


def solved_figures(name: str, rows: list[dict], target: str) -> list[Figure]:
    """Shares of connects that were solved."""
    statuses = Counter(row["status"] for row in rows)
    solved = sum(statuses[status] for status in SOLVED)
    reachable = len(rows) - statuses[UNREACHABLE]
    figures = []
    for which, count in (("of reachable", reachable), ("of all", len(rows))):
        low, high = wilson_interval(solved, max(count, 1))
        detail = f"{solved}/{count}, 95% interval {low:.3f} to {high:.3f}"
        if which == "of all":
            detail += f"; {dict(statuses)}"
        value = solved / max(count, 1)
        figures.append(Figure(f"{name}: solved, {which}", value, "", target if which == "of reachable" else "", detail))
    return figures


def summarise(task: str, rows: list[dict], resets: int) -> list[Figure]:
    """The table's figures of one task, and of each of its stages."""
    figures = solved_figures(task, rows, ">= 0.99")
    for stage in TASKS[task].stages:
        if group := [row for row in rows if row["stage"] == stage.name]:
            figures += solved_figures(f"{task}, {stage.name}", group, "")[:1]
    times = np.array([row["milliseconds"] for row in rows if row["tries"]])
    median, late = float(np.median(times)), float(np.percentile(times, 95))
    figures.append(Figure(f"{task}: time, median", median, "ms", "<= 10"))
    figures.append(Figure(f"{task}: time, 95%", late, "ms", "<= 100", f"slowest {times.max():.0f} ms"))
    followed = [row for row in rows if row["status"] in SOLVED]
    failures = Counter(f"{row['stage']}: {row['failure']}" for row in followed if row["failure"])
    arrived = len(followed) - sum(failures.values())
    detail = f"{arrived}/{len(followed)}: the hand came to where the skill starts, and nothing fell"
    detail += f"; {dict(failures)}" if failures else ""
    figures.append(Figure(f"{task}: arrived, of solved", arrived / max(len(followed), 1), "", "", detail))
    ends = Counter({row["reset"]: row["outcome"] for row in rows}.values())
    figures.append(Figure(f"{task}: attempts that succeed", ends["success"] / resets, "", "", str(dict(ends))))
    return figures


def main(args: Args) -> None:
    """Measure, print the table, write it and every connect's row to ``benchmarks/results``."""
    rows, figures = [], []
    for task in args.tasks:
        found = measure(task, args)
        rows += found
        figures += summarise(task, found, args.resets)
    with atomic_path(RESULTS / "planner_connects.csv") as path, open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow(row | {"milliseconds": f"{row['milliseconds']:.2f}"})
    write_report("planner", figures)


if __name__ == "__main__":
    main(tyro.cli(Args))
