"""Actions in the frame that observations are in."""

from __future__ import annotations

from typing import Any, cast

import gymnasium as gym
import numpy as np

from reinforcegen_envs.env import checked_action
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.observations import to_world
from reinforcegen_envs.wrappers.hybrid import Hybrid
from reinforcegen_envs.wrappers.residual import Residual


class ReferenceActions(gym.Wrapper[Any, Any, Any, Any]):
    """Takes actions in the frame of the stage's reference object, in which observations, base policy and residual are.

    Args:
        env: a `Hybrid` or `Skill` environment, whose own actions are in the world frame; other wrappers may be in between.

    Raises:
        InvalidArgument: any other environment.
    """

    def __init__(self, env: gym.Env[Any, Any]):
        super().__init__(env)
        inner: Any = env
        while isinstance(inner, gym.Wrapper) and not isinstance(inner, (Hybrid, Residual)):
            inner = cast(Any, inner).env
        if not isinstance(inner, Hybrid):
            raise InvalidArgument(f"ReferenceActions takes a Hybrid or Skill environment, not {env}")
        self._hybrid = inner
        self._rotation = inner.engine.layout.slices["ref_rot6d_world"]

    def step(self, action: Any):
        """One control step.

        Args:
            action: (7,) in [-1, 1] (cut to it): OSC_POSE delta in the reference object's frame, gripper (+1 closes).

        Raises:
            InvalidArgument: an action of another shape, or with NaN.
        """
        frame = self._hybrid.observation[self._rotation].astype(np.float64)
        return self.env.step(to_world(checked_action(action), frame))
