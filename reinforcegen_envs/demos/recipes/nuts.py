"""How the scripted teleoperator puts nuts on pegs: Square and Nut Assembly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reinforcegen_envs.demos.recipes.keyframe import CLOSE, Keyframe
from reinforcegen_envs.models.nuts import PEG_HEIGHT, PEG_TOP, ROUND, SQUARE, Fit
from reinforcegen_envs.poses import matrix_from, rotation, translation


@dataclass(frozen=True)
class NutStyle:
    """One way to put a nut on its peg.

    Args:
        turned: which of the two grasps of the handle, half a turn apart.
        lean: radians by which the palm leans away from the nut, towards the handle's end; negative leans over the nut.
        yaw: of the nut on the peg, radians in the peg's frame.
    """

    turned: bool
    lean: float
    yaw: float


# Nuts lie and pegs stand anywhere, so no single way is within reach everywhere. These, found by inverse kinematics over
# many layouts, are possible on D0 and together cover D1 and D2; operators used the one that came handy.
HALF_TURN = float(np.pi)
SQUARE_STYLES = (
    NutStyle(True, -0.3, HALF_TURN),
    NutStyle(False, 0.3, HALF_TURN),
    NutStyle(False, -0.42, 0.0),
    NutStyle(True, 0.15, HALF_TURN),
    NutStyle(False, 0.0, HALF_TURN),
)


# The round nut goes on at any yaw.
ROUND_STYLES = (
    NutStyle(False, 0.25, 0.75 * HALF_TURN),
    NutStyle(True, -0.42, -0.25 * HALF_TURN),
    NutStyle(True, 0.0, HALF_TURN),
    NutStyle(False, 0.0, 0.5 * HALF_TURN),
    NutStyle(True, -0.15, 0.75 * HALF_TURN),
)


def nut_keyframes(rng: np.random.Generator, fit: Fit, stage: int, style: NutStyle) -> list[Keyframe]:
    """Take a nut by its handle from above, hold it over the peg, lower it, let go and withdraw.

    Args:
        rng: draws pace, grasp and approach.
        fit: nut and peg.
        stage: index of the grasp stage; the insertion is the next one.
        style: which grasp and which yaw on the peg.
    """
    lean = style.lean + rng.normal(0.0, 0.03)
    approach = np.array([-np.sin(lean), 0.0, -np.cos(lean)])
    closing = np.array([0.0, -1.0 if style.turned else 1.0, 0.0])
    grip = np.array([fit.handle + rng.uniform(0.004, 0.01), rng.normal(0, 0.001), rng.uniform(0.0, 0.003)])
    grasp = matrix_from(np.stack([closing, np.cross(approach, closing), approach], axis=1), grip)
    pace = rng.uniform(0.8, 1.2)
    wobble = rotation(rng.normal(0.0, 0.03, 3))

    def nut_at(height: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
        """Nut pose in the peg's frame, ``height`` metres above the peg's top."""
        return translation(x, y, PEG_TOP - PEG_HEIGHT + height) @ rotation([0.0, 0.0, style.yaw])

    # Once round the peg a nut falls down by itself; lowering it all the way would bring the palm to the peg.
    low = nut_at(rng.uniform(-0.032, -0.024))
    skill_0 = {"stage": stage, "frame": fit.nut}
    skill_1 = {"stage": stage + 1, "frame": fit.peg}
    return [
        Keyframe(
            **skill_0,
            pose=grasp @ translation(rng.normal(0, 0.004), rng.normal(0, 0.004), -0.075) @ wobble,
            skill=False,
            speed=0.016 * pace,
            tolerance=(0.012, 0.12),
            dwell=int(rng.integers(0, 4)),
        ),
        Keyframe(**skill_0, pose=grasp @ translation(0, 0, -0.02), speed=0.010 * pace, tolerance=(0.008, 0.08)),
        Keyframe(**skill_0, pose=grasp, speed=0.006 * pace, tolerance=(0.004, 0.04)),
        Keyframe(**skill_0, pose=grasp, gripper=CLOSE, dwell=int(rng.integers(11, 14)), track_frame=False),
        Keyframe(
            **skill_0,
            pose=translation(0, 0, 0.055) @ grasp,
            gripper=CLOSE,
            speed=0.009 * pace,
            tolerance=(0.012, 0.1),
            track_frame=False,
        ),
        Keyframe(
            **skill_1,
            pose=nut_at(0.07, rng.normal(0, 0.008), rng.normal(0, 0.008)) @ rotation(rng.normal(0, 0.04, 3)),
            tool=fit.nut,
            skill=False,
            gripper=CLOSE,
            speed=0.016 * pace,
            tolerance=(0.012, 0.1),
            dwell=int(rng.integers(0, 4)),
        ),
        Keyframe(
            **skill_1, pose=nut_at(0.024), tool=fit.nut, gripper=CLOSE, speed=0.008 * pace, tolerance=(0.0025, 0.04)
        ),
        Keyframe(**skill_1, pose=low, tool=fit.nut, gripper=CLOSE, speed=0.005 * pace, tolerance=(0.004, 0.06)),
        Keyframe(**skill_1, pose=low @ grasp, dwell=int(rng.integers(3, 6)), tolerance=(0.012, 0.1)),
        Keyframe(
            **skill_1,
            pose=low @ grasp @ translation(0, 0, -rng.uniform(0.08, 0.1)),
            speed=0.010 * pace,
            tolerance=(0.012, 0.1),
            dwell=12,
        ),
    ]


def square_recipe(rng: np.random.Generator) -> list[Keyframe]:
    """Square: the nut on the peg."""
    return nut_keyframes(rng, SQUARE, 0, SQUARE_STYLES[rng.integers(len(SQUARE_STYLES))])


def nut_assembly_recipe(rng: np.random.Generator) -> list[Keyframe]:
    """Nut Assembly: first the square nut, then the round one."""
    square, round_ = SQUARE_STYLES[rng.integers(len(SQUARE_STYLES))], ROUND_STYLES[rng.integers(len(ROUND_STYLES))]
    return nut_keyframes(rng, SQUARE, 0, square) + nut_keyframes(rng, ROUND, 2, round_)
