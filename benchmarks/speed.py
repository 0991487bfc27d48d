"""How fast stepping, resetting and making environments is, next to robosuite and to bare MuJoCo, in one run.

    python benchmarks/speed.py

Everything compared is interleaved and repeated, and of every repeated piece of work the fastest run counts:
what other processes take away is noise that only adds time. Figures of one core are measured pinned to one
core. Needs robosuite's own environment, which the package itself imports only to build a scene.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import gymnasium as gym
import mujoco
import numpy as np
import tyro
from report import Figure, write_report

import reinforcegen_envs  # noqa: F401 (registers the ids)
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.sim import kernel
from reinforcegen_envs.sim.simulation import PHYSICS_STEPS, Simulation
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

FORBIDDEN = ("robosuite", "pybullet", "pybullet_planning", "matplotlib", "torch", "OpenGL")
ENV_ID = "ReinforceGen/D2-Threading-v0"
STATE = int(mujoco.mjtState.mjSTATE_INTEGRATION)


@dataclass
class Args:
    """Measure speed."""

    steps: int = 200
    """control steps of every comparison"""
    repeats: int = 9
    """how often each is repeated"""
    resets: int = 300
    """resets to take the median of"""
    seed: int = 0
    """seed of actions and resets"""


def nut_assembly(seed: int):
    """robosuite's NutAssemblySquare without rendering, just reset."""
    logging.disable(logging.WARNING)  # robosuite's import and its controllers print advice
    import robosuite

    env = robosuite.make(
        "NutAssemblySquare",
        robots="Panda",
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        ignore_done=True,
        seed=seed,
    )
    env.reset()
    env.robots[0].composite_controller.part_controllers["right"].update(force=True)
    logging.disable(logging.NOTSET)
    return env


def random_actions(steps: int, seed: int) -> np.ndarray:
    """(steps, 7) actions: random, held for four steps so that the arm moves, half size to spare the table."""
    rng = np.random.default_rng(seed)
    actions = 0.5 * np.repeat(rng.uniform(-1.0, 1.0, (-(-steps // 4), 7)), 4, axis=0)[:steps]
    actions[:, 2] += 0.1
    return actions


def against_robosuite(args: Args) -> list[Figure]:
    """Our control step and robosuite's ``step`` along the same trajectory from the same state."""
    env = nut_assembly(args.seed)
    model, theirs = env.sim.model._model, env.sim.data._data
    robot = env.robots[0]
    sim = Simulation(model)
    first = mujoco.MjData(model)
    mujoco.mj_copyData(first, model, theirs)
    posture = robot.composite_controller.part_controllers["right"].initial_joint
    actions = random_actions(args.steps, args.seed)
    seconds: dict[str, list[float]] = {"ours": [], "robosuite": []}
    for _ in range(args.repeats):
        mujoco.mj_copyData(theirs, model, first)
        robot.gripper["right"].current_action = np.zeros(1)
        began = time.perf_counter()
        for action in actions:
            env.step(action)
        seconds["robosuite"].append(time.perf_counter() - began)

        mujoco.mj_copyData(sim.data, model, first)
        sim.controller[:] = 0.0
        sim.controller[kernel.NULL_JOINTS :] = posture
        sim.refresh()
        began = time.perf_counter()
        for action in actions:
            sim.step(action)
        seconds["ours"].append(time.perf_counter() - began)
    rate = {name: args.steps / min(times) for name, times in seconds.items()}
    detail = f"{rate['ours']:.0f} over {rate['robosuite']:.0f} control steps/s, no cameras"
    ratio = Figure("control step over robosuite's step", rate["ours"] / rate["robosuite"], "", ">= 3.3", detail)
    return [ratio, over_bare(args, "control step over 25 bare mj_step", sim, sim.step, actions, ">= 0.93")]


def over_bare(
    args: Args, name: str, sim: Simulation, step: Callable, actions: np.ndarray, target: str, env=None
) -> Figure:
    """A step over as many bare ``mj_step``, from the same states with the same controls.

    Both start every control step anew from the recorded state, so that they never drift apart.
    """
    model, bare = sim.model, mujoco.MjData(sim.model)
    get, put = (env.get_state, env.set_state) if env is not None else (sim.get_state, sim.set_state)
    states, raw, controls = [], [], []
    for action in actions:
        states.append(get())
        physics = np.empty(mujoco.mj_stateSize(model, STATE))
        mujoco.mj_getState(model, sim.data, physics, STATE)
        raw.append(physics)
        step(action)
        controls.append(sim.data.ctrl.copy())
    ours, theirs = np.empty((2, args.repeats, len(actions)))
    for repeat in range(args.repeats):
        for i, action in enumerate(actions):
            put(states[i])
            began = time.perf_counter()
            step(action)
            ours[repeat, i] = time.perf_counter() - began

            mujoco.mj_setState(model, bare, raw[i], STATE)
            bare.ctrl[:] = controls[i]
            began = time.perf_counter()
            mujoco.mj_step(model, bare, PHYSICS_STEPS)
            theirs[repeat, i] = time.perf_counter() - began
    best, bare_best = ours.min(axis=0).sum(), theirs.min(axis=0).sum()
    median = np.median(theirs) / np.median(ours)
    detail = f"{len(actions) / best:.0f} over {len(actions) / bare_best:.0f} control steps/s; medians {median:.3f}"
    return Figure(name, bare_best / best, "", target, detail)


def threading_env(seed: int) -> ManipulationEnv:
    """The plain Threading D2 environment without Gymnasium's wrappers, just reset."""
    env = gym.make(ENV_ID).unwrapped
    assert isinstance(env, ManipulationEnv)
    env.reset(seed=seed)
    return env


def full_step(args: Args) -> list[Figure]:
    """``env.step`` with observation, predicates and info; ``env.reset``."""
    env = threading_env(args.seed)
    actions = random_actions(args.steps, args.seed).astype(np.float32)
    figure = over_bare(args, "env.step over 25 bare mj_step", env.sim, env.step, actions, ">= 0.85", env)
    wrapped = gym.make(ENV_ID)
    wrapped.reset(seed=args.seed)
    core = cast(ManipulationEnv, wrapped.unwrapped)
    name = "the same with the wrappers of gym.make"
    in_wrappers = over_bare(args, name, core.sim, wrapped.step, actions, "", core)
    milliseconds = []
    for seed in range(args.resets):
        began = time.perf_counter()
        env.reset(seed=seed)
        milliseconds.append(1e3 * (time.perf_counter() - began))
    detail = f"95%: {np.percentile(milliseconds, 95):.2f} ms"
    return [
        figure,
        in_wrappers,
        Figure("reset, median", float(np.median(milliseconds)), "ms", "<= 2", detail),
    ]


def two_threads(args: Args) -> list[Figure]:
    """Twice the work in two threads, over once the work in one."""
    envs = [threading_env(args.seed + i) for i in range(2)]
    states = [env.get_state() for env in envs]
    actions = random_actions(args.steps, args.seed)

    def steps(step: Callable) -> None:
        for action in actions:
            step(action)

    figures = []
    for name, play in (
        ("Simulation.step, two threads over one", [env.sim.step for env in envs]),
        ("env.step, two threads over one", [env.step for env in envs]),
    ):
        alone, together = [], []
        for _ in range(args.repeats):
            for i in range(2):
                envs[i].set_state(states[i])
                alone.append(_seconds([lambda i=i, play=play: steps(play[i])]))
            for i in range(2):
                envs[i].set_state(states[i])
            together.append(_seconds([lambda i=i, play=play: steps(play[i]) for i in range(2)]))
        one, two = args.steps / min(alone), 2 * args.steps / min(together)
        figures.append(Figure(name, two / one, "", ">= 1.8", f"{two:.0f} over {one:.0f} control steps/s"))
    return [*figures, vector_env(args)]


def _seconds(work: list[Callable[[], None]]) -> float:
    """Wall clock of running all ``work`` side by side, a thread each."""
    threads = [threading.Thread(target=piece) for piece in work]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def vector_env(args: Args) -> Figure:
    """`ThreadVectorEnv` of 8 environments with two threads over the same with one."""
    rates = {}
    vectors = {n: ThreadVectorEnv([lambda: gym.make(ENV_ID)] * 8, n) for n in (1, 2)}
    actions = random_actions(max(args.steps // 8, 4), args.seed).astype(np.float32)
    for threads, vector in vectors.items():
        times = []
        for _ in range(args.repeats):
            vector.reset(seed=args.seed)
            began = time.perf_counter()
            for action in actions:
                vector.step(np.broadcast_to(action, (8, 7)))
            times.append(time.perf_counter() - began)
        rates[threads] = 8 * len(actions) / min(times)
        vector.close()
    detail = f"{rates[2]:.0f} over {rates[1]:.0f} control steps/s"
    return Figure("ThreadVectorEnv of 8, two threads over one", rates[2] / rates[1], "", "", detail)


MAKE = """
import numba, sys, time
began = time.perf_counter()
import gymnasium, reinforcegen_envs
env = gymnasium.make("ReinforceGen/D2-Threading-v0")
made = time.perf_counter()
loaded = [name for name in {forbidden!r} if name in sys.modules]
env.reset(seed=0)
env.step(env.action_space.sample())
print(made - began, time.perf_counter() - began, *loaded)
"""


def make_time(args: Args) -> Figure:
    """Making an environment in a new process with warm caches, after numba was imported.

    Raises:
        RuntimeError: something that state environments do not need was imported.
    """
    code = MAKE.format(forbidden=FORBIDDEN)
    # With MUJOCO_GL set (robosuite's import sets it) mujoco itself loads OpenGL when it is imported.
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    made, stepped = [], []
    for _ in range(max(args.repeats // 2, 2) + 1):
        run = subprocess.run(
            [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
        first, second, *loaded = run.stdout.split()
        if loaded:
            raise RuntimeError(f"making a state environment imported {loaded}; it must not")
        made.append(float(first))
        stepped.append(float(second))
    return Figure(
        "make, warm cache, after numba's import",
        min(made),
        "s",
        "<= 0.5",
        f"first reset and step done after {min(stepped):.2f} s; none of {', '.join(FORBIDDEN)} imported",
    )


def main(args: Args) -> None:
    """Measure everything, print the table, write it to ``benchmarks/results``."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        figures = against_robosuite(args) + full_step(args) + [make_time(args)]
    finally:
        os.sched_setaffinity(0, cores)
    figures += two_threads(args)
    write_report("speed", figures)


if __name__ == "__main__":
    main(tyro.cli(Args))
