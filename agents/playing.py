"""Whole tasks as they are deployed, for what is learned from playing them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from reinforcegen_envs.perception import Perception
from reinforcegen_envs.policies.bundle import TRUTH, Bundle
from reinforcegen_envs.policies.policy import Policy, act_one
from reinforcegen_envs.registration import make_env
from reinforcegen_envs.tasks import TASKS


def deployed(
    task: str, variant: str, weights: Path, pose_noise: tuple[float, float], perception: str | Perception = TRUTH
) -> tuple[gym.Env, Policy]:
    """A whole task's environment with learned initiation and termination, and the residual policy of a folder of weights.

    Args:
        task, variant: names.
        weights: the folder; where it has no residuals the policy is that of the base.
        pose_noise: on initiation poses, metres and radians.
        perception: "truth", "camera", "camera_errors", or one that is made already.

    Raises:
        InvalidArgument: unknown task or variant.
        WeightsError: unusable weights.
    """
    name = perception.name if isinstance(perception, Perception) else perception
    policy, scale = Bundle.open(TASKS[task], weights, name).residual_or_zero()
    env = make_env(
        task, variant, "Residual", perception=perception, termination="predictor", initiation="student", pose_noise=pose_noise,
        weights=weights, **scale,
    )  # fmt: skip
    return env, policy


def play(env: gym.Env, act: Callable[[np.ndarray], np.ndarray], seed: int) -> bool:
    """Play one episode to its end; returns its success."""
    obs, info = env.reset(seed=seed)
    done = bool(info["failure"])  # the first connect failed
    while not done:
        obs, _, terminated, truncated, info = env.step(act(obs))
        done = terminated or truncated
    return bool(info["success"])


def engine_of(env: gym.Env) -> Any:
    """The engine beneath an environment."""
    return env.unwrapped.engine  # type: ignore[attr-defined]


class Disturbed:
    """A policy whose actions are off by something that stays for about ten control steps."""

    def __init__(self, policy: Any, size: float, rng: np.random.Generator):
        self._policy, self._size, self._rng = policy, size, rng
        self._offset = np.zeros(7)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        action = act_one(self._policy, obs)
        if not self._size:
            return action
        if self._rng.random() < 0.1:
            self._offset[:6] = self._rng.normal(size=6) * 0.5 * self._size
        return np.clip(action + self._offset, -1.0, 1.0)
