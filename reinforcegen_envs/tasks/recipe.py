"""What a recipe is made of: the poses that the scripted teleoperator steers to, one after the other.

A task's recipe (`Task.recipe`) is its demonstration program: keyframes in object frames, with a style drawn anew for each one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reinforcegen_envs.poses import rotation

OPEN, CLOSE = -1.0, 1.0


@dataclass(frozen=True)
class Keyframe:
    """A pose that the operator steers to.

    Args:
        stage: index of the stage that this belongs to.
        frame: object in whose frame ``pose`` is given.
        pose: (4, 4) of the ``tool``.
        tool: "eef" for the grip site, or the name of the object in the hand.
        skill: whether this is part of the stage's skill (else of its connect).
        gripper: gripper action on the way and while dwelling.
        speed: metres a control step.
        tolerance: (metres, radians) within which the keyframe is reached.
        dwell: control steps spent there.
        track_frame: whether the frame is followed while it moves; else it is read when the keyframe begins.
    """

    stage: int
    frame: str
    pose: np.ndarray
    tool: str = "eef"
    skill: bool = True
    gripper: float = OPEN
    speed: float = 0.012
    tolerance: tuple[float, float] = (0.006, 0.08)
    dwell: int = 0
    track_frame: bool = True


def hand_down(angle: float, lean: float) -> np.ndarray:
    """(3, 3) of a hand that comes from above.

    Args:
        angle: of the closing axis about the frame's z axis, radians.
        lean: turn about the closing axis, radians; 0 is straight down.
    """
    closing = np.array([np.cos(angle), np.sin(angle), 0.0])
    down = np.array([0.0, 0.0, -1.0])
    return np.stack([closing, np.cross(down, closing), down], axis=1) @ rotation([lean, 0.0, 0.0])[:3, :3]
