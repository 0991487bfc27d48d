"""Names for the arrays and indices that compiled code works on.

Compiled functions take both as plain tuples and name them inside, ``Views(*arrays)``, which costs nothing there: between
physics, where caches are cold, handing over a named tuple takes twice as long as a plain one.
"""

from __future__ import annotations

from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from reinforcegen_envs.typing import Array


class Views(NamedTuple):
    """The arrays that compiled code reads and writes: live views into MjData and MjModel, under MuJoCo's names."""

    qpos: Array
    qvel: Array
    ctrl: Array
    qfrc_bias: Array
    site_xpos: Array
    site_xmat: Array
    xaxis: Array
    xanchor: Array
    inertia: Array
    inertia_diagonal: NDArray[np.int32]  # of every row of `inertia`, where in it
    dof_parent: NDArray[np.int32]
    ctrl_range: Array

    @classmethod
    def of(cls, model: mujoco.MjModel, data: mujoco.MjData) -> Views:
        """Views of one MjData over its model."""
        return cls(
            data.qpos,
            data.qvel,
            data.ctrl,
            data.qfrc_bias,
            data.site_xpos,
            data.site_xmat,
            data.xaxis,
            data.xanchor,
            data.M,
            np.asarray(model.M_rowadr + model.M_rownnz - 1, np.int32),
            model.dof_parentid,
            model.actuator_ctrlrange,
        )


class Indices(NamedTuple):
    """Where the robot is in MuJoCo's arrays; a range of seven (arm) starts at the named index."""

    joint: int
    dof: int
    grip_site: int
    qpos: int
    arm_actuator: int
    finger_actuator_1: int
    finger_actuator_2: int

    @classmethod
    def of(cls, model: mujoco.MjModel) -> Indices:
        """Look the robot's parts up by name."""
        joint = model.joint("robot0_joint1")
        return cls(
            int(joint.id),
            int(joint.dofadr[0]),
            int(model.site("gripper0_right_grip_site").id),
            int(joint.qposadr[0]),
            int(model.actuator("robot0_torq_j1").id),
            int(model.actuator("gripper0_right_gripper_finger_joint1").id),
            int(model.actuator("gripper0_right_gripper_finger_joint2").id),
        )
