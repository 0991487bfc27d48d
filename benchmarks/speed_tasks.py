"""How fast each task steps while it is being done: a source demonstration's actions, contacts and all, on one core.

    python benchmarks/speed_tasks.py

Two figures a task. The first is ``env.step`` over 25 bare ``mj_step`` of the same scene from the same states, interleaved
step by step. Time is the thread's own, and of every repeated step the fastest run counts, so that what other processes
take away does not. The second is ``env.step`` over the published speed of
the reference (MimicGen on robosuite 1.4.1, control steps a second without rendering), scaled to this machine: robosuite 1.5.2's
own NutAssembly, stepped here between the repetitions, over what was published for that version and task.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
import time
from dataclasses import dataclass

import mujoco
import numpy as np
import tyro
from report import Figure, write_report
from speed import STATE, random_actions
from tqdm import tqdm

from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.replay import restore_first_state
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.sim.simulation import PHYSICS_STEPS
from reinforcegen_envs.tasks import TASKS

# Published control steps a second of one thread, no rendering: robosuite 1.5.2's NutAssembly, by lite_physics. What was
# published of the tasks on robosuite 1.4.1 is in `Task.reference_speed`.
PUBLISHED_NUT = {False: 106.0, True: 188.0}


@dataclass
class Args:
    """Measure the speed of every task."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """task names"""
    steps: int = 150
    """control steps of every task, spread over its demonstration"""
    repeats: int = 9
    """how often each is repeated"""
    robosuite_steps: int = 100
    """control steps of robosuite's NutAssembly, as often"""
    seed: int = 0
    """seed of robosuite's actions and reset"""


class Robosuite:
    """robosuite's NutAssembly (both nuts) without rendering; keeps each step's fastest time."""

    def __init__(self, args: Args, lite_physics: bool):
        logging.disable(logging.WARNING)  # robosuite's import and its controllers print advice
        import robosuite

        self._env = robosuite.make(
            "NutAssembly",
            robots="Panda",
            has_renderer=False,
            has_offscreen_renderer=False,
            use_camera_obs=False,
            ignore_done=True,
            lite_physics=lite_physics,
            seed=args.seed,
        )
        self._env.reset()
        logging.disable(logging.NOTSET)
        self._actions = random_actions(args.robosuite_steps, args.seed)
        self._state = self._env.sim.get_state()
        self._seconds = np.full(len(self._actions), np.inf)

    def play(self) -> None:
        """One round."""
        self._env.sim.set_state(self._state)
        self._env.sim.forward()
        for i, action in enumerate(self._actions):
            began = time.thread_time()
            self._env.step(action)
            self._seconds[i] = min(self._seconds[i], time.thread_time() - began)

    @property
    def rate(self) -> float:
        """Control steps a second."""
        return len(self._seconds) / float(self._seconds.sum())


class DoneTask:
    """A task's states along its first source demonstration, and the fastest time of each step from them (seconds)."""

    def __init__(self, name: str, steps: int):
        self.name = name
        self.env = env = ManipulationEnv(name, "D0")
        demo = read_demos(source_file(name), name)[0]
        restore_first_state(env, demo)
        chosen = set(np.linspace(0, len(demo.actions) - 1, steps).astype(int).tolist())
        self._bare = mujoco.MjData(env.model)
        self._moments = []
        self.contacts = 0
        for index, action in enumerate(demo.actions.astype(np.float32)):
            state, raw = env.get_state(), np.empty(mujoco.mj_stateSize(env.model, STATE))
            mujoco.mj_getState(env.model, env.data, raw, STATE)
            env.step(action)
            if index in chosen:
                self._moments.append((action, state, raw, env.data.ctrl.copy()))
                self.contacts += env.data.ncon
        self.contacts /= len(self._moments)
        self.seconds = np.full((3, len(self._moments)), np.inf)
        self.medians: list[float] = []  # of bare over env.step, a round

    def play(self) -> None:
        """One round: every step by ``env.step``, by the kernel alone, and by bare ``mj_step``."""
        env, model, bare = self.env, self.env.model, self._bare
        took = np.empty_like(self.seconds)
        for i, (action, state, raw, control) in enumerate(self._moments):
            env.set_state(state)
            began = time.thread_time()
            env.step(action)
            took[0, i] = time.thread_time() - began

            env.set_state(state)
            action64 = action.astype(np.float64)
            began = time.thread_time()
            env.sim.step(action64)
            took[1, i] = time.thread_time() - began

            mujoco.mj_setState(model, bare, raw, STATE)
            bare.ctrl[:] = control
            began = time.thread_time()
            mujoco.mj_step(model, bare, PHYSICS_STEPS)
            took[2, i] = time.thread_time() - began
        self.seconds = np.minimum(self.seconds, took)
        self.medians.append(float(np.median(took[2] / took[0])))

    @property
    def rates(self) -> np.ndarray:
        """(3,) control steps a second: ``env.step``, the kernel, bare."""
        return self.seconds.shape[1] / self.seconds.sum(axis=1)


def main(args: Args) -> None:
    """Measure, print the table, write it to ``benchmarks/results``."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        tasks = [DoneTask(name, args.steps) for name in args.tasks]
        nut = {lite: Robosuite(args, lite) for lite in PUBLISHED_NUT}
        for _ in tqdm(range(args.repeats), unit="round", disable=None):
            for work in (*nut.values(), *tasks):
                work.play()
    finally:
        os.sched_setaffinity(0, cores)
    figures = [
        Figure(
            f"robosuite's NutAssembly, lite_physics {lite}: here over published",
            work.rate / PUBLISHED_NUT[lite],
            detail=f"{work.rate:.0f} over {PUBLISHED_NUT[lite]:.0f} control steps/s",
        )
        for lite, work in nut.items()
    ]
    machine = figures[0].value  # robosuite 1.4.1, of which the tasks' speeds were published, has no lite_physics
    for task in tasks:
        full, kernel, bare = task.rates
        detail = (
            f"{full:.0f} over {bare:.0f} control steps/s; medians {np.median(task.medians):.3f}; "
            f"kernel alone {kernel:.0f}, {kernel / bare:.3f}; {task.contacts:.0f} contacts on average"
        )
        figures.append(Figure(f"{task.name}: env.step over 25 bare mj_step", full / bare, "", ">= 0.85", detail))
        if (speed := TASKS[task.name].reference_speed) is None:
            continue
        reference = speed * machine
        published = f"{speed:.0f} x {machine:.2f}"
        detail = f"{full:.0f} over {published} control steps/s; kernel alone {kernel / reference:.1f}"
        figures.append(Figure(f"{task.name}: env.step over the reference", full / reference, "", ">= 4", detail))
    write_report("speed_tasks", figures)


if __name__ == "__main__":
    main(tyro.cli(Args))
