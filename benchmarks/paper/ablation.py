"""What does each part add, where imitation alone succeeds 45% of the time? The paper's relative gain is 89%.

    python benchmarks/paper/ablation.py --imitation "runs/{task}/imitation" --foresight "runs/{task}/foresight"
    python benchmarks/paper/ablation.py --tasks Threading --episodes 20 --search-episodes 20 --tune-steps 0

Whole tasks on D2, learned initiation and termination, 3 x 100 episodes. First the noise on initiation poses at which imitation
alone has 45% is searched task by task: metres and radians grow together, 1 cm with 3 degrees, and a bisection on seeds that are
used for nothing else looks for the factor. Every probe is a row of ablation_noise.csv. At that noise, one after the other:
- *imitation*: base policy, initiation and termination as cloned from demonstrations;
- *residual*: and the residual policies;
- *termination*: and termination trained again on what the tuned policy does, which is what is shipped;
- *foresight*: the same, tuned with a reward that looks ahead to the next stage;
- *there*: residuals that were learned at that very noise, from nothing, stage after stage, in place of those, which were learned
  at 1 cm and 3 degrees: what tuning gains where imitation has 45%.

Steps whose folder of weights is not named, or not there, are left out.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import gymnasium as gym
import numpy as np
from cells import RESULTS, Outcome, Table, checked_names, deployed, fill, save_panels, weights_of

from reinforcegen_envs import cli
from reinforcegen_envs.agents import pipeline
from reinforcegen_envs.agents.steps import Steps
from reinforcegen_envs.arguments import Count, CountOrZero, Fraction, NotNegative, Positive, PositiveFraction, checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.evaluation.play import Agent
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.statistics import EVALUATION_SEED
from reinforcegen_envs.tasks import TASKS

STEPS = ("imitation", "residual", "termination", "foresight", "there")
SEARCH_SEED = 700_000  # a range of its own
UNIT = (0.01, math.radians(3.0))  # metres and radians per axis at factor 1
PAPERS_GAIN = 0.89


@dataclass
class Args:
    """What each part adds, where imitation alone has 45%."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """task names"""
    variant: str = "D2"
    """reset range"""
    imitation: str | None = None
    """folder of weights as cloned, {task} for the task's name in lower case: what the pipeline had before it tuned. Default: the
    tuned folder with its base policy alone; its termination is then that of every step"""
    tuned: str | None = None
    """folder of tuned weights, likewise; default: the shipped ones"""
    foresight: str | None = None
    """folder of weights tuned with foresight, likewise; default: none"""
    target: Fraction = 0.45
    """success of imitation to look for"""
    largest: Positive = 8.0
    """factor to search up to: 1 is 1 cm and 3 degrees per axis"""
    probes: Count = 6
    """steps of the bisection"""
    search_episodes: Count = 100
    """episodes a probe"""
    episodes: Count = 300
    """episodes a step"""
    first_seed: CountOrZero = EVALUATION_SEED
    """episode i of a step is reset with first_seed + i"""
    tune_steps: CountOrZero = 60_000
    """control steps of learning each stage's residual at the noise that was found; 0: nothing is learned"""
    held_steps: Count = 200_000
    """the same of stages that begin with an object in the hand"""
    pool: Count = 400
    """starts of that, every stage"""
    residual_scale: PositiveFraction = 0.5
    """how much of the action range those residuals cover: from that far off, those that ship, with 0.1, reach little"""
    exploration_noise: NotNegative = 0.05
    """of learning them"""
    noise_memory: Fraction = 0.95
    """of learning them; see td3_residual"""
    mixed: Path = Path("runs/ablation")
    """where folders of weights that hold parts of two others are made, and what is learned"""
    csv: Path = RESULTS / "ablation.csv"
    """the table; the probes beside it as ablation_noise.csv, the plot as PNG"""
    workers: CountOrZero = 0
    """processes; 0 means one a core"""


@dataclass(frozen=True)
class Cell:
    """A task, what is played, and noise on initiation poses of `UNIT` times ``factor``."""

    task: str
    variant: str
    step: str
    factor: float

    @property
    def policy(self) -> str:
        """As `deployed` takes it."""
        return "base" if self.step == "imitation" else "tuned"


def make(cell: Cell, weights: str | None) -> tuple[gym.Env, Agent]:
    """Environment and policy of a cell."""
    noise = tuple(cell.factor * unit for unit in UNIT)
    return deployed(cell.task, cell.variant, cell.policy, weights, pose_noise=noise)


def folders(args: Args, task: str) -> dict[str, str | None]:
    """Step -> pattern of its weights, of the steps that there are.

    Raises:
        WeightsError: a folder that was named is not there, or of another task.
        InvalidArgument: the base policy is not the same in all.
    """
    tuned = Bundle.open(TASKS[task], weights_of(args.tuned, task))
    found: dict[str, str | None] = {"imitation": args.tuned}
    if args.imitation is not None and (cloned := weights_of(args.imitation, task)) is not None and cloned.is_dir():
        imitation = Bundle.open(TASKS[task], cloned)
        if imitation.path("base").read_bytes() != tuned.path("base").read_bytes():
            raise InvalidArgument(
                f"{imitation.folder} and {tuned.folder} hold different base policies; name a fitting one"
            )
        found["imitation"] = args.imitation
        if tuned.residual_files():
            # The tuned policy with termination as it was cloned.
            mixed = args.mixed / task.lower()
            shutil.rmtree(mixed, ignore_errors=True)
            shutil.copytree(tuned.folder, mixed)
            for suffix in (".safetensors", ".json"):
                shutil.copyfile(imitation.path("termination").with_suffix(suffix), mixed / f"termination{suffix}")
            found["residual"] = str(args.mixed / "{task}")
            found["termination"] = args.tuned
    elif tuned.residual_files():
        print(f"{task}: no weights as cloned, so termination is the tuned one's in every step")
        found["termination"] = args.tuned
    if args.foresight is not None and (folder := weights_of(args.foresight, task)) is not None and folder.is_dir():
        found["foresight"] = args.foresight
    return found


def tune_there(args: Args, task: str, factor: float) -> str:
    """Learn residuals at the noise of a factor, unless that was done; returns the pattern of weights with them.

    Raises:
        StepError: a step failed; its log says why.
    """
    out = args.mixed / "there" / f"{factor:g}" / task.lower()
    weights = out / "weights"
    folder = Bundle.open(TASKS[task], weights_of(args.tuned, task)).folder
    ignored = shutil.ignore_patterns("residual-*", "camera", "evaluation.json")
    shutil.copytree(folder, weights, ignore=ignored, dirs_exist_ok=True)  # what was learned there stays
    noise = (factor * UNIT[0], factor * UNIT[1])
    settings = pipeline.Args(
        task=task,
        variant=args.variant,
        out=out,
        noise=noise,
        td3_steps=args.tune_steps,
        held_steps=args.held_steps,
        pool=args.pool,
        residual_scale=args.residual_scale,
        exploration_noise=args.exploration_noise,
        noise_memory=args.noise_memory,
    )
    pipeline.residuals(settings, Steps(out), weights)
    return str(args.mixed / "there" / f"{factor:g}" / "{task}" / "weights")


def bisect(
    success: Callable[[float], float], target: float, largest: float, probes: int
) -> tuple[float, dict[float, float]]:
    """The factor at which a success that falls is nearest to a target.

    Args:
        success: of a factor.
        target: what it should be.
        largest: factor to search up to.
        probes: how often ``success`` is asked.

    Returns:
        the probed factor whose success is nearest, and all that were probed.
    """
    low, high = 0.0, largest
    known: dict[float, float] = {}
    for _ in range(probes):
        middle = round((low + high) / 2, 4)
        known[middle] = success(middle)
        low, high = (middle, high) if known[middle] > target else (low, middle)
    return min(known, key=lambda factor: abs(known[factor] - target)), known


def plot(table: Table[Cell], path: Path, variant: str) -> None:
    """A panel a task: a bar a step."""
    tasks = [task for task in TASKS if table.of(task)]

    def draw(axis, row: int, column: int) -> None:
        rows = {c.step: (c, o) for c, o in table.of(tasks[column]).items() if c.variant == variant}
        steps = [step for step in STEPS if step in rows]
        for i, step in enumerate(steps):
            outcome: Outcome = rows[step][1]
            bars = [[outcome.success - outcome.low], [outcome.high - outcome.success]]
            axis.bar(i, outcome.success, color=f"C{STEPS.index(step)}", width=0.7)
            axis.errorbar(i, outcome.success, bars, color="k", lw=1, capsize=2)
        axis.set_xticks(range(len(steps)), steps, rotation=30, fontsize=7)
        factor = rows[steps[0]][0].factor
        axis.set_title(f"{tasks[column]}\n{100 * factor * UNIT[0]:.1f} cm, {3 * factor:.1f} degrees", fontsize=9)

    save_panels(path, [""], [""] * len(tasks), draw, f"Where imitation has 45%, {variant}, 95% intervals")


def main(args: Args) -> None:
    """Search the noise, play what is missing, print the gains and draw all that is there.

    Raises:
        InvalidArgument: unknown tasks or variant, folders that do not fit, or a table that does not.
        WeightsError: unusable weights.
        StepError: learning failed.
    """
    args = checked(args)
    checked_names(args.tasks, variant=args.variant)
    table = Table(args.csv, Cell)
    search = Table(args.csv.with_name("ablation_noise.csv"), Cell)
    gains: dict[str, list[float]] = {}
    for task in args.tasks:
        steps = folders(args, task)

        def success(factor: float, task: str = task, weights: str | None = steps["imitation"]) -> float:
            cell = Cell(task, args.variant, "imitation", factor)
            fill(search, [cell], make, weights, args.search_episodes, SEARCH_SEED, args.workers)
            return search.rows[cell].success

        factor, known = bisect(success, args.target, args.largest, args.probes)
        print(f"{task}: imitation has {known[factor]:.2f} at {factor:g} times 1 cm and 3 degrees", flush=True)
        table.rows = {cell: row for cell, row in table.rows.items() if cell.task != task or cell.factor == factor}
        cell = Cell(task, args.variant, "imitation", factor)
        if args.tune_steps:
            steps["there"] = tune_there(args, task, factor)
        for step, weights in steps.items():
            fill(table, [replace(cell, step=step)], make, weights, args.episodes, args.first_seed, args.workers)
            if imitation := table.rows[cell].success:  # else there is nothing to gain on
                gain = table.rows[replace(cell, step=step)].success / imitation - 1
                print(f"{task}: {step} {100 * gain:+.0f}%", flush=True)
                gains.setdefault(step, []).append(gain)
        table.tidy(lambda cell: (cell.variant, STEPS.index(cell.step)))
        search.tidy(lambda cell: (cell.variant, cell.factor))
    for step in STEPS[1:]:
        if step in gains:
            mean, count = 100 * float(np.mean(gains[step])), len(gains[step])
            print(f"{step}: relative gain {mean:+.0f}%, mean over {count} tasks (paper: {100 * PAPERS_GAIN:+.0f}%)")
    plot(table, args.csv.with_suffix(".png"), args.variant)


if __name__ == "__main__":
    cli.run(main, Args)
