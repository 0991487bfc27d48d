"""Residual actions over a frozen base policy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from reinforcegen_envs.engine import Snapshot
from reinforcegen_envs.env import checked_action
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.observations import ROT6D, ObservationLayout, to_reference
from reinforcegen_envs.policies.policy import Memory, as_policy
from reinforcegen_envs.policies.residual import combine
from reinforcegen_envs.policies.skill import SkillPolicy
from reinforcegen_envs.wrappers.hybrid import Hybrid

__all__ = ["Residual", "combine"]

WORLD = np.eye(3)[:, :2].T.reshape(ROT6D)  # rot6d of the world frame in itself


class Pending:
    """The base policy's action on the present observation, which the agent's next action will be added to.

    Attributes:
        action: (7,) float64 in [-1, 1], world frame.
        frame: (6,) rot6d, in the world, of the frame that the agent's action is in.
    """

    def __init__(self) -> None:
        self.action, self.frame = np.zeros(7), np.zeros(6)

    def get_memory(self) -> Memory:
        """The action and its frame."""
        return {"action": self.action.copy(), "frame": self.frame.copy()}

    def set_memory(self, memory: Memory) -> None:
        """Go on from what `get_memory` gave; the base policy is not asked again."""
        self.action, self.frame = np.array(memory["action"]), np.array(memory["frame"])


class Residual(gym.Wrapper[Any, Any, Any, Any]):
    """The agent's action is added to a frozen base policy's; the observation ends with the base action.

    The base policy is reset at the start of every skill; what it remembers belongs to snapshots. It acts on the flat
    observation of the state in every obs_mode.

    Base action and the agent's are in the frame of the stage's reference object. With pictures for observations they are in
    the world frame, both: an agent that sees pictures does not know where the object is, nor may its base action tell.

    Args:
        env: a `Hybrid` or `Skill` environment itself; other wrappers go around this one.
        scale: size of the residual in normalised action units.
        base_policy: None for the base policy of ``weights``, a path to base weights, a `Policy`, or a callable: observation
            without base action -> action (7,) in the world frame (cut to [-1, 1]). An object is copied, so that
            environments share no memory.

    Raises:
        InvalidArgument: scale is not in (0, 1], base_policy is none of these, or another wrapper is in between.
        WeightsError: weights are missing, damaged, or made for another task.
    """

    def __init__(self, env: gym.Env[Any, Any], scale: float = 0.1, base_policy: Any = None):
        super().__init__(env)
        if not isinstance(env, Hybrid):
            raise InvalidArgument(
                f"Residual takes a Hybrid or Skill environment itself, not {env}: what is in between would see observations "
                "without base action. Put other wrappers around this one"
            )
        try:
            self.residual_scale = float(scale)
        except (TypeError, ValueError):
            self.residual_scale = 0.0
        if not 0.0 < self.residual_scale <= 1.0:
            raise InvalidArgument(f"residual_scale {scale!r} must be a number in (0, 1]")
        self._hybrid = env
        core = env.core
        task = type(env.engine.task)
        if base_policy is None:
            self._base = env.bundle.base()
        else:
            self._base = as_policy(base_policy, "base_policy", lambda path: SkillPolicy.load(path, task))
        frame = "world" if core.sees_pixels else "reference object"
        self.layout = ObservationLayout.of(task, base_action=True, base_frame=frame)
        core.layout = self.layout  # env.unwrapped.layout describes what the agent sees
        self.observation_space = core.space_of(self.layout)
        self._rotation = self.layout.slices["ref_rot6d_world"]
        self._pending = Pending()
        env.engine.keep("base_policy", self._base)
        env.engine.keep("pending", self._pending)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Reset, and ask the base policy for its action on what it sees first."""
        info = self._hybrid.begin(seed, options)
        return self._extend(), info

    def step(self, action: Any):
        """One control step with ``combine(base action, action)``.

        Args:
            action: (7,) residual in [-1, 1] (cut to it), in the reference object's frame; with pictures for observations in
                the world frame.

        Raises:
            InvalidArgument: an action of another shape, or with NaN.
        """
        pending = self._pending
        executed = combine(pending.action, checked_action(action), self.residual_scale, pending.frame)
        reward, terminated, truncated, info = self._hybrid.advance(executed)
        # At the end of an episode too: whoever bootstraps from the last observation needs its base action.
        return self._extend(), reward, terminated, truncated, info

    def _extend(self):
        """The last observation with the base policy's action on it."""
        obs = self._hybrid.observation
        frame = WORLD.copy() if self._hybrid.core.sees_pixels else obs[self._rotation].astype(np.float64)
        # In the world: that is where it is cut, and what is shown is what will be executed.
        action = self._hybrid.ask(self._base, obs, "the base policy's action")
        self._pending.action, self._pending.frame = action, frame
        return self.observe()

    def observe(self) -> Any:
        """The last observation as `step` returned it, e.g. after `set_state`; the base policy is not asked again."""
        base_action = to_reference(self._pending.action, self._pending.frame).astype(np.float32)
        return self._hybrid.core.present(self.layout, np.concatenate([self._hybrid.observation, base_action]))

    def get_state(self) -> Snapshot:
        """See `ManipulationEnv.get_state`: the base policy's memory and pending action belong to it."""
        return self._hybrid.get_state()

    def set_state(self, state: Snapshot) -> None:
        """See `ManipulationEnv.set_state`."""
        self._hybrid.set_state(state)
