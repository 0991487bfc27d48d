"""How the scripted teleoperator prepares coffee."""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.demos.recipes.coffee import FINGER_TIP, brew, grasp_pod, hand_down
from reinforcegen_envs.demos.recipes.keyframe import CLOSE, Keyframe
from reinforcegen_envs.models.coffee import (
    HANDLE,
    LID_HALF_HEIGHT,
    LID_HALF_LENGTH,
    LID_POSITION,
    MUG_AXIS,
    MUG_GRIP,
    MUG_ON_PLATE,
)
from reinforcegen_envs.poses import matrix_from, rotation, translation

MACHINE = "coffee_machine"
FINGERS_HALF = 0.0153  # metres: half the width of the closed finger tips, along the closing axis
HOOK = 0.016  # metres in height by which the finger tips reach under the lid's edge
HANDLE_ASIDE = 0.012  # metres in front of the drawer's handle that the open hand comes down


def grasp_mug(rng: np.random.Generator, stage: int, grasp: np.ndarray, pace: float) -> list[Keyframe]:
    """Take the mug by its handle and lift it. ``grasp`` is the hand in the mug's frame."""
    wobble = rotation(rng.normal(0.0, 0.03, 3))
    above = translation(rng.normal(0, 0.004), rng.normal(0, 0.004), 0.075) @ grasp @ wobble
    return [
        Keyframe(stage, "mug", translation(0, 0, 0.06) @ above, skill=False, speed=0.018 * pace, tolerance=(0.03, 0.3)),
        Keyframe(stage, "mug", above, skill=False, speed=0.016 * pace, tolerance=(0.012, 0.12)),
        Keyframe(stage, "mug", translation(0, 0, 0.02) @ grasp, speed=0.011 * pace, tolerance=(0.006, 0.08)),
        Keyframe(stage, "mug", grasp, speed=0.006 * pace, tolerance=(0.004, 0.05)),
        Keyframe(stage, "mug", grasp, gripper=CLOSE, dwell=int(rng.integers(11, 14)), track_frame=False),
        Keyframe(
            stage,
            "mug",
            translation(0, 0, rng.uniform(0.06, 0.075)) @ grasp,
            gripper=CLOSE,
            speed=0.009 * pace,
            tolerance=(0.012, 0.1),
            track_frame=False,
        ),
    ]


def set_down(rng: np.random.Generator, stage: int, grasp: np.ndarray, yaw: float, pace: float) -> list[Keyframe]:
    """Put the mug on the front of the base plate, handle to the front, and let go of it upwards.

    Args:
        rng, stage, pace: as elsewhere.
        grasp: the hand in the mug's frame.
        yaw: of the mug in the machine's frame, radians; 0 has its handle straight in front.
    """
    axis = np.array([rng.normal(0, 0.003), rng.uniform(0.126, 0.133)])

    def mug_at(z: float, out: float = 0.0) -> np.ndarray:
        """Mug pose in the machine's frame, ``z`` metres over its place and ``out`` metres in front of it."""
        turn = rotation([0.0, 0.0, yaw])
        return translation(axis[0], axis[1] + out, MUG_ON_PLATE + z) @ turn @ translation(0, -MUG_AXIS, 0)

    down = mug_at(0.0)
    carry = {"gripper": CLOSE, "tool": "mug"}
    before = mug_at(0.06, 0.06) @ rotation(rng.normal(0, 0.04, 3))
    return [
        Keyframe(
            stage,
            MACHINE,
            translation(0, 0.03, 0.08) @ before,
            skill=False,
            speed=0.018 * pace,
            tolerance=(0.03, 0.3),
            **carry,
        ),
        Keyframe(stage, MACHINE, before, skill=False, speed=0.016 * pace, tolerance=(0.012, 0.1), **carry),
        Keyframe(stage, MACHINE, mug_at(0.02, 0.01), speed=0.010 * pace, tolerance=(0.006, 0.06), **carry),
        Keyframe(stage, MACHINE, mug_at(0.001), speed=0.005 * pace, tolerance=(0.0035, 0.04), **carry),
        Keyframe(stage, MACHINE, down @ grasp, dwell=int(rng.integers(8, 11)), tolerance=(0.01, 0.1)),
        Keyframe(stage, MACHINE, down @ translation(0, 0, 0.07) @ grasp, speed=0.012 * pace, tolerance=(0.015, 0.1)),
    ]


def open_lid(rng: np.random.Generator, stage: int, spin: float, pace: float) -> list[Keyframe]:
    """Reach under the lid's front edge with closed finger tips, lift it and push it over.

    Args:
        rng, stage, pace: as elsewhere.
        spin: of the hand about its approach, radians; 0 has it close along the machine's x axis.
    """
    lean = rng.uniform(0.6, 0.7)  # the palm is out in front of the machine, the finger tips point at it
    approach = np.array([0.0, -np.sin(lean), -np.cos(lean)])
    closing = np.array([1.0, 0.0, 0.0])
    hand = np.stack([closing, np.cross(approach, closing), approach], axis=1) @ rotation([0.0, 0.0, spin])[:3, :3]
    x = rng.normal(0, 0.003)

    # How far the closed fingers' upper side stands off their middle, along the machine's y axis.
    thick = (FINGER_TIP[1] * abs(np.cos(spin)) + FINGERS_HALF * abs(np.sin(spin))) / np.cos(lean)
    edge = LID_POSITION + np.array([0.0, LID_HALF_LENGTH, -LID_HALF_HEIGHT])  # lower front edge of the shut lid

    def fingers_at(y: float, z: float) -> np.ndarray:
        """Grip-site pose, in the machine's frame, that has the fingers' upper side at the lid's edge, moved by y and z."""
        reach = FINGER_TIP[0] - HOOK / np.cos(lean)  # the edge is met this far behind the finger tips
        return matrix_from(hand, edge + np.array([x, y + thick, z]) - reach * approach)

    push = {"gripper": CLOSE, "tolerance": (0.015, 0.12)}
    # The fingers press on a little, so that they do not pass in front of the edge; more would push the machine away.
    return [
        Keyframe(stage, MACHINE, fingers_at(0.04, -0.01), speed=0.018 * pace, gripper=CLOSE, tolerance=(0.015, 0.15)),
        Keyframe(stage, MACHINE, fingers_at(-0.008, -0.004), speed=0.012 * pace, dwell=2, **push),
        Keyframe(stage, MACHINE, fingers_at(-0.023, 0.045), speed=0.010 * pace, **push),
        Keyframe(stage, MACHINE, fingers_at(-0.07, 0.085), speed=0.012 * pace, **push),
        Keyframe(
            stage, MACHINE, fingers_at(-0.1, 0.085), speed=0.014 * pace, gripper=CLOSE, tolerance=(0.03, 0.12), dwell=2
        ),
        Keyframe(
            stage, MACHINE, fingers_at(0.0, 0.11), speed=0.02 * pace, gripper=CLOSE, tolerance=(0.02, 0.2), dwell=12
        ),
    ]


def pull_drawer(rng: np.random.Generator, stage: int, turned: bool, pace: float) -> list[Keyframe]:
    """Take the drawer's handle from above, pull it out and let go upwards."""
    bar = HANDLE + np.array([rng.uniform(-0.015, 0.015), 0.0, rng.uniform(-0.002, 0.004)])
    hand = hand_down((-0.5 if turned else 0.5) * np.pi, rng.normal(0.0, 0.03))
    grip = matrix_from(hand, bar)
    aside = translation(0, -HANDLE_ASIDE, 0) @ grip  # the inner finger has little room between bar and drawer
    out = translation(0, -rng.uniform(0.2, 0.206), 0)
    wobble = rotation(rng.normal(0.0, 0.03, 3))
    above = translation(rng.normal(0, 0.004), rng.normal(0, 0.004), 0.07) @ aside @ wobble
    drawer = "drawer"
    return [
        Keyframe(stage, drawer, translation(0, 0, 0.12) @ above, skill=False, speed=0.02 * pace, tolerance=(0.03, 0.3)),
        Keyframe(stage, drawer, above, skill=False, speed=0.018 * pace, tolerance=(0.012, 0.12)),
        Keyframe(stage, drawer, aside, speed=0.010 * pace, tolerance=(0.005, 0.06)),
        Keyframe(stage, drawer, aside, gripper=CLOSE, dwell=int(rng.integers(8, 11)), tolerance=(0.02, 0.06)),
        Keyframe(stage, drawer, out @ aside, gripper=CLOSE, speed=0.011 * pace, tolerance=(0.012, 0.12)),
        Keyframe(stage, drawer, out @ aside, dwell=int(rng.integers(7, 10)), tolerance=(0.03, 0.12)),
        Keyframe(
            stage,
            drawer,
            out @ translation(0, 0, 0.07) @ aside,
            speed=0.012 * pace,
            tolerance=(0.025, 0.12),
            dwell=4,
        ),
    ]


def coffee_preparation_recipe(rng: np.random.Generator) -> list[Keyframe]:
    """Coffee Preparation: mug onto the plate, lid open, drawer open, and then as in Coffee."""
    pace = rng.uniform(0.95, 1.2)
    turned = rng.random() < 1.0
    lean = rng.uniform(0.25, 0.45) if turned else -rng.uniform(0.13, 0.2)
    yaw = rng.uniform(-0.25, 0.25) if turned else rng.uniform(0.2, 0.6)
    height = MUG_GRIP + np.array([rng.normal(0, 0.001), rng.normal(0, 0.001), rng.uniform(-0.004, 0.004)])
    mug = matrix_from(hand_down(np.pi if turned else 0.0, lean), height)
    spin = np.pi + rng.uniform(-0.5, 0.5) if turned else -0.25 * np.pi + rng.uniform(-0.1, 0.1)

    bar = rng.random() < 0.5 if turned else True
    across = rng.random() < 0.5
    tilt = rng.uniform(0.1, 0.2) if across else -rng.uniform(0.0, 0.1)
    angle = rng.uniform(0.0, 0.8) + (np.pi if across else 0.0)  # of the closing axis in the pod's frame
    over = (0.0 if across else np.pi) + rng.uniform(-0.08, 0.08)  # of the closing axis over the machine
    pod = matrix_from(hand_down(angle, tilt), np.array([*rng.normal(0, 0.001, 2), 0.021 + rng.uniform(-0.001, 0.001)]))
    return [
        *grasp_mug(rng, 0, mug, pace),
        *set_down(rng, 1, mug, yaw, pace),
        *open_lid(rng, 1, spin, pace),
        *pull_drawer(rng, 2, bar, pace),
        *grasp_pod(rng, 3, pod, pace, lift=rng.uniform(0.09, 0.1)),
        *brew(rng, 4, pod, tilt, over - angle, pace),
    ]
