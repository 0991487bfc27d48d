"""What is imitation worth, and the residual? Residual and full reinforcement learning at equal control steps.

    python benchmarks/paper/full_rl.py                                     # goes on where it was stopped
    python benchmarks/paper/full_rl.py --tasks Threading --seeds 1 --methods residual scratch

The hardest stage of every task (the one that imitation fails most often on D2, as evaluated in benchmarks/results), starts off by
1 cm and 3 degrees per axis, the same pools of starts for all methods, sparse reward, 3 seeds:
- *residual* and *residual-ppo*: TD3 and PPO on the residual of a frozen imitation policy;
- *scratch*: PPO on the whole action, from nothing;
- *from-base*: the same, starting as the imitation policy.

Each run is a trainer's command; a row of full_rl.csv is its result, rows of full_rl_curves.csv its evaluations on the way.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
from cells import RESULTS, Table, checked_names, fingerprint, save_panels, weights_of
from training import Training, pools, run_all

from reinforcegen_envs import cli
from reinforcegen_envs.agents.plotting import read_progress
from reinforcegen_envs.arguments import Count, CountOrZero, checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.registration import env_id
from reinforcegen_envs.tasks import TASKS

METHODS = {
    "residual": ("td3_residual", "Residual", ()),
    "residual-ppo": ("ppo_residual", "Residual", ()),
    "scratch": ("ppo", "Skill", ()),
    "from-base": ("ppo", "Skill", ("--from-base",)),
}
EVALUATIONS = Path(__file__).parents[1] / "results"
NOISES = ("0.01", "0")  # of the evaluations that tell which stage is hardest, in order of preference


@dataclass
class Args:
    """Residual and full reinforcement learning at equal control steps."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """task names"""
    methods: tuple[str, ...] = tuple(METHODS)
    """"residual" (TD3), "residual-ppo", "scratch" (PPO), "from-base" (PPO) """
    variant: str = "D2"
    """reset range"""
    seeds: Count = 3
    """runs of a method"""
    steps: Count = 60_000
    """control steps of a run"""
    starts: Count = 400
    """start states to train on; half as many are held out"""
    evaluations: Count = 6
    """evaluations on the way"""
    final_episodes: Count = 200
    """episodes of the evaluation at the end"""
    weights: str | None = None
    """folder of weights, with {task} for the task's name in lower case; default: the shipped ones"""
    runs: Path = Path("runs/full_rl")
    """folder of pools and runs"""
    csv: Path = RESULTS / "full_rl.csv"
    """the table; the curves beside it as full_rl_curves.csv, the plot as PNG"""
    workers: CountOrZero = 0
    """runs side by side; 0 means one a core"""


@dataclass(frozen=True)
class Cell:
    """A run."""

    task: str
    variant: str
    stage: str
    method: str
    seed: int
    steps: int


@dataclass(frozen=True)
class Result:
    """What it came to, on held-out starts."""

    weights: str
    """tells what the imitation policy, and the policy of the stages before, were"""
    before: float
    """success of the untrained agent: of imitation, or of nothing"""
    success: float
    low: float
    """Wilson's 95% interval of success"""
    high: float
    episodes: int
    seconds: float
    """wall clock; runs beside it slow it down"""


@dataclass(frozen=True)
class Point:
    """A row of the curves: an evaluation on the way."""

    task: str
    stage: str
    method: str
    seed: int
    step: int
    success: float


def hardest(task: str, variant: str) -> str:
    """The stage that imitation fails most often, given that it is entered.

    Raises:
        InvalidArgument: that was not evaluated.
    """
    stages = [stage.name for stage in TASKS[task].stages]
    for noise in NOISES:
        path = EVALUATIONS / f"evaluate_{task.lower()}_{variant.lower()}_base-{noise}.csv"
        if path.is_file():
            with open(path, newline="") as file:
                lines = list(csv.DictReader(file))
            entered = np.sum([[int(x) for x in line["entered"]] for line in lines], axis=0)
            finished = np.sum([[int(x) for x in line["finished"]] for line in lines], axis=0)
            return stages[int(np.argmin(finished / np.maximum(entered, 1)))]
    raise InvalidArgument(f"no evaluation of imitation, {path}; benchmarks/reproduce.sh has its command")


def print_of(args: Args, task: str) -> str:
    """What tells a task's weights apart."""
    return fingerprint(task, "tuned", args.weights)


def training_of(args: Args, cell: Cell, starts: tuple[Path, Path]) -> Training:
    """The trainer's run of a cell."""
    algorithm, mode, more = METHODS[cell.method]
    folder = weights_of(args.weights, cell.task)
    arguments = [
        "--env-id", env_id(cell.task, cell.variant, mode), "--stage", cell.stage, "--seed", str(cell.seed),
        "--termination", "sustained", "--pool", str(starts[0]), "--eval-pool", str(starts[1]),
        "--total-steps", str(cell.steps), "--eval-every", str(max(1, cell.steps // args.evaluations)),
        "--final-episodes", str(args.final_episodes), "--num-threads", "1", "--quiet", *more,
    ]  # fmt: skip
    if folder is not None:
        arguments += ["--weights", str(folder)]
        if mode == "Residual":  # named, so that the residual is not put into the folder
            arguments += ["--base-policy", str(Bundle.open(TASKS[cell.task], folder).path("base"))]
    name = f"{cell.variant.lower()}-{cell.stage}-{cell.method}-{cell.steps}-{print_of(args, cell.task)}-{cell.seed}"
    return Training(algorithm, arguments, args.runs / cell.task.lower() / name)


def points_of(cell: Cell, folder: Path) -> list[Point]:
    """A run's evaluations."""
    columns = read_progress(folder / "progress.csv")
    steps, successes = columns["step"], columns["eval/success"]
    known = np.isfinite(successes)
    return [
        Point(cell.task, cell.stage, cell.method, cell.seed, int(step), round(float(success), 4))
        for step, success in zip(steps[known], successes[known], strict=True)
    ]


def write_points(path: Path, points: list[Point]) -> None:
    """Write the curves."""
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Point)])
        writer.writerows(astuple(point) for point in points)


def read_points(path: Path) -> list[Point]:
    """Read the curves; none if there is no file."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return [
            Point(row["task"], row["stage"], row["method"], int(row["seed"]), int(row["step"]), float(row["success"]))
            for row in csv.DictReader(file)
        ]


def plot(points: list[Point], path: Path, variant: str) -> None:
    """A panel a task: a thin line a run, a thick one the mean of a method's."""
    tasks = [task for task in TASKS if any(point.task == task for point in points)]

    def draw(axis, row: int, column: int) -> None:
        here = [point for point in points if point.task == tasks[column]]
        for i, method in enumerate(METHODS):
            runs: dict[int, dict[int, float]] = {}
            for point in here:
                if point.method == method:
                    runs.setdefault(point.seed, {})[point.step] = point.success
            for run in runs.values():
                axis.plot([step / 1000 for step in run], list(run.values()), color=f"C{i}", lw=0.7, alpha=0.5)
            common = sorted(set.intersection(*(set(run) for run in runs.values()))) if runs else []
            if common:
                mean = [float(np.mean([run[step] for run in runs.values()])) for step in common]
                axis.plot([step / 1000 for step in common], mean, color=f"C{i}", lw=2, marker="o", ms=3, label=method)
        axis.set_title(f"{tasks[column]}\n{here[0].stage}", fontsize=9)

    save_panels(path, ["control steps / 1000"], [""] * len(tasks), draw, f"Hardest stages, {variant}, held-out starts")


def main(args: Args) -> None:
    """Train what is missing, and draw all that is there.

    Raises:
        InvalidArgument: unknown tasks, methods or variant, or a table that does not fit.
        RunError: a trainer failed.
    """
    args = checked(args)
    checked_names(args.tasks, variant=args.variant)
    if unknown := sorted(set(args.methods) - set(METHODS)):
        raise InvalidArgument(f"unknown method {unknown[0]!r}; choose from {sorted(METHODS)}")
    table = Table(args.csv, Cell, Result)
    curves = args.csv.with_name("full_rl_curves.csv")
    stages = {task: hardest(task, args.variant) for task in args.tasks}
    for seed in range(1, args.seeds + 1):  # a seed of everything before the next one
        for task, stage in stages.items():
            cells = [Cell(task, args.variant, stage, method, seed, args.steps) for method in args.methods]
            weights = print_of(args, task)
            cells = [cell for cell in cells if cell not in table.rows or table.rows[cell].weights != weights]
            if not cells:
                continue
            folder = args.runs / task.lower()
            starts = pools(
                folder, task, args.variant, stage, args.weights, (args.starts, args.starts // 2), args.workers
            )
            trainings = {cell: training_of(args, cell, starts) for cell in cells}
            run_all(list(trainings.values()), args.workers)
            for cell, training in trainings.items():
                result = training.run()  # it is done
                before = (result["base"] or {"success": 0.0})["success"]
                low, high = (round(end, 4) for end in result["interval"])
                success, episodes, seconds = result["success"], result["episodes"], result["seconds"]
                table.add(cell, Result(weights, before, round(success, 4), low, high, episodes, seconds))
                kept = [
                    p
                    for p in read_points(curves)
                    if (p.task, p.stage, p.method, p.seed) != (task, stage, cell.method, seed)
                ]
                write_points(curves, kept + points_of(cell, training.folder))
                print(f"{task} {stage} {cell.method} seed {seed}: {before:.3f} -> {success:.3f}", flush=True)
    table.tidy(lambda cell: (cell.variant, cell.stage, list(METHODS).index(cell.method), cell.seed))
    plot(read_points(curves), args.csv.with_suffix(".png"), args.variant)


if __name__ == "__main__":
    cli.run(main, Args)
