"""Connect segments: plan to where a skill starts, as it is believed to be. The engine follows the plan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reinforcegen_envs.planning.collision import CollisionChecker
from reinforcegen_envs.planning.motion import ConnectPlanner, Plan
from reinforcegen_envs.poses import invert
from reinforcegen_envs.sim.simulation import CellState
from reinforcegen_envs.tasks.base import Task
from reinforcegen_envs.typing import Array

OPEN, CLOSE = -1.0, 1.0  # gripper actions
SETTLED = 0.004  # radians every joint must be within of the path's end
MAX_SETTLE_STEPS = 10
ARRIVED = (0.01, 0.1)  # metres and radians from the goal at which the skill may still start


@dataclass(frozen=True)
class Connect:
    """What a connect did.

    Args:
        plan: the plan, solved or not.
        steps: control steps spent.
        failure: "" or why the skill cannot start from here.
        interrupted: whether it was stopped on the way, to plan anew.
    """

    plan: Plan
    steps: int
    failure: str
    interrupted: bool = False


class Connector:
    """Plans connects in one cell.

    Args:
        cell: what is believed of the cell; read whenever a plan is made.
        task: names the objects.
    """

    def __init__(self, cell: CellState, task: Task):
        self._cell, self._task = cell, task
        self.checker = CollisionChecker(cell, task.object_geoms, task.object_qpos)
        self.planner = ConnectPlanner(self.checker)

    def in_hand(self, name: str) -> Array:
        """4x4 pose of an object in the grip site's frame."""
        return invert(self._cell.eef_pose()) @ self._task.object_pose(self._cell, name)

    def goal(self, stage: int, tool: Array) -> Array:
        """Grip-site pose, world frame, that brings a stage's tool to a pose.

        Args:
            stage: index of the stage.
            tool: 4x4 pose of the object in the hand, or of the grip site if there is none, in the reference object's frame.
        """
        declared = self._task.stages[stage]
        goal = self._task.object_pose(self._cell, declared.reference) @ tool
        return goal if declared.held is None else goal @ invert(self.in_hand(declared.held))

    def plan(self, goal: Array, held: str | None, rng: np.random.Generator, lookahead: tuple[Array, ...] = ()) -> Plan:
        """Plan from the present state to a grip-site pose.

        Args:
            goal: 4x4, world frame.
            held: object in the hand, or None.
            rng: source of randomness.
            lookahead: further poses of the skill to come, see `ConnectPlanner.plan`.
        """
        cell = self._cell
        return self.planner.plan(cell.joints.copy(), goal, cell.posture.copy(), held, rng, lookahead)
