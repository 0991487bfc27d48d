"""An object's pose as three vectors that pictures determine: its position and two directions.

Directions average and fuse like positions, which rotation matrices do not. Of an object that looks the same when it is
turned about its z axis (see `Symmetry`) they say no more than a picture can show: the second one's angle about the z axis
is taken times the number of such turns, so that all poses that look the same have the same vectors.
"""

from __future__ import annotations

import numba
import numpy as np

from reinforcegen_envs.tasks.base import Symmetry
from reinforcegen_envs.typing import Array

UNIQUE = 1  # turns of an object that looks the same only after a full one


def turns_of(symmetry: Symmetry | None) -> tuple[int, float]:
    """Number of turns (0: every turn looks the same) and lowest yaw, of an object that may have no symmetry."""
    return (UNIQUE, 0.0) if symmetry is None else (symmetry.turns, symmetry.yaw)


@numba.njit(cache=True)
def _upright(z):
    """The smallest rotation that takes the world's z axis to the unit vector ``z``, (3, 3)."""
    out = np.eye(3)
    c = z[2]
    if c < -1.0 + 1e-9:  # upside down: half a turn about x
        out[1, 1] = out[2, 2] = -1.0
        return out
    # Rodrigues' formula about (-z[1], z[0], 0).
    k = 1.0 / (1.0 + c)
    out[0, 0] = 1.0 - k * z[0] * z[0]
    out[0, 1] = out[1, 0] = -k * z[0] * z[1]
    out[1, 1] = 1.0 - k * z[1] * z[1]
    for i in range(3):
        out[i, 2] = z[i]
    out[2, 0], out[2, 1] = -z[0], -z[1]
    return out


@numba.njit(cache=True)
def encode(position: Array, rotation: Array, turns: int) -> Array:
    """The vectors of a pose.

    Args:
        position: (3,) metres, world frame.
        rotation: (3, 3).
        turns: see `turns_of`.

    Returns:
        (3, 3), one a row, world frame: position; x and y axis of an object with one turn, else z axis and the direction
        of the yaw times ``turns``, or the z axis twice if every turn looks the same.
    """
    out = np.empty((3, 3))
    out[0] = position
    if turns == 1:
        out[1], out[2] = rotation[:, 0], rotation[:, 1]
        return out
    out[1], out[2] = rotation[:, 2], rotation[:, 2]
    if turns > 1:
        stand = _upright(rotation[:, 2])
        x = 0.0
        y = 0.0
        for i in range(3):
            x += stand[i, 0] * rotation[i, 0]
            y += stand[i, 1] * rotation[i, 0]
        yaw = turns * np.arctan2(y, x)
        out[2] = stand[:, 0] * np.cos(yaw) + stand[:, 1] * np.sin(yaw)
    return out


@numba.njit(cache=True)
def aligned(rotation: Array, z: Array) -> Array:
    """A rotation (3, 3), turned by the smallest angle that brings its z axis to the direction ``z`` (3,)."""
    end = _unit(z)
    start = np.ascontiguousarray(rotation[:, 2])
    c = start[0] * end[0] + start[1] * end[1] + start[2] * end[2]
    if c < -1.0 + 1e-9:  # upside down: no turn is the smallest
        return _upright(end)
    x = start[1] * end[2] - start[2] * end[1]
    y = start[2] * end[0] - start[0] * end[2]
    w = start[0] * end[1] - start[1] * end[0]
    cross = np.array([[0.0, -w, y], [w, 0.0, -x], [-y, x, 0.0]])
    return (np.eye(3) + cross + cross @ cross / (1.0 + c)) @ rotation


@numba.njit(cache=True)
def rotated(directions: Array, turns: int, rotation: Array) -> Array:
    """The directions of an object, after it was turned.

    Of an object that looks the same after some turns the second direction turns that many times as far about the z axis.

    Args:
        directions: (2, 3), the last two rows of `encode`, of any length.
        turns: see `turns_of`.
        rotation: (3, 3), world frame.

    Returns:
        (2, 3), of the same lengths.
    """
    out = np.empty((2, 3))
    if turns <= 1:
        for k in range(2):
            out[k] = rotation @ directions[k]
        return out
    vectors = np.zeros((3, 3))
    vectors[1:] = directions
    turned, _ = decode(vectors, turns, 0.0, np.nan)
    vectors = encode(vectors[0], rotation @ turned, turns)
    for k in range(2):
        d = directions[k]
        out[k] = vectors[1 + k] * np.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
    return out


@numba.njit(cache=True)
def _unit(v):
    return v / max(np.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]), 1e-9)


@numba.njit(cache=True)
def decode(vectors: Array, turns: int, lowest_yaw: float, last_yaw: float) -> tuple[Array, float]:
    """The pose of vectors, which need not be of unit length or orthogonal.

    Args:
        vectors: (3, 3), see `encode`.
        turns, lowest_yaw: see `turns_of`.
        last_yaw: yaw that it gave before, radians; NaN if there was none. Of yaws that look the same the nearest to it is
            meant, or else the one from ``lowest_yaw`` on.

    Returns:
        rotation (3, 3), and its yaw about the upright z axis, radians (0 unless there are some turns).
    """
    first = _unit(vectors[1])
    out = np.empty((3, 3))
    if turns == 1:
        along = first[0] * vectors[2, 0] + first[1] * vectors[2, 1] + first[2] * vectors[2, 2]
        second = _unit(vectors[2] - along * first)
        out[:, 0], out[:, 1] = first, second
        out[0, 2] = first[1] * second[2] - first[2] * second[1]
        out[1, 2] = first[2] * second[0] - first[0] * second[2]
        out[2, 2] = first[0] * second[1] - first[1] * second[0]
        return out, 0.0
    if turns == 0:
        return _upright(_unit(vectors[1] + vectors[2])), 0.0
    stand = _upright(first)
    x = 0.0
    y = 0.0
    for i in range(3):
        x += stand[i, 0] * vectors[2, i]
        y += stand[i, 1] * vectors[2, i]
    part = 2.0 * np.pi / turns
    lowest = lowest_yaw if np.isnan(last_yaw) else last_yaw - 0.5 * part
    yaw = lowest + (np.arctan2(y, x) / turns - lowest) % part
    c, s = np.cos(yaw), np.sin(yaw)
    out[:, 0] = stand[:, 0] * c + stand[:, 1] * s
    out[:, 1] = stand[:, 1] * c - stand[:, 0] * s
    out[:, 2] = first
    return out, yaw
