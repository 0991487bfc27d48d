"""Three Piece Assembly: put a piece into the hole of a frame, and a second one astride the first.

Geometry, reset ranges and the reference check follow MimicGen's Three Piece Assembly; they are rebuilt from their
numbers.
"""

from __future__ import annotations

import mujoco
import numba
import numpy as np

from reinforcegen_envs.models.scene import Scene
from reinforcegen_envs.models.three_piece_assembly import (
    BASE,
    BASE_HEIGHT,
    BASE_UNIT,
    PIECE_1,
    PIECE_1_HEIGHT,
    PIECE_2,
    PIECE_2_HEIGHT,
    SEATED_1,
    SEATED_2,
)
from reinforcegen_envs.poses import matrix_from, rotation, translation
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks.base import Placement, Seat, Shape, Stage, Symmetry, Task
from reinforcegen_envs.tasks.checks import mask_of, slow, touching
from reinforcegen_envs.tasks.recipe import CLOSE, Keyframe
from reinforcegen_envs.typing import Array

PI = float(np.pi)

REFERENCE_DISTANCE = 0.02  # MimicGen: pieces over each other, metres in xy
REFERENCE_GOAL = 0.08  # MimicGen: piece_2 over the base, metres, within REFERENCE_DISTANCE
BELIEVED_DISTANCE = 0.023  # ours: ... where assembled pieces are 19 mm from it and believed heights up to 3 mm off
# Ours, for strict success and for failures:
SEATED_TOLERANCE = 0.003  # metres that a seated piece's root may be too high or too low
SLOT_TOLERANCE = 0.004  # metres from the slot's middle to the wall's; 3 mm are free
SLOT_COSINE = float(np.cos(np.deg2rad(6)))  # between slot and wall; 3.4 degrees are free
UPRIGHT_COSINE = float(np.cos(np.deg2rad(3)))
TOPPLED_COSINE = float(np.cos(np.deg2rad(45)))
REST_SPEED = 0.05  # metres a second, of every piece
REST_SPIN = 0.5  # radians a second
LIFT_HEIGHT = 0.02  # metres that a grasped piece must have left the table
DROPPED_HEIGHT = 0.004  # piece this near above the table while it should be carried: dropped
WITHDRAWN = 0.075  # metres from piece_1's root up to the grip site: fingertips over the wall


@numba.njit(cache=True)
def _across_table(xpos, one, other):
    """Distance of two roots in the table's plane, metres."""
    return np.hypot(xpos[one, 0] - xpos[other, 0], xpos[one, 1] - xpos[other, 1])


@numba.njit(cache=True)
def _placed(xpos, base, piece_1, piece_2, goal_distance):
    """MimicGen's check, but for that nothing is grasped."""
    return (
        _across_table(xpos, piece_1, base) < REFERENCE_DISTANCE
        and _across_table(xpos, piece_1, piece_2) < REFERENCE_DISTANCE
        and abs(xpos[piece_2, 2] - xpos[base, 2] - REFERENCE_GOAL) < goal_distance
    )


@numba.njit(cache=True)
def _piece_1_seated(xpos, xmat, base, piece_1):
    """Upright and down in the hole; down there, the hole's walls leave it four yaws, +-7 degrees."""
    return (
        xmat[piece_1, 8] > UPRIGHT_COSINE
        and _across_table(xpos, piece_1, base) < REFERENCE_DISTANCE
        and abs(xpos[piece_1, 2] - xpos[base, 2] - SEATED_1) < SEATED_TOLERANCE
    )


@numba.njit(cache=True)
def _piece_2_seated(xpos, xmat, base, piece_1, piece_2):
    """Upright, legs down on the base, wall of piece_1 in the slot."""
    across, turned = 0.0, 0.0
    for k in range(3):
        across += xmat[piece_1, 3 * k] * (xpos[piece_2, k] - xpos[piece_1, k])
        turned += xmat[piece_1, 3 * k] * xmat[piece_2, 3 * k]
    return (
        xmat[piece_2, 8] > UPRIGHT_COSINE
        and abs(across) < SLOT_TOLERANCE
        and abs(turned) > SLOT_COSINE
        and abs(xpos[piece_2, 2] - xpos[base, 2] - SEATED_2) < SEATED_TOLERANCE
    )


@numba.njit(cache=True)
def _judge(xpos, xmat, qvel, base, piece_1, piece_2, dofs):
    """Whether piece_1 and piece_2 are seated, and all is at rest."""
    rest = True
    for dof in dofs:
        rest = rest and slow(qvel, dof, REST_SPEED, REST_SPIN)
    return _piece_1_seated(xpos, xmat, base, piece_1), _piece_2_seated(xpos, xmat, base, piece_1, piece_2), rest


class ThreePieceAssemblyTask(Task):
    """Put a piece into the square hole of a frame, and a second piece astride the first one's wall.

    Geometry, masses, reset ranges and the reference check are MimicGen's Three Piece Assembly, rebuilt from their
    numbers. ``base`` is a frame 190 x 190 x 38 mm with a hole of 114 x 114 mm; ``piece_1`` a plate 102 x 102 x 34 mm
    with a wall 34 x 102 x 68 mm on it; ``piece_2`` two legs 40 x 120 x 80 mm, 40 mm apart, under a plate 120 x 120 x
    40 mm with a 40 mm cube as knob. That leaves 6 mm a side in the hole and 3 mm a side over the wall. The hole is
    square, so piece_1 fits in four ways; piece_2 fits over the wall in two. The source demonstrations use one of
    each, which is enough.

    Stages:
        grasp_1: reach the wall, close, lift; finished when both pads touch piece_1 and it is 2 cm off the table
        insert_1: line up, lower, let go, withdraw; finished when piece_1 is seated, nothing of the gripper touches it
            and the fingers are above it
        grasp_2: reach the knob, close, lift; finished when both pads touch piece_2 and it is 2 cm off the table
        place: line the slot up with the wall, lower, let go; finished with strict success

    Success:
        piece_1_seated: piece_1 is upright (3 degrees), its plate on the table (3 mm), within 20 mm of the base's
            centre: down in the hole, whose walls leave it four yaws
        piece_2_seated: piece_2 is upright (3 degrees), its legs on the base (3 mm), the wall in its slot (4 mm
            across, 6 degrees)
        centred: MimicGen's check: piece_1 within 20 mm of the base and piece_2 of piece_1 (in x and y), piece_2
            within 20 mm of 80 mm over the base, neither between both pads
        released: nothing of the gripper touches piece_1 or piece_2
        at_rest: all three move slower than 5 cm/s and turn slower than 0.5 rad/s about every axis

    Reference:
        It also counts piece_1 hovering, turned by 45 degrees across the frame, or upside down; piece_2 wedged on the
        base at a tilt of 3 degrees; what only passes by; and a piece that one finger still touches. Strict success
        does not. MimicGen's check leaves little room: assembled, piece_2 is 99 mm over the base, 19 mm from a goal
        that may be 20 mm away.

    Failure:
        An object is off the table or leans by more than 45 degrees, a piece is dropped while it should be carried, or
        piece_1 leaves the hole again.

    Ours:
        The predicates other than ``centred`` and their tolerances (half of what separates a right from a wrong state,
        or the clearance plus 1 mm), the failures and the horizons: MimicGen evaluates with 500 control steps, without
        connects. Its pieces are 53 cubes; here the cubes of a row or layer are one box, 10 in all, with the same
        shape, mass and inertia.

    Version history:
        v0: first version.
    """

    name = "ThreePieceAssembly"
    scene = Scene("three_piece_assembly", (BASE, PIECE_1, PIECE_2))
    objects = ("base", "piece_1", "piece_2")
    symmetries = {"base": Symmetry(4, -PI / 4), "piece_1": Symmetry(2), "piece_2": Symmetry(2)}
    seats = {"piece_1": Seat("base", (0.0, 0.0, SEATED_1), slack=0.003, turns=4)}
    # Resets drop everything from 1 mm, as MimicGen's do.
    shapes = {
        "base": Shape(BASE_HEIGHT + 0.001, 0.13435),
        "piece_1": Shape(PIECE_1_HEIGHT + 0.001, 0.07212),
        "piece_2": Shape(PIECE_2_HEIGHT + 0.001, 0.08485),
    }
    variants = {
        "D0": {
            "base": Placement((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)),
            "piece_1": Placement((-0.22, 0.22), (-0.22, 0.22), (1.5708, 1.5708)),
            "piece_2": Placement((-0.22, 0.22), (-0.22, 0.22), (1.5708, 1.5708)),
        },
        "D1": {
            "base": Placement((-0.22, 0.22), (-0.22, 0.22), (0.0, 0.0)),
            "piece_1": Placement((-0.22, 0.22), (-0.22, 0.22), (1.5708, 1.5708)),
            "piece_2": Placement((-0.22, 0.22), (-0.22, 0.22), (1.5708, 1.5708)),
        },
        "D2": {
            "base": Placement((-0.22, 0.22), (-0.22, 0.22), (-PI / 4, PI / 4)),
            "piece_1": Placement((-0.22, 0.22), (-0.22, 0.22), (1.5708 - PI / 2, 1.5708 + PI / 2)),
            "piece_2": Placement((-0.22, 0.22), (-0.22, 0.22), (1.5708 - PI / 2, 1.5708 + PI / 2)),
        },
    }
    stages = (
        Stage("grasp_1", "piece_1", None, 100, "grasp_1", skill_radius=0.09, end_offset=16),
        Stage("insert_1", "base", "piece_1", 140, "insert_1", skill_radius=0.12, end_offset=16),
        Stage("grasp_2", "piece_2", None, 100, "grasp_2", skill_radius=0.09, end_offset=16),
        Stage("place", "piece_1", "piece_2", 140, None, skill_radius=0.12, end_offset=0),
    )
    horizon = 600
    camera = "agentview_full"
    reference_speed = 69.0

    def __init__(self, model: mujoco.MjModel):
        super().__init__(model)
        self._gripper_mask = mask_of(model, "gripper0")
        self._pieces_mask = self.object_mask["piece_1"] | self.object_mask["piece_2"]
        self._bodies = (self.object_body["base"], self.object_body["piece_1"], self.object_body["piece_2"])
        self._dofs = np.array([self.object_dof[name] for name in self.objects], np.int64)

    def _apart(self, sim: Simulation, one: str, other: str) -> float:
        """Distance of two roots in the table's plane, metres."""
        return _across_table(sim.data.xpos, self.object_body[one], self.object_body[other])

    def _released(self, sim: Simulation, mask: Array) -> bool:
        """Whether nothing of the gripper touches a geom of the mask."""
        return not touching(sim.data.contact.geom, self._gripper_mask, mask)

    def reference_success(self, sim: Simulation) -> bool:
        return self._assembled(sim, REFERENCE_DISTANCE)

    def looks_done(self, sim: Simulation) -> bool:
        return self._assembled(sim, BELIEVED_DISTANCE)

    def _assembled(self, sim: Simulation, goal_distance: float) -> bool:
        """MimicGen's check, with ``goal_distance`` metres for piece_2's height."""
        return (
            _placed(sim.data.xpos, *self._bodies, goal_distance)
            and not self.grasped(sim, "piece_1")
            and not self.grasped(sim, "piece_2")
        )

    def predicates(self, sim: Simulation) -> dict[str, bool]:
        seated_1, seated_2, rest = _judge(sim.data.xpos, sim.data.xmat, sim.data.qvel, *self._bodies, self._dofs)
        return {
            "piece_1_seated": seated_1,
            "piece_2_seated": seated_2,
            "centred": self.reference_success(sim),
            "released": self._released(sim, self._pieces_mask),
            "at_rest": rest,
        }

    def stage_done(self, sim: Simulation, stage: int) -> bool:
        if stage == 0:
            lifted = self.height(sim, "piece_1") > PIECE_1_HEIGHT + LIFT_HEIGHT
            return lifted and self.grasped(sim, "piece_1")
        if stage == 1:
            wall = sim.data.xpos[self.object_body["piece_1"], 2]
            withdrawn = sim.data.site_xpos[sim.grip_site, 2] - wall > WITHDRAWN
            if not withdrawn:
                return False
            seated = _piece_1_seated(sim.data.xpos, sim.data.xmat, *self._bodies[:2])
            return seated and self._released(sim, self.object_mask["piece_1"])
        if stage == 2:
            lifted = self.height(sim, "piece_2") > PIECE_2_HEIGHT + LIFT_HEIGHT
            return lifted and self.grasped(sim, "piece_2")
        return all(self.predicates(sim).values())

    def failure(self, sim: Simulation, stage: int) -> str:
        if self.off_table(sim, self.objects):
            return "object off the table"
        for name in self.objects:
            if not self.upright(sim, name, TOPPLED_COSINE):
                return f"{name} toppled"
        if stage == 1:
            low = self.height(sim, "piece_1") < PIECE_1_HEIGHT + DROPPED_HEIGHT
            if low and self._apart(sim, "piece_1", "base") > REFERENCE_DISTANCE:
                return "piece_1 dropped"
        if stage >= 2 and not self._piece_1_in_hole(sim):
            return "piece_1 left the hole"
        if stage == 3 and self.height(sim, "piece_2") < PIECE_2_HEIGHT + DROPPED_HEIGHT:
            return "piece_2 dropped"
        return ""

    def _piece_1_in_hole(self, sim: Simulation) -> bool:
        low = self.height(sim, "piece_1") < PIECE_1_HEIGHT + BASE_UNIT
        return low and self._apart(sim, "piece_1", "base") < REFERENCE_DISTANCE

    @classmethod
    def recipe(cls, rng: np.random.Generator) -> list[Keyframe]:
        """Take the wall of piece_1, lower it into the base; take the knob of piece_2, lower it astride.

        One way of the four in which piece_1 fits, and of the two in which piece_2 does, keeps the whole of every variant in
        reach, if the hand leans a little: outwards for what lies far away, not at all for what lies near.
        """
        pace = rng.uniform(0.8, 1.2)

        def grasp(lean: float, height: float, along: float) -> Array:
            """Hand from above, fingers closing along the piece's x, leaning about that axis."""
            cosine, sine = np.cos(lean), np.sin(lean)
            down = np.array([[1.0, 0.0, 0.0], [0.0, -cosine, sine], [0.0, -sine, -cosine]])
            return matrix_from(down, np.array([rng.normal(0, 0.001), along, height + rng.uniform(-0.003, 0.003)]))

        def take(stage: int, piece: str, grip: Array) -> list[Keyframe]:
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

        def put(stage: int, piece: str, grip: Array, frame: str, seated: Array, enters: float) -> list[Keyframe]:
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
                    stage,
                    frame,
                    translation(0, 0, 0.001) @ seated,
                    speed=0.004 * pace,
                    tolerance=(0.0025, 0.04),
                    **carry,
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
