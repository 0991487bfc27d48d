"""Residual actions over a frozen base policy."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

import gymnasium as gym
import numpy as np

from reinforcegen_envs.env import MAX_FLOAT, ManipulationEnv, checked_action
from reinforcegen_envs.observations import ObservationLayout, rotate_action
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.residual import combine
from reinforcegen_envs.policies.skill import SkillPolicy
from reinforcegen_envs.wrappers.hybrid import Hybrid


class Residual(gym.Wrapper):
    """The agent's action is added to a frozen base policy's; the observation ends with the base action.

    Args:
        env: a `Hybrid` or `Skill` environment.
        scale: size of the residual in normalised action units.
        base_policy: None for the base policy of ``weights``, a path to base weights, or a callable: observation without
            base action -> action (7,) in the world frame (cut to [-1, 1]); a callable with a ``reset`` method is told when
            episodes begin.
        weights: folder of weights; None means the shipped ones.

    Raises:
        ValueError: scale is not in (0, 1], or base_policy is neither a path nor a callable.
        WeightsError: weights are missing, damaged, or made for another task.
    """

    def __init__(
        self,
        env: Hybrid,
        scale: float = 0.1,
        base_policy: str | os.PathLike[str] | Callable[[np.ndarray], np.ndarray] | None = None,
        weights: str | None = None,
    ):
        super().__init__(env)
        if not (isinstance(scale, (int, float, np.number)) and 0.0 < scale <= 1.0):
            raise ValueError(f"residual_scale {scale!r} must be a number in (0, 1]")
        if not (base_policy is None or callable(base_policy) or isinstance(base_policy, (str, os.PathLike))):
            raise ValueError(f"base_policy {base_policy!r} must be None, a path to base weights, or a callable")
        core = cast(ManipulationEnv, env.unwrapped)
        task = type(core.task)
        if base_policy is None:
            base_policy = Bundle.open(task, weights).path("base")
        self._base = base_policy if callable(base_policy) else SkillPolicy.load(base_policy, task)
        self.residual_scale = float(scale)
        self.layout = ObservationLayout.of(task, base_action=True)
        core.layout = self.layout  # env.unwrapped.layout describes what the agent sees
        self.observation_space = gym.spaces.Box(-MAX_FLOAT, MAX_FLOAT, (self.layout.size,), np.float32)
        self._rotation = self.layout.slices["ref_rot6d_world"]
        self._base_action = np.zeros(7)
        self._frame = np.zeros(6)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Reset, and ask the base policy for its action on what it sees first."""
        obs, info = self.env.reset(seed=seed, options=options)
        if hasattr(self._base, "reset"):
            self._base.reset()  # type: ignore[union-attr]
        return self._extend(obs), info

    def step(self, action):
        """One control step with ``combine(base action, action)``.

        Args:
            action: (7,) residual in [-1, 1] (cut to it), in the reference object's frame.

        Raises:
            ValueError: an action of another shape, or with NaN.
        """
        executed = combine(self._base_action, checked_action(action), self.residual_scale, self._frame)
        obs, reward, terminated, truncated, info = self.env.step(executed)
        # At the end of an episode too: whoever bootstraps from the last observation needs its base action.
        return self._extend(obs), reward, terminated, truncated, info

    def _extend(self, obs: np.ndarray) -> np.ndarray:
        self._base_action = checked_action(self._base(obs), "the base policy's action")
        self._frame = obs[self._rotation].astype(np.float64)
        return np.concatenate([obs, rotate_action(self._base_action, self._frame, True).astype(np.float32)])

    def get_state(self) -> dict[str, Any]:
        """The wrapped environment's state; the base policy's action follows from it."""
        return self.env.get_state()  # type: ignore[attr-defined]

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state of `get_state`."""
        self.env.set_state(state)  # type: ignore[attr-defined]
        self._extend(self.unwrapped.observe())  # type: ignore[attr-defined]
