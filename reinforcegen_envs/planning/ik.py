"""Inverse kinematics of the arm, ending where the end-effector controller will hold it.

OSC_POSE pulls to a posture through a mass-weighted null space. A solver with a Euclidean null space ends elsewhere on the
self-motion curve, and the arm drifts (up to a radian) once the controller takes over. So the null space here is OSC's:
the solution minimises (q - posture)^T M (q - posture) among the joints that reach the pose.
"""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numba
import numpy as np

from reinforcegen_envs.poses import matrix_to_rotvec
from reinforcegen_envs.sim.kernel import (
    ARM_DOF,
    arm_jacobian,
    arm_mass_matrix,
    cholesky,
    cholesky_solve,
    mj_comPos,
    mj_kinematics,
    mj_makeM,
)
from reinforcegen_envs.sim.simulation import INITIAL_JOINTS, CellState
from reinforcegen_envs.sim.views import Indices, Views
from reinforcegen_envs.typing import Array

ITERATIONS = 60
POSITION_TOLERANCE = 1e-4  # metres
ROTATION_TOLERANCE = 1e-3  # radians
LIMIT_MARGIN = 0.06  # radians kept from every joint limit
DAMPING = 1e-6
NULL_GAIN = 0.5  # part of the way to the posture taken in one iteration
MAX_STEP = 0.4  # radians a joint may move in one iteration
# What is reached at all is nearly reached after so many iterations (within 0.5 mm and 0.012 rad, measured on Square, Nut
# Assembly, Coffee Preparation and Threading); what is farther off than this, metres and radians, is given up.
STALL_ITERATION, STALL_POSITION, STALL_ROTATION = 20, 0.02, 0.1


@dataclass(frozen=True)
class IKSolution:
    """Joints that reach a pose, or come nearest to it.

    Args:
        joints: (7,) radians.
        position_error: metres left.
        rotation_error: radians left.
        margin: radians to the nearest joint limit.
    """

    joints: Array
    position_error: float
    rotation_error: float
    margin: float

    @property
    def reached(self) -> bool:
        """Whether both errors are within tolerance."""
        return self.position_error < POSITION_TOLERANCE and self.rotation_error < ROTATION_TOLERANCE


@numba.njit(cache=True, nogil=True)
def _solve(model, data, arrays, indices, joints, posture, low, high, target, iterations):
    """Iterate ``joints`` in place towards the 4x4 ``target``; returns position and rotation error."""
    views, ids = Views(*arrays), Indices(*indices)
    qpos = views.qpos
    joint, dof, site, qpos_address = ids.joint, ids.dof, ids.grip_site, ids.qpos
    jacobian = np.empty((6, ARM_DOF))
    mass = np.zeros((ARM_DOF, ARM_DOF))
    error = np.empty(6)
    step = np.empty(ARM_DOF)
    weighted = np.empty((6, ARM_DOF))
    gram = np.empty((6, 6))
    task = np.empty(6)
    rotation = np.empty((3, 3))
    position_error, rotation_error = np.inf, np.inf
    for iteration in range(iterations):
        for j in range(ARM_DOF):
            joints[j] = min(max(joints[j], low[j]), high[j])
            qpos[qpos_address + j] = joints[j]
        mj_kinematics(model, data)
        mj_comPos(model, data)
        mj_makeM(model, data)
        position, flat = views.site_xpos[site], views.site_xmat[site]
        for i in range(3):
            error[i] = target[i, 3] - position[i]
            for j in range(3):
                rotation[i, j] = 0.0
                for k in range(3):
                    rotation[i, j] += target[i, k] * flat[3 * j + k]
        error[3:] = matrix_to_rotvec(rotation)
        position_error = np.sqrt(error[0] ** 2 + error[1] ** 2 + error[2] ** 2)
        rotation_error = np.sqrt(error[3] ** 2 + error[4] ** 2 + error[5] ** 2)
        if iteration >= STALL_ITERATION and (position_error > STALL_POSITION or rotation_error > STALL_ROTATION):
            break
        arm_jacobian(views.xaxis, views.xanchor, joint, position, jacobian)
        arm_mass_matrix(views.inertia, views.inertia_diagonal, views.dof_parent, dof, mass)
        cholesky(mass, ARM_DOF)
        for i in range(6):
            for j in range(ARM_DOF):
                weighted[i, j] = jacobian[i, j]
            cholesky_solve(mass, weighted[i], ARM_DOF)
        for i in range(6):
            for j in range(6):
                gram[i, j] = DAMPING if i == j else 0.0
                for k in range(ARM_DOF):
                    gram[i, j] += jacobian[i, k] * weighted[j, k]
        cholesky(gram, 6)
        # One step: M^-1 J^T (J M^-1 J^T)^-1 (error - J n) + n, with n the pull to the posture.
        for i in range(6):
            task[i] = error[i]
            for j in range(ARM_DOF):
                task[i] -= jacobian[i, j] * NULL_GAIN * (posture[j] - joints[j])
        cholesky_solve(gram, task, 6)
        largest = 0.0
        for j in range(ARM_DOF):
            step[j] = NULL_GAIN * (posture[j] - joints[j])
            for i in range(6):
                step[j] += weighted[i, j] * task[i]
            largest = max(largest, abs(step[j]))
        if largest < 1e-5 and position_error < POSITION_TOLERANCE and rotation_error < ROTATION_TOLERANCE:
            break
        scale = min(1.0, MAX_STEP / max(largest, 1e-9))
        for j in range(ARM_DOF):
            joints[j] += scale * step[j]
    for j in range(ARM_DOF):
        joints[j] = qpos[qpos_address + j]
    return position_error, rotation_error


class ArmKinematics:
    """Forward and inverse kinematics on a scratch MjData.

    Args:
        model: the compiled scene.
        ids: where the robot is in its arrays.
        joint_range: (7, 2) joint limits, radians.
    """

    def __init__(self, model: mujoco.MjModel, ids: Indices, joint_range: Array):
        self.model = model
        self.data = mujoco.MjData(model)
        self.ids = ids
        self.joint_range = joint_range
        self._low, self._high = joint_range[:, 0] + LIMIT_MARGIN, joint_range[:, 1] - LIMIT_MARGIN
        self._packed = (tuple(Views.of(model, self.data)), tuple(ids))
        self._arm = slice(ids.qpos, ids.qpos + ARM_DOF)
        self._dofs = slice(ids.dof, ids.dof + ARM_DOF)

    def follow(self, cell: CellState) -> None:
        """Take over a cell's fingers and objects: their inertia counts, if little, in the null space."""
        self.data.qpos[:] = cell.data.qpos

    def forward(self, joints: Array) -> Array:
        """4x4 pose of the grip site, world frame, at ``joints`` (7,)."""
        self.data.qpos[self._arm] = joints
        mujoco.mj_kinematics(self.model, self.data)
        pose = np.eye(4)
        pose[:3, :3] = self.data.site_xmat[self.ids.grip_site].reshape(3, 3)
        pose[:3, 3] = self.data.site_xpos[self.ids.grip_site]
        return pose

    def drag(self, joints: Array, rates: Array) -> Array:
        """(7,) torques of air drag, Nm, at ``joints`` (7,), radians, moving by ``rates`` (7,), rad/s, and nothing else moving."""
        model, data = self.model, self.data
        data.qpos[self._arm] = joints
        data.qvel[:] = 0.0
        data.qvel[self._dofs] = rates
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_fwdVelocity(model, data)
        return data.qfrc_fluid[self._dofs].copy()

    def solve(self, target: Array, seed: Array, posture: Array = INITIAL_JOINTS) -> IKSolution:
        """Nearest solution from one seed.

        Args:
            target: 4x4 pose of the grip site, world frame.
            seed: (7,) joints to start from.
            posture: (7,) joints that the null space pulls to.
        """
        joints = np.array(seed, np.float64)
        position_error, rotation_error = _solve(
            self.model._address,
            self.data._address,
            *self._packed,
            joints,
            np.asarray(posture, np.float64),
            self._low,
            self._high,
            np.ascontiguousarray(target),
            ITERATIONS,
        )
        margin = float(np.minimum(joints - self.joint_range[:, 0], self.joint_range[:, 1] - joints).min())
        return IKSolution(joints, float(position_error), float(rotation_error), margin)

    def solutions(
        self,
        target: Array,
        seeds: list[Array],
        rng: np.random.Generator,
        posture: Array = INITIAL_JOINTS,
        restarts: int = 6,
    ) -> list[IKSolution]:
        """Distinct solutions that reach the target: from the seeds, else from random restarts near the posture.

        Args:
            target, posture: as in `solve`.
            seeds: joints to start from, tried in order.
            rng: source of the restarts.
            restarts: at most this many random seeds, used only while nothing reaches.
        """
        found: list[IKSolution] = []
        for seed in seeds:
            self._add(found, self.solve(target, seed, posture))
        for _ in range(restarts):
            if found:
                break
            self._add(found, self.solve(target, posture + rng.normal(0.0, 0.6, ARM_DOF), posture))
        return found

    @staticmethod
    def _add(found: list[IKSolution], solution: IKSolution) -> None:
        if solution.reached and all(np.abs(solution.joints - other.joints).max() > 0.05 for other in found):
            found.append(solution)
