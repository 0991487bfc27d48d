"""How far off may a skill start? Success against noise on initiation poses, in metres and in radians.

    python benchmarks/paper/pose_noise.py                                  # goes on where it was stopped
    python benchmarks/paper/pose_noise.py --tasks Threading --episodes 20

The paper's Figure 4 has one axis without a unit. Here metres and radians are swept apart and together: every initiation pose
is off by normal noise of the standard deviation given, per axis, in the frame of the hand. Whole tasks on D2 as deployed,
imitation alone and tuned; layouts are the same in all cells of a task. A pose that the planner cannot reach is drawn again, up
to five times.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
from cells import POLICIES, RESULTS, PlayArgs, Table, checked_names, deployed, fill, line, policies_of, save_panels

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import NotNegative, checked
from reinforcegen_envs.evaluation.play import Agent
from reinforcegen_envs.tasks import TASKS


@dataclass
class Args(PlayArgs):
    """Success against noise on initiation poses."""

    policies: tuple[str, ...] = POLICIES
    """"base" (imitation alone), "tuned" """
    metres: tuple[NotNegative, ...] = (0.0, 0.005, 0.01, 0.02, 0.03, 0.04)
    """standard deviations per axis, without rotation"""
    radians: tuple[NotNegative, ...] = (0.05, 0.1, 0.2, 0.3)
    """standard deviations per axis, without translation"""
    together: tuple[tuple[NotNegative, NotNegative], ...] = ((0.005, 0.025), (0.01, 0.05), (0.02, 0.1), (0.04, 0.2))
    """both: metres, radians"""
    csv: Path = RESULTS / "pose_noise.csv"
    """the table; the plot lies beside it as PNG"""


@dataclass(frozen=True)
class Cell:
    """A task, a policy, and noise."""

    task: str
    variant: str
    policy: str
    metres: float
    radians: float


def make(cell: Cell, weights: str | None) -> tuple[gym.Env, Agent]:
    """Environment and policy of a cell."""
    return deployed(cell.task, cell.variant, cell.policy, weights, pose_noise=(cell.metres, cell.radians))


def cells_of(args: Args) -> list[Cell]:
    """All cells, the same noise of all tasks together: what is there when it is stopped can be compared."""
    noises = [*((m, 0.0) for m in args.metres), (0.0, 0.0), *((0.0, r) for r in args.radians), *args.together]
    there = {task: policies_of(task, args.policies, args.weights) for task in args.tasks}
    return [
        Cell(task, args.variant, policy, *noise)
        for noise in dict.fromkeys(noises)
        for task in args.tasks
        for policy in there[task]
    ]


def plot(table: Table[Cell], path: Path, variant: str) -> None:
    """A column a task; metres alone, radians alone, both."""
    tasks = [task for task in TASKS if table.of(task)]

    def draw(axis, row: int, column: int) -> None:
        for i, policy in enumerate(POLICIES):
            rows = {c: o for c, o in table.of(tasks[column]).items() if (c.policy, c.variant) == (policy, variant)}
            if row == 0:
                points = {1000 * c.metres: o for c, o in rows.items() if not c.radians}
            elif row == 1:
                points = {c.radians: o for c, o in rows.items() if not c.metres}
            else:
                points = {1000 * c.metres: o for c, o in rows.items() if bool(c.metres) == bool(c.radians)}
                for cell in rows:
                    if cell.metres and cell.radians:
                        axis.annotate(f"{cell.radians:g}", (1000 * cell.metres, 0.0), ha="center", fontsize=6)
            line(axis, points, policy, marker="os"[i], color=f"C{i}")

    labels = ("mm per axis", "radians per axis", "mm per axis (radians below)")
    save_panels(path, labels, tasks, draw, f"Noise on initiation poses, {variant}, 95% intervals")


def main(args: Args) -> None:
    """Play what is missing, and draw all that is there.

    Raises:
        InvalidArgument: unknown tasks, policies or variant, negative noise, or a table that does not fit.
    """
    args = checked(args)
    checked_names(args.tasks, args.policies, args.variant)
    table = Table(args.csv, Cell)
    fill(table, cells_of(args), make, args.weights, args.episodes, args.first_seed, args.workers)
    table.tidy(lambda cell: (cell.variant, cell.policy, cell.radians, cell.metres))
    plot(table, args.csv.with_suffix(".png"), args.variant)


if __name__ == "__main__":
    cli.run(main, Args)
