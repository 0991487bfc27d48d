"""How the scripted teleoperator makes coffee."""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.demos.recipes.keyframe import CLOSE, Keyframe
from reinforcegen_envs.models.coffee import HOLDER_HALF_HEIGHT, HOLDER_POSITION, POD_HALF_HEIGHT
from reinforcegen_envs.poses import matrix_from, rotation, translation

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
            translation(rng.normal(0, 0.004), rng.normal(0, 0.004), 0.075) @ grasp @ wobble,
            skill=False,
            speed=0.016 * pace,
            tolerance=(0.012, 0.12),
            dwell=int(rng.integers(0, 4)),
        ),
        Keyframe(stage, "coffee_pod", translation(0, 0, 0.015) @ grasp, speed=0.011 * pace, tolerance=(0.008, 0.08)),
        Keyframe(stage, "coffee_pod", grasp, speed=0.006 * pace, tolerance=(0.004, 0.05)),
        Keyframe(stage, "coffee_pod", grasp, gripper=CLOSE, dwell=int(rng.integers(8, 11)), track_frame=False),
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


def brew(
    rng: np.random.Generator, stage: int, grasp: np.ndarray, lean: float, yaw: float, pace: float
) -> list[Keyframe]:
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
    lid, but far machines would take the arm near its stretched pose, where the controller loses it. It leans as much when
    it grasps as when it lets go, since the pod stays upright.
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
