"""Compiled pieces of predicates: they run after every control step, between physics, where Python is slowest.

Arrays are MuJoCo's: ``xpos`` (bodies, 3) and ``xmat`` (bodies, 9, row-major) in the world frame, ``qvel`` (nv,), contact
``pairs`` (contacts, 2) of geom indices. Geoms are chosen by masks (geoms,), bodies by index. None of them lets go of the
GIL: they take microseconds, and getting it back from another stepping thread can take far longer.
"""

from __future__ import annotations

import mujoco
import numba
import numpy as np

from reinforcegen_envs.typing import Flags

# MuJoCo hands the pairs out as a column of its contact records: declared so that any stride will do.
_MASK, _PAIRS = "boolean[::1]", "int32[:,:]"


@numba.njit(f"boolean({_PAIRS}, {_MASK}, {_MASK})", cache=True)
def touching(pairs, first, second):
    """Whether a geom of one mask touches a geom of the other."""
    for i in range(len(pairs)):
        a, b = pairs[i, 0], pairs[i, 1]
        if (first[a] and second[b]) or (first[b] and second[a]):
            return True
    return False


@numba.njit(f"boolean({_PAIRS}, int64[::1], {_MASK})", cache=True)
def pinched(pairs, pads, own):
    """Whether both pads (2 geom indices) touch a geom of the mask."""
    left = right = False
    for i in range(len(pairs)):
        a, b = pairs[i, 0], pairs[i, 1]
        if own[b]:
            left = left or a == pads[0]
            right = right or a == pads[1]
        if own[a]:
            left = left or b == pads[0]
            right = right or b == pads[1]
    return left and right


@numba.njit(cache=True)
def slow(qvel, dof, speed, spin):
    """Whether a free body moves slower than ``speed``, m/s, and turns slower than ``spin``, rad/s, along every axis.

    ``dof`` is the address of its joint.
    """
    for i in range(3):
        if not abs(qvel[dof + i]) < speed or not abs(qvel[dof + 3 + i]) < spin:
            return False
    return True


def mask_of(model: mujoco.MjModel, *prefixes: str) -> Flags:
    """(geoms,) bool: geoms of the bodies whose names start with one of ``prefixes``."""
    return np.array([model.body(body).name.startswith(prefixes) for body in model.geom_bodyid])
