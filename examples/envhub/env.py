"""ReinforceGen environments in the form that LeRobot's EnvHub loads: this file, at the root of a repository on the hub.

    from lerobot.envs.factory import make_env
    suites = make_env("USER/reinforcegen-envs", n_envs=4, trust_remote_code=True)
    envs = suites["reinforcegen-D0"][0]  # Threading

LeRobot calls `make_env` and gets ``{suite: {task id: vector environment}}``: a suite a reset range, tasks in the package's order.
Each is a task whole, every control step the policy's, with what LeRobot's policies read: pictures (needs OpenGL, MUJOCO_GL=egl or
osmesa), the robot's own state, and a sentence that says what to do.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium as gym

import reinforcegen_envs  # noqa: F401  (registers the ids)
from reinforcegen_envs.ids import VARIANTS, env_id
from reinforcegen_envs.sim.cameras import CAMERAS
from reinforcegen_envs.tasks import PACKAGE_TASKS
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

IMAGE_SIZE = 128  # pixels a side
TASKS = {task.name: task for task in PACKAGE_TASKS}


class ForLeRobot(gym.Wrapper[Any, Any, Any, Any]):
    """What LeRobot expects of an environment beside Gymnasium's own.

    Observations are ``{"pixels": {camera: picture}, "agent_pos": the robot's own state}``. Reset options are left out, since
    LeRobot marks its rollouts with one. ``info["final_info"]`` says whether an episode that has ended succeeded.

    Attributes:
        task: its name.
        task_description: what to do, in a sentence.
    """

    def __init__(self, env: gym.Env[Any, Any], task: str):
        super().__init__(env)
        self.task = task
        self.task_description = " ".join((TASKS[task].__doc__ or task).split("\n\n")[0].split())
        spaces = env.observation_space
        assert isinstance(spaces, gym.spaces.Dict)
        pixels = gym.spaces.Dict({camera: spaces[camera] for camera in CAMERAS})
        self.observation_space = gym.spaces.Dict({"pixels": pixels, "agent_pos": spaces["proprio"]})

    def _seen(self, observation: dict[str, Any]) -> dict[str, Any]:
        return {"pixels": {camera: observation[camera] for camera in CAMERAS}, "agent_pos": observation["proprio"]}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed)
        return self._seen(observation), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            info["final_info"] = {"is_success": info["is_success"]}
        return self._seen(observation), reward, terminated, truncated, info


def make_one(task: str, variant: str) -> gym.Env[Any, Any]:
    """One environment."""
    name = env_id(task, variant, None)
    env = gym.make(name, obs_mode="rgb", image_size=IMAGE_SIZE, render_mode="rgb_array", disable_env_checker=True)
    return ForLeRobot(env, task)


def make_env(n_envs: int = 1, use_async_envs: bool = False, cfg: Any = None) -> dict[str, dict[int, ThreadVectorEnv]]:
    """LeRobot's entry point.

    Args:
        n_envs: sub-environments of each.
        use_async_envs: run them side by side, in threads; results are the same.
        cfg: LeRobot's configuration; its ``task``, if it has one, is the name of a task ("Square"), a reset range ("D2") or both
            ("D2-Square"). Without one there is everything.

    Returns:
        suite -> task id -> vector environment.

    Raises:
        ValueError: ``cfg.task`` names none.
    """
    wanted = getattr(cfg, "task", None) or ""
    threads = None if use_async_envs else 1
    suites: dict[str, dict[int, ThreadVectorEnv]] = {}
    for variant in VARIANTS:
        for index, task in enumerate(TASKS):
            if wanted in ("", variant, task, f"{variant}-{task}"):
                make = partial(make_one, task, variant)
                suites.setdefault(f"reinforcegen-{variant}", {})[index] = ThreadVectorEnv([make] * n_envs, threads)
    if not suites:
        raise ValueError(f"unknown task {wanted!r}; choose one of {list(TASKS)}, {list(VARIANTS)}, or e.g. D2-Square")
    return suites
