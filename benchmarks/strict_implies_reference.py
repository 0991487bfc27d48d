"""Whether strict success ever holds where MimicGen's check does not, over the states that each task visits.

    python benchmarks/strict_implies_reference.py

States come from three places: the source demonstrations replayed; noisy generation attempts on all variants; and states
near the goal, where a check would be fooled: moments of the last stage of a demonstration with objects shifted, tilted,
turned over and set moving, lids and fingers opened, and what physics makes of that in the next control steps. In every one
the strict predicates are compared with the reference check as they stand; strict success asks for more, namely that they hold
for some steps.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import tyro
from report import Figure, write_report
from tqdm import tqdm

from reinforcegen_envs.demos import generate
from reinforcegen_envs.demos.hdf5 import Demo, read_demos
from reinforcegen_envs.demos.replay import restore_first_state
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.engine import Engine, Snapshot
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.poses import from_pose7, rotation, to_pose7, translation
from reinforcegen_envs.tasks import TASKS

FOLLOWING = 2  # control steps after each state near the goal
LAST_STEPS = 25  # of a demonstration, from which states near the goal are made
# Powers of ten between which a perturbation's size is drawn: metres, radians, metres (radians) a second.
METRES, RADIANS, SPEED = (-4.0, -1.6), (-3.0, 0.2), (-3.0, 0.0)
PI = np.pi


@dataclass
class Args:
    """Compare strict with reference success."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """task names"""
    generated: int = 3000
    """states of noisy generation attempts, a task"""
    near_goal: int = 6000
    """states near the goal, a task"""
    least: int = 10_000
    """states in all, a task; more states near the goal make up for short demonstrations"""
    seed: int = 0
    """seed of all of it"""


@dataclass
class Tally:
    """Counts of states."""

    states: int = 0
    strict: int = 0
    reference: int = 0
    places: list[str] = field(default_factory=list)
    """of the violations: strict, and not reference"""

    def count(self, engine: Engine, place: str) -> None:
        """Judge the engine's present state."""
        predicates = engine.task.predicates(engine.sim)  # afresh: on the way of a connect nothing is judged
        strict, reference = all(predicates.values()), engine.task.reference_success(engine.sim)
        self.states += 1
        self.strict += strict
        self.reference += reference
        if strict and not reference:
            self.places.append(place)


def replayed(env: ManipulationEnv, demos: list[Demo], tally: Tally) -> list[Snapshot]:
    """Count the states of demonstrations; returns snapshots of the last steps of each."""
    snapshots = []
    for demo in demos:
        restore_first_state(env, demo)
        begin = len(demo.actions) - LAST_STEPS
        for step, action in enumerate(demo.actions):
            env.step(action.astype(np.float32))
            tally.count(env.engine, f"{demo.name}, step {step}")
            if step >= begin and env.engine.stage == len(env.task.stages) - 1:
                snapshots.append(env.get_state())
    return snapshots


def generated(task: str, tally: Tally, states: int, seed: int) -> None:
    """Count the states of noisy generation attempts, the variants in turn."""
    variants = TASKS[task].variants
    for index, variant in enumerate(variants):
        adapter = generate.make_adapter(generate.Args(task=task, variant=variant, start_noise=(0.005, 0.0262)))
        engine = adapter.engine

        def counted(engine: Engine = engine, variant: str = variant) -> None:
            tally.count(engine, f"generated on {variant}, {engine.stage}")

        engine.events.subscribe("control_step", counted)
        attempt = 0
        while tally.states < (index + 1) * states // len(variants):
            adapter.attempt((seed, attempt))
            attempt += 1


def near_goal(env: ManipulationEnv, snapshots: list[Snapshot], rng: np.random.Generator) -> Iterator[None]:
    """Put the environment into one state near the goal after the other, for ever."""
    sim, task = env.sim, env.task
    free = list(task.object_qpos)
    while True:
        env.set_state(snapshots[rng.integers(len(snapshots))])
        chosen = [name for name in free if rng.random() < 0.6] or [free[rng.integers(len(free))]]
        for name in chosen:
            metres, radians, speed = (10.0 ** rng.uniform(*powers) for powers in (METRES, RADIANS, SPEED))
            address, dof = task.object_qpos[name], task.object_dof[name]
            turn = rotation(rng.normal(0.0, radians, 3))
            if rng.random() < 0.2:  # over, or by quarters about its own axis
                axis = np.eye(3)[rng.integers(3)]
                turn = rotation(axis * rng.choice([PI, PI / 2, -PI / 2, PI / 4])) @ turn
            moved = translation(*rng.normal(0.0, metres, 3)) @ from_pose7(sim.data.qpos[address : address + 7]) @ turn
            sim.data.qpos[address : address + 7] = to_pose7(moved)
            sim.data.qvel[dof : dof + 6] = rng.normal(0.0, speed, 6)
        for address, joint in zip(task.joint_qpos, task.joints, strict=True):
            if rng.random() < 0.5:
                low, high = sim.model.joint(joint).range
                sim.data.qpos[address] += (10.0 ** rng.uniform(-3, 0)) * rng.normal() * (high - low)
                sim.data.qpos[address] = np.clip(sim.data.qpos[address], low, high)
        if rng.random() < 0.2:
            sim.data.qpos[sim.finger_qpos] = rng.uniform(0.0, 0.04) * np.array([1.0, -1.0])
        sim.refresh()
        env.engine.judge.step()
        yield
        for _ in range(FOLLOWING):
            env.engine.act(rng.normal(0.0, 0.2, 7).clip(-1.0, 1.0))
            yield


def measure(task: str, args: Args) -> dict[str, Tally]:
    """Counts of one task, by where the states come from."""
    env = ManipulationEnv(task, "D0")
    tallies = {place: Tally() for place in ("demonstrations", "generated", "near the goal")}
    demos = read_demos(source_file(task), task)
    snapshots = replayed(env, demos, tallies["demonstrations"])
    generated(task, tallies["generated"], args.generated, args.seed)
    others = sum(tally.states for tally in tallies.values())
    states = near_goal(env, snapshots, np.random.default_rng(args.seed))
    for index in range(max(args.near_goal, args.least - others)):
        next(states)
        tallies["near the goal"].count(env.engine, f"near the goal, {index}")
    return tallies


def main(args: Args) -> None:
    """Measure, print the table, write it to ``benchmarks/results``."""
    figures = []
    for task in tqdm(args.tasks, unit="task", disable=None):
        tallies = measure(task, args)
        for place, tally in tallies.items():
            detail = (
                f"{tally.states} states: strict {tally.strict}, reference {tally.reference}, "
                f"reference alone {tally.reference - tally.strict + len(tally.places)}"
            )
            if tally.places:
                detail += f"; {tally.places[:5]}"
            figures.append(Figure(f"{task}, {place}: strict, not reference", len(tally.places), "", "<= 0", detail))
        states = sum(tally.states for tally in tallies.values())
        figures.append(Figure(f"{task}: states", states, "", f">= {args.least}"))
    write_report("strict_implies_reference", figures)


if __name__ == "__main__":
    main(tyro.cli(Args))
