"""How the scripted teleoperator threads."""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.demos.recipes.keyframe import CLOSE, Keyframe
from reinforcegen_envs.poses import matrix_from, rotation, translation
from reinforcegen_envs.tasks.threading import RING_CENTRE, SHAFT_CENTRE


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
