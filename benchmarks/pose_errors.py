"""Success of every task's base policy when objects are elsewhere than believed.

    python benchmarks/pose_errors.py
    python benchmarks/pose_errors.py --resume        # goes on after an interruption, and adds tasks or errors

As deployed on D2 (learned initiation and termination). Every object's believed pose is off by an error that is drawn once an
episode: normal, of the standard deviation given, on each axis; of the position and of the rotation apart. The simulation judges.
Layouts are the same in all cells of a task. Written: a row a cell as CSV, with failures counted by stage and reason, and a plot.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import csv
import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import gymnasium as gym
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from report import RESULTS
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, CountOrZero, checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation import Episode, play
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.perception import PoseErrors
from reinforcegen_envs.registration import VARIANTS, env_id
from reinforcegen_envs.statistics import EVALUATION_SEED, wilson_interval
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.workers import Workers

PIECE = 5  # episodes a job
OFFSET = 0.05  # between the points of two tasks with the same error, in units of the axis


@dataclass
class Args:
    """Success of base policies under errors of the believed poses."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """task names"""
    variant: str = "D2"
    """reset range"""
    millimetres: tuple[float, ...] = (1.0, 2.0, 4.0)
    """standard deviations of position, an axis, beside 0"""
    degrees: tuple[float, ...] = (1.0, 2.0, 4.0)
    """standard deviations of rotation, an axis, beside 0"""
    episodes: Count = 100
    """episodes a cell"""
    first_seed: CountOrZero = EVALUATION_SEED
    """episode i is reset with first_seed + i"""
    csv: Path = RESULTS / "pose_errors.csv"
    """the table; the plot lies beside it as PNG"""
    resume: bool = False
    """keep the table's rows, and play only cells that it lacks; without it the table begins anew"""
    workers: CountOrZero = 0
    """processes; 0 means one a core"""


@dataclass(frozen=True)
class Cell:
    """A task and an error of its objects' believed poses."""

    task: str
    variant: str
    millimetres: float
    degrees: float


@dataclass(frozen=True)
class Row(Cell):
    """A cell's result; one line of the CSV."""

    episodes: int
    first_seed: int
    successes: int
    success: float
    low: float
    """Wilson's 95% interval of success"""
    high: float
    reference_success: float
    failures: str
    """JSON: "stage: reason" -> episodes"""

    @property
    def cell(self) -> Cell:
        """What was played."""
        return Cell(self.task, self.variant, self.millimetres, self.degrees)


Job = tuple[Cell, range]  # a cell and seeds of episodes


def cells_of(args: Args) -> list[Cell]:
    """All cells, task by task: no error, errors of position, errors of rotation."""
    errors = [(0.0, 0.0), *((mm, 0.0) for mm in args.millimetres if mm), *((0.0, deg) for deg in args.degrees if deg)]
    return [Cell(task, args.variant, mm, deg) for task in args.tasks for mm, deg in dict.fromkeys(errors)]


def make(cell: Cell) -> gym.Env:
    """The environment of a cell."""
    perception = PoseErrors(
        metres=cell.millimetres / 1000.0, radians=math.radians(cell.degrees), step_metres=0.0, step_radians=0.0
    )
    return gym.make(
        env_id(cell.task, cell.variant, "Residual"),
        disable_env_checker=True,
        perception=perception,
        termination="predictor",
        initiation="student",
    )


def base_alone(obs: np.ndarray) -> np.ndarray:
    """No residual."""
    return np.zeros(7)


class Player:
    """A worker's state: the environment of the cell that its last job was of; jobs of a cell come one after the other."""

    def __init__(self) -> None:
        self._made: tuple[Cell, gym.Env] | None = None

    def play(self, job: Job) -> list[Episode]:
        """Play a job's episodes."""
        cell, seeds = job
        if self._made is None or self._made[0] != cell:
            self._made = cell, make(cell)
        return [play(self._made[1], base_alone, seed) for seed in seeds]


def play_job(player: Player, job: Job) -> tuple[Job, list[Episode]]:
    """A job, and its episodes."""
    return job, player.play(job)


def row_of(cell: Cell, episodes: list[Episode]) -> Row:
    """Summary of a cell's episodes."""
    successes = sum(episode.success for episode in episodes)
    low, high = (round(end, 4) for end in wilson_interval(successes, len(episodes)))
    reference = sum(episode.reference_success for episode in episodes)
    failures = Counter(episode.failure for episode in episodes if not episode.success)
    return Row(
        **asdict(cell),
        episodes=len(episodes),
        first_seed=min(episode.seed for episode in episodes),
        successes=successes,
        success=round(successes / len(episodes), 4),
        low=low,
        high=high,
        reference_success=round(reference / len(episodes), 4),
        failures=json.dumps(dict(failures.most_common())),
    )


def read(path: Path) -> list[Row]:
    """The rows of a table.

    Raises:
        InvalidArgument: the file is no such table.
    """
    with open(path, newline="") as file:
        lines = csv.DictReader(file)
        types = {"str": str, "int": int, "float": float}
        columns = {field.name: types[str(field.type)] for field in fields(Row)}
        if lines.fieldnames != list(columns):
            raise InvalidArgument(f"{path} has columns {lines.fieldnames}, not {list(columns)}; name another --csv")
        return [Row(**{name: columns[name](value) for name, value in line.items()}) for line in lines]


def write(path: Path, rows: list[Row]) -> None:
    """Write a table, the tasks' rows together."""
    order = list(TASKS)
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        for row in sorted(rows, key=lambda row: (order.index(row.task), row.variant, row.degrees, row.millimetres)):
            writer.writerow(asdict(row))


def plot(path: Path, rows: list[Row], title: str) -> None:
    """Draw success against the error of position (left) and of rotation (right), a line a task."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), sharey=True)
    tasks = [task for task in TASKS if any(row.task == task for row in rows)]
    for axis, error, other in ((axes[0], "millimetres", "degrees"), (axes[1], "degrees", "millimetres")):
        drawn = [row for row in rows if not getattr(row, other)]
        for i, task in enumerate(tasks):
            line = sorted((row for row in drawn if row.task == task), key=lambda row: getattr(row, error))
            at = [getattr(row, error) + OFFSET * (i - (len(tasks) - 1) / 2) for row in line]
            bars = [[row.success - row.low for row in line], [row.high - row.success for row in line]]
            style = {"marker": "os^Dv*"[i % 6], "ms": 5, "lw": 1.5, "elinewidth": 1, "capsize": 2}
            axis.errorbar(at, [row.success for row in line], bars, label=task, color=f"C{i}", **style)
        axis.set(xticks=sorted({getattr(row, error) for row in drawn}), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
    axes[0].set(xlabel="error of believed position, mm an axis", ylabel="success (95% interval)")
    axes[1].set(xlabel="error of believed rotation, degrees an axis")
    axes[0].legend(loc="lower left", fontsize="small")
    figure.suptitle(title)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)


def kept(args: Args, cells: list[Cell]) -> list[Row]:
    """Rows that a resumed run keeps.

    Raises:
        InvalidArgument: some of its cells were played with other episodes.
    """
    if not (args.resume and args.csv.is_file()):
        return []
    rows = read(args.csv)
    for row in rows:
        if row.cell in cells and (row.episodes, row.first_seed) != (args.episodes, args.first_seed):
            raise InvalidArgument(
                f"{args.csv} has {row.episodes} episodes from seed {row.first_seed} of {row.cell}, and {args.episodes} from "
                f"{args.first_seed} are wanted; give the same, name another --csv, or begin anew without --resume"
            )
    return rows


def main(args: Args) -> None:
    """Play what is missing, and write table and plot.

    Raises:
        InvalidArgument: unknown tasks or variant, negative errors, or a table that does not fit.
    """
    args = checked(args)
    if unknown := sorted(set(args.tasks) - set(TASKS)):
        raise InvalidArgument(f"unknown tasks {unknown}; choose from {sorted(TASKS)}")
    if args.variant not in VARIANTS:
        raise InvalidArgument(f"unknown variant {args.variant!r}; choose one of {VARIANTS}")
    if min(*args.millimetres, *args.degrees, 0.0) < 0.0:
        raise InvalidArgument(
            f"errors {args.millimetres} mm, {args.degrees} degrees; standard deviations are at least 0"
        )
    cells = cells_of(args)
    rows = kept(args, cells)
    done = {row.cell for row in rows}
    end = args.first_seed + args.episodes
    jobs = [
        (cell, range(first, min(first + PIECE, end)))
        for cell in cells
        if cell not in done
        for first in range(args.first_seed, end, PIECE)
    ]
    episodes: list[Episode] = []
    with (
        tqdm(total=sum(len(seeds) for _, seeds in jobs), unit="episode", disable=None) as bar,
        Workers(args.workers, Player, jobs=len(jobs)) as workers,
    ):
        for (cell, seeds), found in workers.map(play_job, jobs):
            episodes += found
            bar.update(len(found))
            bar.set_description(f"{cell.task} {cell.millimetres:g} mm {cell.degrees:g} degrees")
            if seeds.stop == end:
                rows.append(row_of(cell, episodes))
                episodes = []
                write(args.csv, rows)
    shown = [row for row in rows if row.variant == args.variant]
    print(f"{'task':20}  {'mm':>4}  {'deg':>4}  {'success':>7}  {'95% interval':14}  failures")
    for row in shown:
        failures = ", ".join(f"{name} ({count})" for name, count in json.loads(row.failures).items())
        numbers = f"{row.millimetres:4g}  {row.degrees:4g}  {row.success:7.3f}  [{row.low:.3f}, {row.high:.3f}]"
        print(f"{row.task:20}  {numbers}  {failures}")
    picture = args.csv.with_suffix(".png")
    plot(picture, shown, f"Base policies as deployed, {args.variant}, {args.episodes} episodes a cell")
    print(f"\nwritten: {args.csv} and {picture}")


if __name__ == "__main__":
    cli.run(main, Args)
