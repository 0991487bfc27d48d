"""How fast the cameras of observations are: pairs of pictures a second, and what they add to a control step.

    MUJOCO_GL=egl python benchmarks/rendering.py

Three figures a task, and one more. Pairs of 84x84 pictures, front and wrist, of the light form (`sim.cameras.Cameras`); how
many times faster that is than two renders of the same size of the rendered form; a control step with state and with rgb
observations. What is compared is measured in turns. Time is the process's on all its cores together, Mesa's threads
included, so a figure is one core's; of every repeated picture and step the fastest run counts, so that what other processes
take away does not.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tyro
from report import Figure, write_report
from tqdm import tqdm

from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.sim.cameras import CAMERAS, SIZE, Cameras
from reinforcegen_envs.sim.rendering import SceneRenderer
from reinforcegen_envs.tasks import TASKS

FULL_CAMERAS = ("agentview", "robot0_eye_in_hand")


@dataclass
class Args:
    """Measure the cameras."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """task names"""
    variant: str = "D1"
    """reset range"""
    states: int = 10
    """states of every task that are drawn, and control steps that are made"""
    repeats: int = 9
    """how often each is repeated"""
    seed: int = 0
    """seed of the reset and of the actions"""


def fastest(calls: Sequence[Callable[[], Any]], seconds: np.ndarray) -> None:
    """Make each call once and lower its entry of ``seconds`` to the time that it took."""
    for i, call in enumerate(calls):
        start = time.process_time()
        call()
        seconds[i] = min(seconds[i], time.process_time() - start)


def pictures(env: ManipulationEnv, args: Args) -> np.ndarray:
    """Seconds (2,) of a pair of pictures, of the light form and of the rendered form, in the mean over states."""
    cameras = Cameras(env.task.scene, SIZE)
    renderers = [SceneRenderer(env.task.scene, name, SIZE, SIZE) for name in FULL_CAMERAS]
    calls = (lambda: cameras.frames(env.data), lambda: [renderer.frame(env.data) for renderer in renderers])
    seconds = np.full((args.states, len(calls)), np.inf)
    env.reset(seed=args.seed)
    rng = np.random.default_rng(args.seed)
    for state in range(args.states):
        for _ in range(args.repeats):
            fastest(calls, seconds[state])
        env.step(rng.uniform(-1.0, 1.0, 7))
    for drawing in (cameras, *renderers):
        drawing.close()
    return seconds.mean(0)


def control_steps(task: str, args: Args) -> np.ndarray:
    """Seconds (2,) of a control step, with state and with rgb observations, in the mean over steps."""
    envs = [ManipulationEnv(task, args.variant, obs_mode=mode) for mode in ("state", "rgb")]
    seconds = np.full((args.states, len(envs)), np.inf)
    for _ in range(args.repeats):
        rng = np.random.default_rng(args.seed)
        for env in envs:
            env.reset(seed=args.seed)
        for step in range(args.states):
            action = rng.uniform(-1.0, 1.0, 7)
            fastest([lambda env=env, action=action: env.step(action) for env in envs], seconds[step])
    for env in envs:
        env.close()
    return seconds.mean(0)


def measure(task: str, args: Args) -> list[Figure]:
    """The table's figures of one task."""
    light, full = pictures(ManipulationEnv(task, args.variant), args)
    state, rgb = control_steps(task, args)
    views = f"{', '.join(CAMERAS)}, {SIZE}x{SIZE}"
    return [
        Figure(f"{task}: pairs of pictures a second", 1 / light, "1/s", ">= 250", f"{1000 * light:.2f} ms; {views}"),
        Figure(f"{task}: times as fast as the rendered form", full / light, "", "", f"that takes {1000 * full:.1f} ms"),
        Figure(f"{task}: control step, state", 1000 * state, "ms"),
        Figure(f"{task}: control step, rgb", 1000 * rgb, "ms"),
    ]


def main(args: Args) -> None:
    """Measure, print the table and write it to ``benchmarks/results``."""
    figures = [figure for task in tqdm(args.tasks, unit="task", disable=None) for figure in measure(task, args)]
    write_report("rendering", figures)


if __name__ == "__main__":
    main(tyro.cli(Args))
