"""Connect segments in an environment: plan to where a skill starts, and follow the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.planning.collision import CollisionChecker
from reinforcegen_envs.planning.motion import ConnectPlanner, Plan
from reinforcegen_envs.poses import distance, invert
from reinforcegen_envs.sim.kernel import NULL_JOINTS

MAX_SETTLE_STEPS = 10
SETTLED = 0.004  # radians every joint must be within of the path's end
OPEN, CLOSE = -1.0, 1.0
ARRIVED = (0.01, 0.1)  # metres and radians from the goal at which the skill may still start


@dataclass(frozen=True)
class Connect:
    """What a connect did.

    Args:
        plan: the plan, solved or not.
        steps: control steps spent.
        failure: "" or why the skill cannot start from here.
        interrupted: whether it was stopped on the way, see `Connector.follow`.
    """

    plan: Plan
    steps: int
    failure: str
    interrupted: bool = False


class Connector:
    """Plans and executes connects in one environment.

    Args:
        env: a plain environment.
    """

    def __init__(self, env: ManipulationEnv):
        self._env = env
        self.checker = CollisionChecker(env.sim, env.task.object_geoms, env.task.object_qpos)
        self.planner = ConnectPlanner(self.checker)

    def in_hand(self, name: str) -> np.ndarray:
        """4x4 pose of an object in the grip site's frame."""
        return invert(self._env.sim.eef_pose()) @ self._env.task.object_pose(self._env.sim, name)

    def plan(self, goal: np.ndarray, held: str | None, lookahead: tuple[np.ndarray, ...] = ()) -> Plan:
        """Plan from the present state to a grip-site pose (4x4, world), without moving."""
        sim = self._env.sim
        posture = sim.controller[NULL_JOINTS:].copy()
        return self.planner.plan(sim.joints.copy(), goal, posture, held, self._env.np_random, lookahead)

    def follow(
        self,
        plan: Plan,
        goal: np.ndarray,
        held: str | None,
        stop: Callable[[], bool] | None = None,
        every: int = 1,
    ) -> Connect:
        """Follow a plan with the hand open, or closed on what it holds.

        The environment's stage does not advance meanwhile.

        Args:
            plan: what to follow; an unsolved one is reported, not followed.
            goal: 4x4 grip-site pose, world, at the plan's end.
            held: object in the hand, or None.
            stop: asked every ``every`` control steps whether to stop and plan anew.
            every: see ``stop``.
        """
        if not plan.solved:
            return Connect(plan, 0, plan.status)
        env = self._env
        gripper = OPEN if held is None else CLOSE
        steps = 0
        for start, target in zip(plan.path[:-1], plan.path[1:], strict=True):
            env.sim.track_joints(start, target, gripper)
            steps += 1
            if stop is not None and steps % every == 0 and stop():
                env.sim.hold_orientation()
                return Connect(plan, steps, "", interrupted=True)
        end = plan.path[-1]
        for _ in range(MAX_SETTLE_STEPS):
            open_enough = held is not None or env.sim.gripper_opening() > 0.95
            if np.abs(env.sim.joints - end).max() < SETTLED and open_enough:
                break
            env.sim.track_joints(end, end, gripper)
            steps += 1
        env.sim.hold_orientation()
        failure = env.task.failure(env.sim, env.stage)
        metres, radians = distance(env.sim.eef_pose(), goal)
        if not failure and (metres > ARRIVED[0] or radians > ARRIVED[1]):
            failure = "goal not reached"
        return Connect(plan, steps, failure)
