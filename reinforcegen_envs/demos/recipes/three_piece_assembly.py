"""How the scripted teleoperator stacks the three pieces."""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.demos.recipes.keyframe import CLOSE, Keyframe
from reinforcegen_envs.poses import matrix_from, rotation, translation
from reinforcegen_envs.tasks.three_piece_assembly import SEATED_1, SEATED_2


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
        before = grip @ translation(rng.normal(0, 0.004), rng.normal(0, 0.004), -0.08) @ wobble
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
        aside = translation(rng.normal(0, 0.008), rng.normal(0, 0.008), enters + 0.05)
        over = aside @ seated @ rotation(rng.normal(0, 0.04, 3))
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
