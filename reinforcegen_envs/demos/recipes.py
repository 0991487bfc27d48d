"""What the scripted teleoperator does, task by task: keyframes in object frames, with a style drawn anew for each demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reinforcegen_envs.models.nuts import PEG_HEIGHT, PEG_TOP, ROUND, SQUARE, Fit
from reinforcegen_envs.poses import matrix_from, rotation, translation
from reinforcegen_envs.tasks.threading import RING_CENTRE, SHAFT_CENTRE

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


def threading_recipe(rng: np.random.Generator) -> list[Keyframe]:
    """Threading: take the handle from above, line the tip up with the ring, push.

    The handle is a cube, so there are two grasps, half a turn apart. Either leaves part of the needle's and tripod's yaws
    out of the arm's reach; operators used the one that came handy. The lean is about the closing axis: towards the tip
    with one grasp, away from it with the other, as far as wrist and ring allow.
    """
    turned = rng.random() < 0.5
    lean = rng.uniform(-0.32, -0.2) if turned else rng.uniform(0.32, 0.42)  # radians
    down = np.array([[1.0, 0.0, 0.0], [0.0, -np.cos(lean), np.sin(lean)], [0.0, -np.sin(lean), -np.cos(lean)]])
    grasp = matrix_from(
        down @ np.diag([-1.0, -1.0, 1.0]) if turned else down,
        np.array([rng.normal(0, 0.001), 0.06 + rng.uniform(-0.005, 0.005), rng.uniform(-0.004, 0.002)]),
    )
    pace = rng.uniform(0.8, 1.2)
    wobble = rotation(rng.normal(0.0, 0.03, 3))
    # Needle in tripod: shaft along the ring's normal, tip towards -x, handle on the robot's side.
    along = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])

    def shaft_at(x: float, offset=(0.0, 0.0)) -> np.ndarray:
        """Needle pose in the tripod's frame with the shaft's centre ``x`` metres before the ring's."""
        centre = RING_CENTRE + np.array([x, *offset])
        return matrix_from(along, centre - along @ SHAFT_CENTRE)

    ready = 0.06 + rng.uniform(0.025, 0.035)  # the tip stands this far minus half a shaft before the ring
    return [
        Keyframe(
            0,
            "needle",
            grasp @ translation(rng.normal(0, 0.004), rng.normal(0, 0.004), -0.075) @ wobble,
            skill=False,
            speed=0.016 * pace,
            tolerance=(0.012, 0.12),
            dwell=int(rng.integers(0, 4)),
        ),
        Keyframe(0, "needle", grasp @ translation(0, 0, -0.02), speed=0.010 * pace, tolerance=(0.008, 0.08)),
        Keyframe(0, "needle", grasp, speed=0.006 * pace, tolerance=(0.004, 0.04)),
        Keyframe(0, "needle", grasp, gripper=CLOSE, dwell=int(rng.integers(11, 14)), track_frame=False),
        Keyframe(
            0,
            "needle",
            translation(0, 0, 0.055) @ grasp,
            gripper=CLOSE,
            speed=0.009 * pace,
            tolerance=(0.012, 0.1),
            track_frame=False,
        ),
        Keyframe(
            1,
            "tripod",
            shaft_at(0.13, rng.normal(0, 0.008, 2)) @ rotation(rng.normal(0, 0.04, 3)),
            tool="needle",
            skill=False,
            gripper=CLOSE,
            speed=0.016 * pace,
            tolerance=(0.012, 0.1),
            dwell=int(rng.integers(0, 4)),
        ),
        Keyframe(
            1, "tripod", shaft_at(ready), tool="needle", gripper=CLOSE, speed=0.008 * pace, tolerance=(0.0016, 0.03)
        ),
        Keyframe(
            1,
            "tripod",
            shaft_at(-0.001),
            tool="needle",
            gripper=CLOSE,
            speed=0.0038 * pace,
            tolerance=(0.004, 0.06),
            dwell=12,
        ),
    ]


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

    def nut_at(height: float, offset=(0.0, 0.0)) -> np.ndarray:
        """Nut pose in the peg's frame, ``height`` metres above the peg's top."""
        return translation(*offset, PEG_TOP - PEG_HEIGHT + height) @ rotation([0.0, 0.0, style.yaw])

    # Once round the peg a nut falls down by itself; lowering it all the way would bring the palm to the peg.
    low = nut_at(rng.uniform(-0.032, -0.024))
    skill_0 = {"stage": stage, "frame": fit.nut}
    skill_1 = {"stage": stage + 1, "frame": fit.peg}
    return [
        Keyframe(
            **skill_0,
            pose=grasp @ translation(*rng.normal(0, 0.004, 2), -0.075) @ wobble,
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
            pose=nut_at(0.07, rng.normal(0, 0.008, 2)) @ rotation(rng.normal(0, 0.04, 3)),
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


RECIPES: dict[str, Callable[[np.random.Generator], list[Keyframe]]] = {
    "Threading": threading_recipe,
    "Square": square_recipe,
    "NutAssembly": nut_assembly_recipe,
}
