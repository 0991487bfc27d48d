"""What the scripted teleoperator does, task by task: keyframes in object frames, with a style drawn anew for each demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reinforcegen_envs.models.coffee import HOLDER_HALF_HEIGHT, HOLDER_POSITION, POD_HALF_HEIGHT
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
            grasp @ translation(*rng.normal(0, 0.004, 2), -0.075) @ wobble,
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


FINGER_TIP = (0.0125, 0.011)  # metres from the grip site to the finger tips' end, and half their width


def hand_down(angle: float, lean: float) -> np.ndarray:
    """(3, 3) of a hand that comes from above.

    Args:
        angle: of the closing axis about the frame's z axis, radians.
        lean: turn about the closing axis, radians; 0 is straight down.
    """
    closing = np.array([np.cos(angle), np.sin(angle), 0.0])
    down = np.array([0.0, 0.0, -1.0])
    return np.stack([closing, np.cross(down, closing), down], axis=1) @ rotation([lean, 0.0, 0.0])[:3, :3]


def grasp_pod(rng: np.random.Generator, stage: int, grasp: np.ndarray, pace: float, lift: float) -> list[Keyframe]:
    """Take the pod by its flange and lift it. ``grasp`` is the hand in the pod's frame, ``lift`` metres."""
    wobble = rotation(rng.normal(0.0, 0.03, 3))
    return [
        Keyframe(
            stage,
            "coffee_pod",
            translation(*rng.normal(0, 0.004, 2), 0.075) @ grasp @ wobble,
            skill=False,
            speed=0.016 * pace,
            tolerance=(0.012, 0.12),
            dwell=int(rng.integers(0, 4)),
        ),
        Keyframe(
            stage, "coffee_pod", translation(0, 0, 0.015) @ grasp, speed=0.011 * pace, tolerance=(0.008, 0.08)
        ),
        Keyframe(stage, "coffee_pod", grasp, speed=0.006 * pace, tolerance=(0.004, 0.05)),
        Keyframe(
            stage, "coffee_pod", grasp, gripper=CLOSE, dwell=int(rng.integers(8, 11)), track_frame=False
        ),
        Keyframe(
            stage,
            "coffee_pod",
            translation(0, 0, lift) @ grasp,
            gripper=CLOSE,
            speed=0.010 * pace,
            tolerance=(0.012, 0.1),
            track_frame=False,
        ),
    ]


def brew(rng: np.random.Generator, stage: int, grasp: np.ndarray, lean: float, yaw: float, pace: float) -> list[Keyframe]:
    """Lower the pod into the holder, let go, reach over the open lid and push it shut from behind.

    Args:
        rng, stage, pace: as elsewhere.
        grasp: the hand in the pod's frame.
        lean: the hand's, radians.
        yaw: of the pod in the machine's frame, radians.
    """
    turn = rotation([0.0, 0.0, yaw])[:3, :3]
    rim = HOLDER_POSITION + np.array([0.0, 0.0, HOLDER_HALF_HEIGHT])
    # The finger tips open over the rim; the pod falls the rest of its way.
    tip = FINGER_TIP[0] * np.cos(lean) + FINGER_TIP[1] * abs(np.sin(lean))
    let_go = tip + 0.003 + rng.uniform(0.0, 0.002) - grasp[2, 3]

    def pod_at(z: float, offset=(0.0, 0.0)) -> np.ndarray:
        """Pod pose in the machine's frame, its centre ``z`` over the rim."""
        return matrix_from(turn, rim + np.array([*offset, z]))

    def hand_at(y: float, z: float) -> np.ndarray:
        """Grip-site pose in the machine's frame, in its plane of symmetry."""
        return matrix_from(turn @ grasp[:3, :3], np.array([0.0, y, z]))

    released = pod_at(let_go) @ grasp
    behind, push = rng.uniform(-0.012, -0.006), rng.uniform(0.165, 0.169)
    machine = "coffee_machine"
    return [
        Keyframe(
            stage,
            machine,
            pod_at(0.08, rng.normal(0, 0.005, 2)) @ rotation(rng.normal(0, 0.04, 3)),
            tool="coffee_pod",
            skill=False,
            gripper=CLOSE,
            speed=0.016 * pace,
            tolerance=(0.012, 0.1),
            dwell=int(rng.integers(0, 4)),
        ),
        Keyframe(
            stage,
            machine,
            pod_at(POD_HALF_HEIGHT + 0.006),
            tool="coffee_pod",
            gripper=CLOSE,
            speed=0.009 * pace,
            tolerance=(0.003, 0.05),
        ),
        Keyframe(
            stage,
            machine,
            pod_at(let_go),
            tool="coffee_pod",
            gripper=CLOSE,
            speed=0.006 * pace,
            tolerance=(0.0025, 0.05),
        ),
        Keyframe(stage, machine, released, dwell=int(rng.integers(11, 14)), tolerance=(0.01, 0.1)),
        Keyframe(stage, machine, translation(0, 0, 0.04) @ released, speed=0.014 * pace, tolerance=(0.015, 0.1)),
        Keyframe(stage, machine, hand_at(0.09, 0.22), gripper=CLOSE, speed=0.02 * pace, tolerance=(0.02, 0.1)),
        Keyframe(stage, machine, hand_at(behind, 0.22), gripper=CLOSE, speed=0.02 * pace, tolerance=(0.012, 0.1)),
        Keyframe(stage, machine, hand_at(behind, push), gripper=CLOSE, speed=0.016 * pace, tolerance=(0.01, 0.1)),
        Keyframe(
            stage,
            machine,
            hand_at(0.095, push + (0.008 if abs(lean) > 0.2 else 0.014)),
            gripper=CLOSE,
            speed=0.014 * pace,
            tolerance=(0.01, 0.15),
            dwell=25,
        ),
    ]


def coffee_recipe(rng: np.random.Generator) -> list[Keyframe]:
    """Coffee: take the pod by its flange, let it into the holder, push the lid shut.

    Pod and holder are round, so the hand's closing axis is free, but the open lid and the wrist leave two ways over the
    machine, half a turn apart: one for a machine that faces away from the robot, one for a machine that faces it. The hand
    leans back over the machine as far as the former needs, not further: the palm would trail the fingers when they push the
    lid, but far machines would take the arm near its stretched pose, where the controller loses it. It leans as much when it grasps as when it lets go, since the pod stays upright.
    """
    turned = rng.random() < 0.5
    lean = rng.uniform(0.22, 0.28) if turned else -rng.uniform(0.0, 0.08)
    angle = np.deg2rad(110.0 if turned else 200.0) + rng.uniform(-0.2, 0.2)  # of the closing axis when it grasps
    grasp = matrix_from(
        hand_down(angle, lean), np.array([*rng.normal(0, 0.001, 2), 0.021 + rng.uniform(-0.001, 0.001)])
    )
    pace = rng.uniform(0.9, 1.2)
    over = (0.0 if turned else np.pi) + rng.uniform(-0.08, 0.08)  # of the closing axis over the machine
    return [
        *grasp_pod(rng, 0, grasp, pace, lift=rng.uniform(0.06, 0.075)),
        *brew(rng, 1, grasp, lean, over - angle, pace),
    ]


RECIPES: dict[str, Callable[[np.random.Generator], list[Keyframe]]] = {
    "Threading": threading_recipe,
    "Coffee": coffee_recipe,
}
