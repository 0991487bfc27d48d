"""The control step as one compiled function: 25 physics steps with the controller in between, without the GIL.

libmujoco's own functions are called by address, so nothing but arithmetic happens between two physics steps. The
controllers follow robosuite 1.5's OSC_POSE and JOINT_POSITION (controllers/parts/arm/osc.py, generic/joint_pos.py), to
rounding; `tests/test_controller_parity.py` holds them to it.

Every function expects positions and velocities already evaluated (`mj_step1` has run) and leaves them so: contacts and
site poses after a control step belong to the state after it, which makes snapshots replay bit for bit.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

import llvmlite.binding
import mujoco
import numba
import numpy as np
from numba import types

from reinforcegen_envs.sim.views import Indices, Views

ARM_DOF = 7
# Layout of the controller-state vector: what the controller remembers between control steps.
GRIPPER = 0  # gripper command, -1 open .. 1 closed; moves by a bounded amount a step (robosuite: current_action)
GOAL_ROTATION = 1  # 9 numbers, row-major: the latched orientation goal of robosuite 1.4
NULL_JOINTS = 10  # 7 numbers: posture the null space pulls to (robosuite: initial_joint)
STATE_SIZE = 17

POSITION_SCALE, ROTATION_SCALE = 0.05, 0.5  # metres and radians at action 1 (robosuite default_panda.json)
KP, KD = 150.0, 2.0 * np.sqrt(150.0)
NULL_KP, NULL_KD = 10.0, 2.0 * np.sqrt(10.0)
GRIPPER_SPEED = 0.2  # a control step (robosuite 1.5 panda_gripper.py)
GRIPPER_SPEED_V1_4 = 0.01  # a physics step (robosuite 1.4)


def _load_libmujoco() -> None:
    """Make libmujoco's symbols visible to compiled code, by the path Python's own binding loaded them from."""
    folder = Path(mujoco.__file__).parent
    names = sorted(folder.glob("libmujoco*")) or sorted(folder.glob("mujoco*.dll"))
    if not names:
        raise ImportError(f"no libmujoco in {folder}; reinstall mujoco")
    ctypes.CDLL(str(names[0]), mode=ctypes.RTLD_GLOBAL)
    llvmlite.binding.load_library_permanently(str(names[0]))


_load_libmujoco()
_step_signature = types.void(types.intp, types.intp)
mj_step1 = types.ExternalFunction("mj_step1", _step_signature)
mj_step2 = types.ExternalFunction("mj_step2", _step_signature)
mj_kinematics = types.ExternalFunction("mj_kinematics", _step_signature)
mj_comPos = types.ExternalFunction("mj_comPos", _step_signature)
mj_makeM = types.ExternalFunction("mj_makeM", _step_signature)


@numba.njit(cache=True, nogil=True)
def arm_jacobian(xaxis, xanchor, joint, point, jacobian):
    """Fill the geometric Jacobian (6, 7) of a world point on the hand; all arm joints are hinges."""
    for i in range(ARM_DOF):
        ax, ay, az = xaxis[joint + i, 0], xaxis[joint + i, 1], xaxis[joint + i, 2]
        rx = point[0] - xanchor[joint + i, 0]
        ry = point[1] - xanchor[joint + i, 1]
        rz = point[2] - xanchor[joint + i, 2]
        jacobian[0, i] = ay * rz - az * ry
        jacobian[1, i] = az * rx - ax * rz
        jacobian[2, i] = ax * ry - ay * rx
        jacobian[3, i] = ax
        jacobian[4, i] = ay
        jacobian[5, i] = az


@numba.njit(cache=True, nogil=True)
def arm_mass_matrix(inertia, inertia_diagonal, dof_parent, dof, mass):
    """Fill the arm's block (7, 7) of the joint-space inertia from MuJoCo's sparse rows: each ends on the diagonal."""
    for i in range(ARM_DOF):
        address = inertia_diagonal[dof + i]
        j = dof + i
        while j >= dof:
            mass[i, j - dof] = inertia[address]
            mass[j - dof, i] = inertia[address]
            address -= 1
            j = dof_parent[j]


@numba.njit(cache=True, nogil=True)
def cholesky(matrix, n):
    """Factor a symmetric positive definite matrix in place (lower triangle); False if it is not definite."""
    for j in range(n):
        value = matrix[j, j]
        for k in range(j):
            value -= matrix[j, k] * matrix[j, k]
        if not value > 1e-12:
            return False
        diagonal = np.sqrt(value)
        matrix[j, j] = diagonal
        for i in range(j + 1, n):
            value = matrix[i, j]
            for k in range(j):
                value -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = value / diagonal
    return True


@numba.njit(cache=True, nogil=True)
def cholesky_solve(factor, vector, n):
    """Solve L L^T x = vector in place."""
    for i in range(n):
        value = vector[i]
        for k in range(i):
            value -= factor[i, k] * vector[k]
        vector[i] = value / factor[i, i]
    for i in range(n - 1, -1, -1):
        value = vector[i]
        for k in range(i + 1, n):
            value -= factor[k, i] * vector[k]
        vector[i] = value / factor[i, i]


@numba.njit(cache=True, nogil=True)
def _solve_definite(matrix, vector, n):
    """Solve in place with a Cholesky factor, or with the pseudo-inverse at a singular posture, as robosuite does."""
    factor = matrix.copy()
    if cholesky(factor, n):
        cholesky_solve(factor, vector, n)
    else:
        vector[:] = np.dot(np.linalg.pinv(matrix), vector)


@numba.njit(cache=True, nogil=True)
def _osc_torques(views, ids, controller, goal_position, goal_rotation, torques):
    """Operational-space torques (7,) that pull the grip site to a world pose, posture held in the null space."""
    qpos, qvel = views.qpos, views.qvel
    dof, qpos_address = ids.dof, ids.qpos
    position = views.site_xpos[ids.grip_site]
    rotation = views.site_xmat[ids.grip_site]
    jacobian = np.empty((6, ARM_DOF))
    arm_jacobian(views.xaxis, views.xanchor, ids.joint, position, jacobian)
    mass = np.zeros((ARM_DOF, ARM_DOF))
    arm_mass_matrix(views.inertia, views.inertia_diagonal, views.dof_parent, dof, mass)

    # Orientation error: half the sum of the cross products of the frames' axes.
    wrench = np.empty(6)
    for i in range(3):
        wrench[i] = goal_position[i] - position[i]
        wrench[3 + i] = 0.0
    for c in range(3):
        ax, ay, az = rotation[c], rotation[3 + c], rotation[6 + c]
        bx, by, bz = goal_rotation[c], goal_rotation[3 + c], goal_rotation[6 + c]
        wrench[3] += 0.5 * (ay * bz - az * by)
        wrench[4] += 0.5 * (az * bx - ax * bz)
        wrench[5] += 0.5 * (ax * by - ay * bx)
    for i in range(6):
        velocity = 0.0
        for j in range(ARM_DOF):
            velocity += jacobian[i, j] * qvel[dof + j]
        wrench[i] = KP * wrench[i] - KD * velocity

    # Task-space inertia: (J M^-1 J^T)^-1, position and orientation uncoupled for the wrench, coupled for the null space.
    factor = mass.copy()
    cholesky(factor, ARM_DOF)
    inverse_times_jt = np.empty((6, ARM_DOF))
    for i in range(6):
        for j in range(ARM_DOF):
            inverse_times_jt[i, j] = jacobian[i, j]
        cholesky_solve(factor, inverse_times_jt[i], ARM_DOF)
    lambda_inverse = np.empty((6, 6))
    for i in range(6):
        for j in range(6):
            value = 0.0
            for k in range(ARM_DOF):
                value += jacobian[i, k] * inverse_times_jt[j, k]
            lambda_inverse[i, j] = value
    _solve_definite(lambda_inverse[:3, :3].copy(), wrench[:3], 3)
    _solve_definite(lambda_inverse[3:, 3:].copy(), wrench[3:], 3)

    acceleration = np.empty(ARM_DOF)
    for j in range(ARM_DOF):
        acceleration[j] = NULL_KP * (controller[NULL_JOINTS + j] - qpos[qpos_address + j]) - NULL_KD * qvel[dof + j]
    task = np.empty(6)
    for i in range(6):
        value = 0.0
        for j in range(ARM_DOF):
            value += jacobian[i, j] * acceleration[j]
        task[i] = value
    _solve_definite(lambda_inverse, task, 6)
    for j in range(ARM_DOF):
        value = views.qfrc_bias[dof + j]
        for i in range(6):
            value += jacobian[i, j] * (wrench[i] - task[i])
        for k in range(ARM_DOF):
            value += mass[j, k] * acceleration[k]
        torques[j] = value


@numba.njit(cache=True, nogil=True)
def _apply(views, ids, controller, torques):
    """Write clipped torques and the gripper command to the actuators."""
    ctrl, ctrl_range = views.ctrl, views.ctrl_range
    arm, finger_1, finger_2 = ids.arm_actuator, ids.finger_actuator_1, ids.finger_actuator_2
    for i in range(ARM_DOF):
        ctrl[arm + i] = min(max(torques[i], ctrl_range[arm + i, 0]), ctrl_range[arm + i, 1])
    command = controller[GRIPPER]
    low, high = ctrl_range[finger_1]
    ctrl[finger_1] = 0.5 * (high + low) + 0.5 * (high - low) * -command
    low, high = ctrl_range[finger_2]
    ctrl[finger_2] = 0.5 * (high + low) + 0.5 * (high - low) * command


@numba.njit(cache=True, nogil=True)
def _move_gripper(controller, action, speed):
    controller[GRIPPER] = min(max(controller[GRIPPER] + speed * np.sign(action), -1.0), 1.0)


@numba.njit(cache=True, nogil=True)
def _rotation_delta(rotvec):
    """Rotation matrix of a rotation vector, through a single-precision quaternion, as robosuite's quat2mat rounds it."""
    angle = np.sqrt(rotvec[0] ** 2 + rotvec[1] ** 2 + rotvec[2] ** 2)
    q = np.zeros(4, np.float32)
    q[0] = 1.0
    if angle > 1e-9:
        sine = np.sin(angle / 2.0)
        q[0] = np.cos(angle / 2.0)
        for i in range(3):
            q[1 + i] = rotvec[i] / angle * sine
    q *= np.sqrt(2.0 / np.dot(q, q))
    q2 = np.outer(q, q)
    return np.array(
        [
            [1.0 - q2[2, 2] - q2[3, 3], q2[1, 2] - q2[3, 0], q2[1, 3] + q2[2, 0]],
            [q2[1, 2] + q2[3, 0], 1.0 - q2[1, 1] - q2[3, 3], q2[2, 3] - q2[1, 0]],
            [q2[1, 3] - q2[2, 0], q2[2, 3] + q2[1, 0], 1.0 - q2[1, 1] - q2[2, 2]],
        ]
    )


@numba.njit(cache=True, nogil=True)
def osc_control_step(model, data, arrays, indices, controller, action, physics_steps, v1_4):
    """One control step of OSC_POSE.

    Args:
        model, data: addresses of MjModel and MjData.
        arrays: MjData and MjModel arrays, `Views` as a plain tuple.
        indices: where the robot is in them, `Indices` as a plain tuple.
        controller: (STATE_SIZE,) controller state, updated in place.
        action: (7,) in [-1, 1]: position and rotation delta of the grip site in the world frame, gripper.
        physics_steps: physics steps in this control step.
        v1_4: robosuite 1.4's semantics: the orientation goal is kept while the rotation part is zero, and the gripper
            command moves every physics step.
    """
    views, ids = Views(*arrays), Indices(*indices)
    position, rotation = views.site_xpos[ids.grip_site], views.site_xmat[ids.grip_site]
    goal_position = np.empty(3)
    for i in range(3):
        goal_position[i] = position[i] + POSITION_SCALE * action[i]
    rotvec = ROTATION_SCALE * action[3:6]
    turns = rotvec[0] != 0.0 or rotvec[1] != 0.0 or rotvec[2] != 0.0
    if turns or not v1_4:
        delta = _rotation_delta(rotvec)
        for i in range(3):
            for j in range(3):
                value = 0.0
                for k in range(3):
                    value += delta[i, k] * rotation[3 * k + j]
                controller[GOAL_ROTATION + 3 * i + j] = value
    goal_rotation = controller[GOAL_ROTATION : GOAL_ROTATION + 9]
    if not v1_4:
        _move_gripper(controller, action[6], GRIPPER_SPEED)
    torques = np.empty(ARM_DOF)
    for _ in range(physics_steps):
        if v1_4:
            _move_gripper(controller, action[6], GRIPPER_SPEED_V1_4)
        _osc_torques(views, ids, controller, goal_position, goal_rotation, torques)
        _apply(views, ids, controller, torques)
        mj_step2(model, data)
        mj_step1(model, data)


@numba.njit(cache=True, nogil=True)
def joint_control_step(model, data, arrays, indices, controller, start, goal, gripper, kp, kd, physics_steps):
    """One control step of joint-target tracking; the target moves on the line from ``start`` to ``goal``.

    Args:
        model, data, arrays, indices, controller, physics_steps: as in `osc_control_step`.
        start, goal: (7,) joint targets, radians, at the beginning and the end of the control step; equal targets give
            robosuite's JOINT_POSITION controller with absolute input.
        gripper: gripper action in [-1, 1].
        kp, kd: stiffness (1/s^2) and damping (1/s) of the tracking error, weighted by the mass matrix.
    """
    views, ids = Views(*arrays), Indices(*indices)
    qpos, qvel, bias = views.qpos, views.qvel, views.qfrc_bias
    dof, qpos_address = ids.dof, ids.qpos
    _move_gripper(controller, gripper, GRIPPER_SPEED)
    mass = np.zeros((ARM_DOF, ARM_DOF))
    acceleration = np.empty(ARM_DOF)
    torques = np.empty(ARM_DOF)
    duration = physics_steps * 0.002
    for step in range(physics_steps):
        part = (step + 1) / physics_steps
        for j in range(ARM_DOF):
            target = start[j] + part * (goal[j] - start[j])
            speed = (goal[j] - start[j]) / duration
            acceleration[j] = kp * (target - qpos[qpos_address + j]) + kd * (speed - qvel[dof + j])
        arm_mass_matrix(views.inertia, views.inertia_diagonal, views.dof_parent, dof, mass)
        for j in range(ARM_DOF):
            value = bias[dof + j]
            for k in range(ARM_DOF):
                value += mass[j, k] * acceleration[k]
            torques[j] = value
        _apply(views, ids, controller, torques)
        mj_step2(model, data)
        mj_step1(model, data)
