"""Threading: pick up a needle by its handle and push it through the ring of a tripod.

Geometry, reset ranges and the reference check follow MimicGen's Threading task; they are rebuilt from their numbers.
"""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np

from reinforcegen_envs.models.scene import FRONT, Scene
from reinforcegen_envs.models.threading import (
    NEEDLE,
    RING_CENTRE,
    RING_HALF_THICKNESS,
    RING_OPENING_HALF,
    SHAFT_CENTRE,
    SHAFT_HALF_LENGTH,
    TRIPOD,
)
from reinforcegen_envs.poses import matrix_from, rotation, translation
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks.base import Placement, Shape, Stage, Task
from reinforcegen_envs.tasks.checks import slow
from reinforcegen_envs.tasks.recipe import CLOSE, Keyframe
from reinforcegen_envs.typing import Array

PI = float(np.pi)
REFERENCE_DISTANCE = 0.012  # MimicGen: shaft centre to ring centre, metres
# Ours, for strict success and for failures:
REST_SPEED, REST_SPIN = 0.05, 1.0  # metres and radians a second, of needle and tripod
STANDING_HEIGHT = 0.105  # tripod root above the table, metres; 0.095 when it stands
UPRIGHT_COSINE = float(np.cos(np.deg2rad(15)))
TOPPLED_COSINE = float(np.cos(np.deg2rad(45)))
LIFT_HEIGHT = 0.02  # metres that a grasped needle must have left the table
DROPPED_HEIGHT = 0.035  # needle root this near above the table while it should be carried: dropped


@numba.njit(cache=True)
def _shaft_centre(xpos, xmat, needle, tripod):
    """Shaft centre from the ring's centre, in the tripod's frame, metres."""
    away, out = np.empty(3), np.empty(3)
    for i in range(3):
        turned = 0.0
        for k in range(3):
            turned += xmat[needle, 3 * i + k] * SHAFT_CENTRE[k]
        away[i] = xpos[needle, i] + turned - xpos[tripod, i]
    for i in range(3):
        value = 0.0
        for k in range(3):
            value += xmat[tripod, 3 * k + i] * away[k]
        out[i] = value - RING_CENTRE[i]
    return out


@numba.njit(cache=True)
def _centred(centre):
    """MimicGen's check."""
    return centre[0] ** 2 + centre[1] ** 2 + centre[2] ** 2 < REFERENCE_DISTANCE**2


@numba.njit(cache=True)
def _judge(xpos, xmat, qvel, needle, tripod, needle_dof, tripod_dof, table_height):
    """Whether the needle is centred and through the ring, the tripod stands, and both are at rest."""
    centre = _shaft_centre(xpos, xmat, needle, tripod)
    axis = np.zeros(3)  # of the shaft, towards the handle, in the tripod's frame
    for i in range(3):
        for k in range(3):
            axis[i] += xmat[tripod, 3 * k + i] * xmat[needle, 3 * k + 1]
    through = False
    if abs(axis[0]) > 0.1:
        # Where the shaft's axis meets the ring's plane, and how far it reaches to either side of it.
        along = -centre[0] / axis[0]
        y, z = centre[1] + along * axis[1], centre[2] + along * axis[2]
        reach = (SHAFT_HALF_LENGTH - abs(along)) * abs(axis[0])
        through = max(abs(y), abs(z)) < RING_OPENING_HALF and reach > RING_HALF_THICKNESS
    return (
        _centred(centre),
        through,
        xpos[tripod, 2] - table_height < STANDING_HEIGHT and xmat[tripod, 8] > UPRIGHT_COSINE,
        slow(qvel, needle_dof, REST_SPEED, REST_SPIN) and slow(qvel, tripod_dof, REST_SPEED, REST_SPIN),
    )


class ThreadingTask(Task):
    """Pick up a needle by its handle and push it through the ring of a tripod.

    Shapes, masses, reset ranges and the reference check are MimicGen's Threading, rebuilt from their numbers. The
    needle's shaft is 10 mm thick and the ring's opening 16 mm wide, which leaves 3 mm on every side; the tripod
    weighs 18 g and is easily pushed or toppled. The handle is a cube, so it can be grasped in two ways, half a turn
    apart, and either leaves some layouts out of the arm's reach; the source demonstrations hold both.

    Stages:
        grasp: reach the handle, close, lift; finished when both pads touch the needle and it is 2 cm off the table
        insert: line the tip up with the ring, push; finished with strict success

    Success:
        centred: the shaft's centre is within 12 mm of the ring's centre; alone, this is MimicGen's check
        through_ring: the shaft's axis runs through the opening, and the shaft sticks out of the ring on either side
        tripod_standing: the tripod leans less than 15 degrees and is not lifted off the table
        at_rest: needle and tripod move slower than 5 cm/s and turn slower than 1 rad/s about every axis

    Reference:
        It also counts a needle that lies across the ring's face, one that passes through the ring at speed, and a
        toppled tripod with the needle in its ring; strict success does not. In both the hand may still hold the
        needle: its weight lies 67 mm outside the ring, so letting go is no part of the task.

    Failure:
        An object is off the table, the tripod leans by more than 45 degrees, or the needle is dropped while it should
        be carried.

    Ours:
        The predicates other than ``centred`` and their tolerances, the failures and the stages' horizons.

    Version history:
        v0: first version.
    """

    name = "Threading"
    scene = Scene("threading", (NEEDLE, TRIPOD), front=replace(FRONT, fovy=36.0))
    objects = ("needle", "tripod")
    shapes = {"needle": Shape(0.02, 0.08246), "tripod": Shape(0.101, 0.07071)}
    variants = {
        "D0": {
            "needle": Placement((-0.2, -0.05), (0.15, 0.25), (-2 * PI / 3, -PI / 3)),
            "tripod": Placement((0.0, 0.0), (-0.15, -0.15), (PI / 2, PI / 2)),
        },
        "D1": {
            "needle": Placement((-0.2, 0.05), (0.15, 0.25), (-7 * PI / 6, PI / 6)),
            "tripod": Placement((-0.1, 0.15), (-0.2, -0.1), (PI / 6, 5 * PI / 6)),
        },
        "D2": {
            "needle": Placement((-0.2, 0.05), (-0.25, -0.15), (-7 * PI / 6, PI / 6)),
            "tripod": Placement((-0.1, 0.15), (0.1, 0.2), (-5 * PI / 6, -PI / 6)),
        },
    }
    stages = (
        Stage("grasp", "needle", None, 100, "grasp", skill_radius=0.09, end_offset=16),
        Stage("insert", "tripod", "needle", 120, None, skill_radius=0.12, end_offset=0),
    )
    horizon = 400
    reference_speed = 143.0

    def reference_success(self, sim: Simulation) -> bool:
        needle, tripod = self.object_body["needle"], self.object_body["tripod"]
        return _centred(_shaft_centre(sim.data.xpos, sim.data.xmat, needle, tripod))

    def predicates(self, sim: Simulation) -> dict[str, bool]:
        data = sim.data
        centred, through, standing, rest = _judge(
            data.xpos,
            data.xmat,
            data.qvel,
            self.object_body["needle"],
            self.object_body["tripod"],
            self.object_dof["needle"],
            self.object_dof["tripod"],
            self.scene.table_height,
        )
        return {"centred": centred, "through_ring": through, "tripod_standing": standing, "at_rest": rest}

    def stage_done(self, sim: Simulation, stage: int) -> bool:
        if stage == 0:
            lifted = sim.data.xpos[self.object_body["needle"], 2] > self.scene.table_height + 0.02 + LIFT_HEIGHT
            return bool(lifted) and self.grasped(sim, "needle")
        return all(self.predicates(sim).values())

    def failure(self, sim: Simulation, stage: int) -> str:
        if self.off_table(sim, self.objects):
            return "object off the table"
        if not self.upright(sim, "tripod", TOPPLED_COSINE):
            return "tripod toppled"
        if stage == 1 and self.height(sim, "needle") < DROPPED_HEIGHT:
            return "needle dropped"
        return ""

    @classmethod
    def recipe(cls, rng: np.random.Generator) -> list[Keyframe]:
        """Take the handle from above, line the tip up with the ring, push.

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

        def shaft_at(x: float, offset=(0.0, 0.0)) -> Array:
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
