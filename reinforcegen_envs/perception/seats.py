"""Objects that were let go of in another one: where they lie is known better than cameras see it.

A pod in its holder or a piece in its frame is hidden by what holds it, and what little is seen of it told Coffee Preparation that
a pod was 4 to 15 mm over the holder's floor, for as long as the lid was not pushed for that. Constants are ours.
"""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.poses import invert, matrix_from, rotation
from reinforcegen_envs.tasks.base import Seat
from reinforcegen_envs.typing import Array

DROP = 4  # control steps from the hand's opening until what it held lies in its seat
REACH = 0.03  # metres from its seat within which an object that was let go of is taken to have slid into it
LEAN = 0.97  # cosine of an object's lean within which that is so


def seated(pose: Array, reference: Array, seat: Seat) -> Array:
    """Where an object (4x4) lies that was let go of near its seat in another one (4x4); if it was not near, where it is seen."""
    away = invert(reference) @ pose
    off = away[:3, 3] - seat.position
    across = np.hypot(off[0], off[1])
    # On a peg it falls as far as it does; hands that withdraw hide how far it has come.
    height = off[2] if not 0.0 < off[2] < seat.fall else 0.0
    if np.hypot(across, height) > REACH or away[2, 2] < LEAN:
        return pose
    place = seat.position + np.array([off[0], off[1], 0.0]) * min(1.0, seat.slack / max(across, 1e-9))
    turned = away[:3, :3]
    if seat.turns:
        part = 2.0 * np.pi / seat.turns
        turned = rotation([0.0, 0.0, part * np.round(np.arctan2(away[1, 0], away[0, 0]) / part)])[:3, :3]
    return reference @ matrix_from(turned, place)
