"""Whole tasks without a planner: how often does the arm lock up, by how it gets from skill to skill?

    python benchmarks/lock_ups.py                                               # the teacher, all tasks
    python benchmarks/lock_ups.py --student runs/coffee/actor.safetensors --tasks Coffee

Actions move the hand in space (OSC_POSE); nobody looks at joints. The teacher of whole tasks (`agents/guide.py`) is steered along
straight lines, or along lines in joint space that are followed with the same actions; a student that was distilled from it
(`agents/dagger.py`) has pictures and its own joints' positions. An episode locks up when a joint has come to its limit (1 degree)
and the hand stands still (2 mm in 30 control steps) before the task is done. A row of results/lock_ups.csv each.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import csv
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from reinforcegen_envs.agents.guide import LINES, Guide, Unaided
from reinforcegen_envs.agents.pixel_policy import PixelPolicy
from reinforcegen_envs.agents.student import Notes, StudentPolicy
from reinforcegen_envs.arguments import Count, checked
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.registration import make_env
from reinforcegen_envs.statistics import EVALUATION_SEED, wilson_interval
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.wrappers.counters import STALLED, Counters

TABLE = Path(__file__).parent / "results" / "lock_ups.csv"
AT_LIMIT = np.deg2rad(1.0)


@dataclass
class Args:
    """Count lock-ups."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """task names"""
    episodes: Count = 100
    """episodes a row"""
    student: Path | None = None
    """actor.safetensors of a whole task's student: it is played instead of the teacher"""
    through_estimator: bool = False
    """the student is one of those that see through the task's estimator"""
    name: str | None = None
    """what the row calls it; default: the driver's name"""


def play(env: Any, act: Callable[[Any], np.ndarray], begin: Callable[[], None], seed: int) -> tuple[bool, bool, str]:
    """One episode; returns success, whether it locked up, and how it failed."""
    core = env.unwrapped
    engine, counters = core.engine, Counters()
    low, high = engine.sim.joint_range.T
    observation, info = env.reset(seed=seed)
    begin()
    locked, failure = False, None
    for _ in range(engine.task.horizon):
        observation, _, terminated, _, info = env.step(act(observation))
        joints = engine.sim.joints
        counters.watch(engine.sim.eef_pose()[:3, 3], joints, 1.0)
        at_limit = bool((np.minimum(joints - low, high - joints) < AT_LIMIT).any())
        locked |= at_limit and counters.still >= STALLED and not terminated
        failure = engine.judge.failure()
        if terminated or failure is not None:
            break
    if info["success"]:
        return True, locked, ""
    return False, locked, f"{info['stage_name']}: time" if failure is None else str(failure)


def drivers(task: str, args: Args) -> dict[str, tuple[Any, Callable[[Any], np.ndarray], Callable[[], None]]]:
    """Name -> environment, what acts in it, and what to call when an episode begins."""
    if args.student is not None and args.through_estimator:
        student = StudentPolicy.load(args.student, kind="student", task=task)
        env = Notes(Unaided(make_env(task, "D2", obs_mode="rgb")))
        return {"student through the estimator": (env, student, lambda: None)}
    if args.student is not None:
        student = PixelPolicy.load(args.student, kind="pixel_student", task=task)
        env = Unaided(make_env(task, "D2", obs_mode="rgb", image_size=student.settings["image_size"]))
        return {"student": (env, student, lambda: None)}
    found = {}
    for lines in LINES:
        env = make_env(task, "D2")
        core: Any = env.unwrapped
        guide = Guide(core.engine, Bundle.open(TASKS[task]), lines)
        found[f"teacher, {lines} lines"] = (env, lambda _, guide=guide: guide().astype(np.float32), guide.begin)
    return found


def main(args: Args) -> None:
    """Play what is asked for, and put its rows in the table in the place of older ones.

    Raises:
        InvalidArgument: arguments that are not allowed.
        WeightsError: unusable weights.
    """
    args = checked(args)
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    if TABLE.exists():
        with open(TABLE, newline="") as file:
            rows = {(row["task"], row["driver"]): row for row in csv.DictReader(file)}
    for task in args.tasks:
        for driver, (env, act, begin) in drivers(task, args).items():
            name = args.name or driver
            seeds = range(EVALUATION_SEED, EVALUATION_SEED + args.episodes)
            ended = [play(env, act, begin, seed) for seed in tqdm(seeds, f"{task}: {name}")]
            successes = sum(success for success, *_ in ended)
            low, high = wilson_interval(successes, len(ended))
            failures = Counter(how for success, _, how in ended if not success)
            rows[task, name] = {
                "task": task,
                "driver": name,
                "episodes": len(ended),
                "success": round(successes / len(ended), 4),
                "low": round(low, 4),
                "high": round(high, 4),
                "lock_ups": sum(locked for _, locked, _ in ended),
                "failures": "; ".join(f"{how} ({count})" for how, count in failures.most_common()),
            }
            with atomic_path(TABLE) as temporary, open(temporary, "w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[task, name]), lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows.values())
            print(rows[task, name], flush=True)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
