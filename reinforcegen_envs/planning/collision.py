"""Collision checks of arm postures with MuJoCo's own geometry, a grasped object included."""

from __future__ import annotations

import copy
import functools

import mujoco
import numpy as np

from reinforcegen_envs.planning.ik import ArmKinematics
from reinforcegen_envs.poses import from_pose7, invert, to_pose7
from reinforcegen_envs.sim.simulation import FINGER_STROKE, INITIAL_JOINTS, CellState
from reinforcegen_envs.typing import Array, Integers

CLEARANCE = 0.004  # metres that planned motions keep from everything (ours)
OPEN_FINGERS = (FINGER_STROKE / 2, -FINGER_STROKE / 2)


@functools.lru_cache(maxsize=16)
def _inflated(model: mujoco.MjModel) -> mujoco.MjModel:
    """A copy of the scene whose geoms report contacts ``CLEARANCE`` before they touch; one a process and scene."""
    inflated = copy.deepcopy(model)
    inflated.geom_margin[:] = CLEARANCE
    return inflated


class CollisionChecker:
    """Answers whether the arm at given joints touches anything.

    Args:
        cell: what is believed of the cell; its data is only read, by `update`.
        object_geoms: object name -> geom indices.
        object_qpos: object name -> address of its free joint in qpos.
    """

    def __init__(self, cell: CellState, object_geoms: dict[str, Integers], object_qpos: dict[str, int]):
        self._cell = cell
        self.model = _inflated(cell.model)
        self.data = mujoco.MjData(self.model)
        self.kinematics = ArmKinematics(self.model, cell.ids, cell.joint_range)
        self._object_geoms, self._object_qpos = object_geoms, object_qpos
        names = [self.model.body(self.model.geom_bodyid[i]).name for i in range(self.model.ngeom)]
        self._moving = np.array([n.startswith(("robot0_link", "robot0_right", "gripper0")) for n in names])
        self._moving &= np.array([n not in ("robot0_link0", "robot0_link1") for n in names])  # turn in place
        self._gripper = np.array([n.startswith("gripper0") for n in names])
        self._relevant = np.zeros((self.model.ngeom, self.model.ngeom), bool)
        self._held: tuple[int, Array] | None = None
        self.checks = 0
        # Convex hulls of neighbouring links overlap in every posture: what touches at home is no collision.
        self.data.qpos[:] = cell.model.qpos0
        self.data.qpos[cell.arm_qpos] = INITIAL_JOINTS
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_collision(self.model, self.data)
        self._touching_at_home = self.data.contact.geom.copy()

    def update(self, held: str | None) -> None:
        """Take over the present state of the cell.

        Args:
            held: object that moves with the hand, or None.
        """
        self.data.qpos[:] = self._cell.data.qpos
        self.data.mocap_pos[:] = self._cell.data.mocap_pos
        self.data.mocap_quat[:] = self._cell.data.mocap_quat
        self.kinematics.follow(self._cell)
        moving = self._moving.copy()
        self._held = None
        if held is None:
            # The empty hand opens while it moves: it must fit where it goes with its fingers apart.
            self.data.qpos[self._cell.finger_qpos] = OPEN_FINGERS
        else:
            address = self._object_qpos[held]
            in_hand = invert(self._cell.eef_pose()) @ from_pose7(self._cell.data.qpos[address : address + 7])
            self._held = (address, in_hand)
            moving[self._object_geoms[held]] = True
        self._relevant = moving[:, None] | moving[None, :]
        robot = self._moving
        home = self._touching_at_home
        inside = robot[home[:, 0]] & robot[home[:, 1]]
        self._relevant[home[inside, 0], home[inside, 1]] = False
        self._relevant[home[inside, 1], home[inside, 0]] = False
        if held is not None:
            own = np.zeros(self.model.ngeom, bool)
            own[self._object_geoms[held]] = True
            grip = (own[:, None] & self._gripper[None, :]) | (own[None, :] & self._gripper[:, None])
            self._relevant &= ~grip

    def collides(self, joints: Array) -> bool:
        """Whether the arm at ``joints`` (7,), with what it holds, comes within the clearance of anything."""
        return self.clearance(joints) is not None

    def clearance(self, joints: Array) -> float | None:
        """Least distance, metres, of the arm at ``joints`` to anything it comes near; negative inside it.

        None where nothing is within the clearance.
        """
        self.checks += 1
        data = self.data
        data.qpos[self._cell.arm_qpos] = joints
        if self._held is not None:
            address, in_hand = self._held
            data.qpos[address : address + 7] = to_pose7(self.kinematics.forward(joints) @ in_hand)
        mujoco.mj_kinematics(self.model, data)
        mujoco.mj_collision(self.model, data)
        pairs = data.contact.geom
        near = self._relevant[pairs[:, 0], pairs[:, 1]]
        return float(data.contact.dist[near].min()) if near.any() else None

    def line_collides(self, start: Array, goal: Array, resolution: float) -> bool:
        """Whether the straight joint line collides, checked every ``resolution`` radians, middle first."""
        count = int(np.ceil(np.abs(np.asarray(goal) - start).max() / resolution)) + 1
        parts = np.linspace(0.0, 1.0, count + 1)
        # Bisection order finds an obstacle in the middle long before a sweep from one end would.
        order = sorted(range(count + 1), key=lambda i: -(i & -i) if i else 0)
        return any(self.collides(start + parts[i] * (goal - start)) for i in order)
