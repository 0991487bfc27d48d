"""Rigid transforms: 4x4 matrices inside the package, (x, y, z, qw, qx, qy, qz) at its borders; metres and radians.

A matrix named ``a_in_b`` maps coordinates in frame a to frame b, so ``a_in_world = b_in_world @ a_in_b``.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import ArrayLike, NDArray

from reinforcegen_envs.typing import Array


@numba.njit(cache=True)
def quat_to_matrix(quat: Array) -> Array:
    """Rotation matrix (3, 3) of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quat[0], quat[1], quat[2], quat[3]
    out = np.empty((3, 3))
    out[0, 0] = 1 - 2 * (y * y + z * z)
    out[0, 1] = 2 * (x * y - w * z)
    out[0, 2] = 2 * (x * z + w * y)
    out[1, 0] = 2 * (x * y + w * z)
    out[1, 1] = 1 - 2 * (x * x + z * z)
    out[1, 2] = 2 * (y * z - w * x)
    out[2, 0] = 2 * (x * z - w * y)
    out[2, 1] = 2 * (y * z + w * x)
    out[2, 2] = 1 - 2 * (x * x + y * y)
    return out


@numba.njit(cache=True)
def matrix_to_quat(rotation: Array) -> Array:
    """Unit quaternion (w, x, y, z), w >= 0, of a rotation matrix (3, 3)."""
    m = rotation
    quat = np.empty(4)
    # Shepperd's method: divide by the largest component, never by one near zero.
    trace = m[0, 0] + m[1, 1] + m[2, 2]
    if trace > 0:
        s = 2.0 * np.sqrt(1.0 + trace)
        quat[0] = 0.25 * s
        quat[1] = (m[2, 1] - m[1, 2]) / s
        quat[2] = (m[0, 2] - m[2, 0]) / s
        quat[3] = (m[1, 0] - m[0, 1]) / s
    else:
        i = 0
        if m[1, 1] > m[0, 0]:
            i = 1
        if m[2, 2] > m[i, i]:
            i = 2
        j, k = (i + 1) % 3, (i + 2) % 3
        s = 2.0 * np.sqrt(max(1.0 + m[i, i] - m[j, j] - m[k, k], 1e-300))
        quat[0] = (m[k, j] - m[j, k]) / s
        quat[1 + i] = 0.25 * s
        quat[1 + j] = (m[j, i] + m[i, j]) / s
        quat[1 + k] = (m[k, i] + m[i, k]) / s
    quat /= np.sqrt(np.sum(quat * quat))
    if quat[0] < 0:
        quat = -quat
    return quat


@numba.njit(cache=True)
def rotvec_to_matrix(rotvec: Array) -> Array:
    """Rotation matrix (3, 3) of a rotation vector (axis times angle, radians)."""
    angle = np.sqrt(rotvec[0] ** 2 + rotvec[1] ** 2 + rotvec[2] ** 2)
    quat = np.zeros(4)
    quat[0] = 1.0
    if angle > 1e-12:
        s = np.sin(angle / 2) / angle
        quat[0] = np.cos(angle / 2)
        quat[1], quat[2], quat[3] = rotvec[0] * s, rotvec[1] * s, rotvec[2] * s
    return quat_to_matrix(quat)


@numba.njit(cache=True)
def matrix_to_rotvec(rotation: Array) -> Array:
    """Rotation vector (3,), angle in [0, pi], of a rotation matrix (3, 3)."""
    quat = matrix_to_quat(rotation)
    s = np.sqrt(quat[1] ** 2 + quat[2] ** 2 + quat[3] ** 2)
    out = np.zeros(3)
    if s > 1e-12:
        angle = 2.0 * np.arctan2(s, quat[0])
        out[0], out[1], out[2] = quat[1] / s * angle, quat[2] / s * angle, quat[3] / s * angle
    return out


@numba.njit(cache=True)
def matrix_from(rotation: NDArray[Any], position: NDArray[Any]) -> Array:
    """The 4x4 transform of a rotation (3, 3) and a position (3,)."""
    out = np.eye(4)
    out[:3, :3] = rotation
    out[:3, 3] = position
    return out


@numba.njit(cache=True)
def invert(pose: Array) -> Array:
    """Inverse of a 4x4 rigid transform."""
    out = np.eye(4)
    rotation_t = np.ascontiguousarray(pose[:3, :3].T)
    out[:3, :3] = rotation_t
    for i in range(3):
        out[i, 3] = -(rotation_t[i, 0] * pose[0, 3] + rotation_t[i, 1] * pose[1, 3] + rotation_t[i, 2] * pose[2, 3])
    return out


def from_pose7(pose7: Array) -> Array:
    """4x4 transform of (x, y, z, qw, qx, qy, qz)."""
    pose7 = np.asarray(pose7, np.float64)
    return matrix_from(quat_to_matrix(pose7[3:] / np.linalg.norm(pose7[3:])), pose7[:3])


def to_pose7(pose: Array) -> Array:
    """(x, y, z, qw, qx, qy, qz) of a 4x4 transform."""
    return np.concatenate([pose[:3, 3], matrix_to_quat(np.ascontiguousarray(pose[:3, :3]))])


def translation(x: float, y: float, z: float) -> Array:
    """4x4 transform that only moves, metres."""
    return matrix_from(np.eye(3), np.array([x, y, z], np.float64))


def rotation(rotvec: ArrayLike) -> Array:
    """4x4 transform that only turns, by a rotation vector in radians."""
    return matrix_from(rotvec_to_matrix(np.asarray(rotvec, np.float64)), np.zeros(3))


def yaw_quat(yaw: float) -> Array:
    """Quaternion (w, x, y, z) of a turn about z, radians."""
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def rotation_angle(rotation_a: Array, rotation_b: Array) -> float:
    """Angle in radians between two rotation matrices (3, 3)."""
    cosine = 0.5 * (float(np.sum(rotation_a * rotation_b)) - 1.0)
    return float(np.arccos(min(1.0, max(-1.0, cosine))))


def distance(pose_a: Array, pose_b: Array) -> tuple[float, float]:
    """Metres and radians between two 4x4 transforms."""
    return float(np.linalg.norm(pose_a[:3, 3] - pose_b[:3, 3])), rotation_angle(pose_a[:3, :3], pose_b[:3, :3])
