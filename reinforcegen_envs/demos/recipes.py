"""What the scripted teleoperator does, task by task: keyframes in object frames, with a style drawn anew for each demo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from reinforcegen_envs.poses import matrix_from, rotation, translation
from reinforcegen_envs.tasks.threading import RING_CENTRE, SHAFT_CENTRE
from reinforcegen_envs.tasks.three_piece_assembly import SEATED_1, SEATED_2

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


def three_piece_assembly_recipe(rng: np.random.Generator) -> list[Keyframe]:
    """Three Piece Assembly: take the wall of piece_1, lower it into the base; take the knob of piece_2, lower it astride.

    One way of the four in which piece_1 fits, and of the two in which piece_2 does, keeps the whole of every variant in
    reach, if the hand leans a little: outwards for what lies far away, not at all for what lies near.
    """
    pace = rng.uniform(0.8, 1.2)

    def grasp(lean: float, height: float, along: float) -> np.ndarray:
        """Hand from above, fingers closing along the piece's x, leaning about that axis."""
        cosine, sine = np.cos(lean), np.sin(lean)
        down = np.array([[1.0, 0.0, 0.0], [0.0, -cosine, sine], [0.0, -sine, -cosine]])
        return matrix_from(down, np.array([rng.normal(0, 0.001), along, height + rng.uniform(-0.003, 0.003)]))

    def take(stage: int, piece: str, grip: np.ndarray) -> list[Keyframe]:
        wobble = rotation(rng.normal(0.0, 0.03, 3))
        before = grip @ matrix_from(np.eye(3), np.append(rng.normal(0, 0.004, 2), -0.08)) @ wobble
        above, lifted = translation(0, 0, 0.12) @ before, translation(0, 0, 0.05) @ grip
        dwell = int(rng.integers(11, 14))
        return [
            Keyframe(stage, piece, above, skill=False, speed=0.018 * pace, tolerance=(0.03, 0.3)),
            Keyframe(stage, piece, before, skill=False, speed=0.016 * pace, tolerance=(0.012, 0.12)),
            Keyframe(stage, piece, grip @ translation(0, 0, -0.02), speed=0.010 * pace, tolerance=(0.008, 0.08)),
            Keyframe(stage, piece, grip, speed=0.006 * pace, tolerance=(0.004, 0.04)),
            Keyframe(stage, piece, grip, gripper=CLOSE, dwell=dwell, track_frame=False),
            Keyframe(
                stage, piece, lifted, gripper=CLOSE, speed=0.009 * pace, tolerance=(0.012, 0.1), track_frame=False
            ),
        ]

    def put(stage: int, piece: str, grip: np.ndarray, frame: str, seated: np.ndarray, enters: float) -> list[Keyframe]:
        """Carry over, line up where it ``enters``, metres over its seat, lower, let go and withdraw."""
        high = translation(0, 0, 0.16) @ grip
        aside = np.append(rng.normal(0, 0.008, 2), enters + 0.05)
        over = matrix_from(np.eye(3), aside) @ seated @ rotation(rng.normal(0, 0.04, 3))
        carry = {"gripper": CLOSE, "tool": piece}
        return [
            Keyframe(stage, piece, high, skill=False, gripper=CLOSE, speed=0.016 * pace, track_frame=False),
            Keyframe(
                stage,
                frame,
                translation(0, 0, 0.08) @ over,
                skill=False,
                speed=0.018 * pace,
                tolerance=(0.03, 0.3),
                **carry,
            ),
            Keyframe(stage, frame, over, skill=False, speed=0.016 * pace, tolerance=(0.012, 0.1), **carry),
            Keyframe(
                stage,
                frame,
                translation(0, 0, enters + 0.006) @ seated,
                speed=0.0065 * pace,
                tolerance=(0.0016, 0.03),
                **carry,
            ),
            Keyframe(
                stage, frame, translation(0, 0, 0.001) @ seated, speed=0.004 * pace, tolerance=(0.0025, 0.04), **carry
            ),
            Keyframe(stage, piece, grip, dwell=int(rng.integers(6, 9)), tolerance=(0.008, 0.1), track_frame=False),
            Keyframe(
                stage,
                piece,
                translation(0, 0, 0.07) @ grip,
                speed=0.010 * pace,
                tolerance=(0.012, 0.1),
                track_frame=False,
            ),
        ]

    grip_1 = grasp(rng.uniform(-0.2, 0.1), 0.035, rng.uniform(-0.006, 0.006))
    grip_2 = grasp(rng.uniform(-0.2, 0.1), 0.06, rng.uniform(-0.003, 0.003))
    quarter = rotation([0.0, 0.0, np.pi / 2])
    return [
        *take(0, "piece_1", grip_1),
        *put(1, "piece_1", grip_1, "base", translation(0, 0, SEATED_1) @ quarter, 0.038),
        *take(2, "piece_2", grip_2),
        *put(3, "piece_2", grip_2, "piece_1", translation(0, 0, SEATED_2 - SEATED_1), 0.064),
    ]


RECIPES: dict[str, Callable[[np.random.Generator], list[Keyframe]]] = {
    "Threading": threading_recipe,
    "ThreePieceAssembly": three_piece_assembly_recipe,
}
