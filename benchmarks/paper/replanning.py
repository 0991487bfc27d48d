"""What is replanning worth? Success with replanning off and on, when the goal of a connect turns out to be elsewhere.

    python benchmarks/paper/replanning.py                                  # goes on where it was stopped
    python benchmarks/paper/replanning.py --tasks Threading --episodes 20
    python benchmarks/paper/replanning.py --belief --push --camera 0 0.04 0.08         # from cameras alone
    python benchmarks/paper/replanning.py --belief --push --camera 0 --past 0.01 0.1 0 0.01 0.1 2   # other thresholds

Three causes, whole tasks on D2 as deployed:
- *belief*: every object's believed position starts wrong, by a normal error per axis, and gets better as the hand comes nearer
  (`ApproachErrors`: whole from 35 cm on, none within 20 cm of the object's nearest part).
- *push*: the object that the first skill takes is slid over the table by a distance in a random direction, within half a second
  that begins anywhere in the first two thirds of the first connect, while the hand is under way. Where it is stays known.
- *camera*: the same push, or none (0), and where objects are is known from cameras alone.

Without replanning the hand goes where the goal was when the connect began, and the skill starts off by what has changed since.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from cells import POLICIES, RESULTS, PlayArgs, Table, checked_names, deployed, fill, line, policies_of, save_panels

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import CountOrZero, NotNegative, checked
from reinforcegen_envs.engine import Engine
from reinforcegen_envs.evaluation.play import Agent
from reinforcegen_envs.perception import ApproachErrors
from reinforcegen_envs.planning.motion import Plan
from reinforcegen_envs.policies.bundle import TRUTH
from reinforcegen_envs.tasks import TASKS

CAUSES = ("belief", "push", "camera")
OFF = "off"
PUSH_STEPS = 10  # control steps
PUSH_BEGINS = 2 / 3  # of the connect, at the latest


@dataclass
class Args(PlayArgs):
    """Success with replanning off and on."""

    policies: tuple[str, ...] = ("tuned",)
    """"base" (imitation alone), "tuned"; where a task has no residual weights, tuned means base"""
    belief: tuple[NotNegative, ...] = (0.0, 0.02, 0.04, 0.08)
    """standard deviations of the first believed positions, metres per axis"""
    push: tuple[NotNegative, ...] = (0.02, 0.04, 0.08)
    """distances that the object is pushed, metres"""
    camera: tuple[NotNegative, ...] = ()
    """such distances, 0 among them or not, where objects are seen by cameras (needs OpenGL; several times as slow)"""
    past: tuple[tuple[NotNegative, NotNegative, NotNegative], ...] = ((0.01, 0.1, 0.5),)
    """by how much the goal must have moved for a new plan: metres, radians, standard deviations of where it is believed to be
    (which cameras alone tell)"""
    retries: CountOrZero = 0
    """how often a skill that gets nowhere is begun again"""
    csv: Path = RESULTS / "replanning.csv"
    """the table; the plot lies beside it as PNG"""


@dataclass(frozen=True)
class Cell:
    """A task, a policy, why and by how much the goal is elsewhere, and past which thresholds there is replanning."""

    task: str
    variant: str
    policy: str
    cause: str
    metres: float
    replan: str
    retries: int = 0

    @property
    def perception(self) -> str:
        """Which weights count."""
        return "camera" if self.cause == "camera" else TRUTH

    @property
    def past(self) -> Any:
        """As the environment takes it."""
        return False if self.replan == OFF else tuple(float(part) for part in self.replan.split())


class Push(gym.Wrapper[Any, Any, Any, Any]):
    """Slides the object that the first skill takes, while the hand is on its way to it.

    It acts where listeners may only look: on the world's behalf. An object that lies on another one's path pushes it along or is
    stopped by it, as physics says.

    Args:
        env: an environment with hybrid control.
        metres: how far.
    """

    def __init__(self, env: gym.Env[Any, Any], metres: float):
        super().__init__(env)
        self._engine: Engine = env.unwrapped.engine  # type: ignore[attr-defined]
        self._metres = metres
        self._step = self._begin = 0
        self._pushed = True
        self._velocity = np.zeros(2)
        self._engine.events.subscribe("connect_begun", self._connect_begun)
        self._engine.events.subscribe("control_step", self._control_step)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Push in the connect that this begins; from where and when is drawn from the seed."""
        self._rng = np.random.default_rng(seed)
        self._pushed, self._step = False, -1
        return self.env.reset(seed=seed, options=options)

    def _connect_begun(self, plan: Plan) -> None:
        """The first plan tells how long there is; those after it belong to the same connect."""
        if self._step < 0 and not self._pushed and plan.solved:
            angle = self._rng.uniform(0.0, 2 * np.pi)
            self._velocity = self._metres / PUSH_STEPS * np.array([np.cos(angle), np.sin(angle)])
            self._begin = int(self._rng.uniform(0.0, PUSH_BEGINS) * len(plan.path))
            self._step = 0

    def _control_step(self) -> None:
        if self._step < 0 or self._pushed:
            return
        if self._begin <= self._step < self._begin + PUSH_STEPS:
            task, sim = self._engine.task, self._engine.sim
            name = task.stages[0].reference
            pose = task.root_pose7(sim, name).copy()
            pose[:2] += self._velocity
            task.write_pose7(sim, name, pose)
        self._step += 1
        self._pushed = self._step >= self._begin + PUSH_STEPS


def make(cell: Cell, weights: str | None) -> tuple[gym.Env, Agent]:
    """Environment and policy of a cell."""
    perception = ApproachErrors(metres=cell.metres) if cell.cause == "belief" else cell.perception
    env, agent = deployed(
        cell.task, cell.variant, cell.policy, weights, replan=cell.past, retries=cell.retries, perception=perception
    )
    return (env if cell.cause == "belief" else Push(env, cell.metres)), agent


def cells_of(args: Args) -> list[Cell]:
    """All cells, those of all tasks that are to be compared together."""
    there = {task: policies_of(task, args.policies, args.weights) or ["base"] for task in args.tasks}
    causes = [(cause, metres) for cause in CAUSES for metres in getattr(args, cause)]
    thresholds = [OFF, *(" ".join(f"{part:g}" for part in past) for past in args.past)]
    return [
        Cell(task, args.variant, policy, *cause, replan, args.retries)
        for cause in dict.fromkeys(causes)
        for task in args.tasks
        for policy in there[task]
        for replan in thresholds
    ]


def plot(table: Table[Cell], path: Path, variant: str) -> None:
    """A column a task; errors of belief, and pushes, of known poses and of seen ones. Where neither is, known poses are alike."""
    tasks = [task for task in TASKS if table.of(task)]
    causes = [cause for cause in CAUSES if any(cell.cause == cause for cell in table.rows)]
    settings = sorted({(cell.replan, cell.retries) for cell in table.rows}, key=lambda s: (s[1], s[0] != OFF, s[0]))

    def draw(axis, row: int, column: int) -> None:
        for i, policy in enumerate(POLICIES):
            for j, (replan, retries) in enumerate(settings):
                points = {
                    100 * c.metres: o
                    for c, o in table.of(tasks[column]).items()
                    if (c.policy, c.variant, c.replan, c.retries) == (policy, variant, replan, retries)
                    and (c.cause == causes[row] or (c.cause, causes[row], c.metres) == ("belief", "push", 0.0))
                }
                if points:
                    label = f"{policy}, replanning {replan}" + (f", {retries} retries" if retries else "")
                    style = {"marker": "osv^D*"[j % 6], "color": f"C{j}", "linestyle": ("--", "-")[i]}
                    line(axis, points, label, shift=0.06 * j, **style)

    labels = {"belief": "first error of belief, cm per axis", "push": "push, cm", "camera": "push, cm, from cameras"}
    save_panels(path, [labels[cause] for cause in causes], tasks, draw, f"Replanning, {variant}, 95% intervals")


def main(args: Args) -> None:
    """Play what is missing, and draw all that is there.

    Raises:
        InvalidArgument: unknown tasks, policies or variant, or a table that does not fit.
    """
    args = checked(args)
    checked_names(args.tasks, args.policies, args.variant)
    table = Table(args.csv, Cell)
    fill(table, cells_of(args), make, args.weights, args.episodes, args.first_seed, args.workers)
    table.tidy(
        lambda cell: (cell.variant, cell.policy, cell.cause, cell.metres, cell.retries, cell.replan != OFF, cell.replan)
    )
    plot(table, args.csv.with_suffix(".png"), args.variant)


if __name__ == "__main__":
    cli.run(main, Args)
