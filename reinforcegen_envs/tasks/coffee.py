"""Coffee: put a pod into the holder of a coffee machine and shut its lid.

Frames, sizes, masses, reset ranges and the reference check follow MimicGen's Coffee task, rebuilt from their numbers.
"""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numba
import numpy as np

from reinforcegen_envs.models.coffee import (
    HOLDER_HALF_HEIGHT,
    HOLDER_OUTER_RADIUS,
    HOLDER_POSITION,
    LID_HALF_HEIGHT,
    LID_JOINT,
    LID_OPEN,
    MACHINE_HALF_HEIGHT,
    POD,
    POD_HALF_HEIGHT,
    POD_IN_HOLDER,
    POD_RADIUS,
    machine,
)
from reinforcegen_envs.models.scene import Scene
from reinforcegen_envs.poses import matrix_from, rotation, translation
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks.base import Placement, Seat, Shape, Stage, Symmetry, Task
from reinforcegen_envs.tasks.checks import mask_of, slow, touching
from reinforcegen_envs.tasks.recipe import CLOSE, Keyframe, hand_down
from reinforcegen_envs.typing import Array

PI = float(np.pi)

REFERENCE_HINGE = float(np.deg2rad(15))  # MimicGen: a lid opened less counts as shut
REFERENCE_RADIUS = HOLDER_OUTER_RADIUS - POD_RADIUS  # MimicGen: pod axis to holder axis, metres
# Ours, for strict success and for failures:
SHUT_HINGE = float(np.deg2rad(5))
UPRIGHT_COSINE = float(np.cos(np.deg2rad(15)))
TOPPLED_COSINE = float(np.cos(np.deg2rad(45)))
REST_SPEED = 0.05  # metres a second, of pod and machine
REST_HINGE_SPEED = 0.5  # radians a second, of the lid
LIFT_HEIGHT = 0.03  # metres that a grasped pod must have left the table
DROPPED_HEIGHT = 0.036  # pod root this near above the table, or lower, while it should be carried: dropped
FINGER_TIP = (0.0125, 0.011)  # metres from the grip site to the finger tips' end, and half their width


@numba.njit(cache=True)
def _in_holder(xpos, pod, holder, lid):
    """MimicGen's check: within the holder's wall, not below its floor, not above the lid's underside."""
    return (
        np.hypot(xpos[pod, 0] - xpos[holder, 0], xpos[pod, 1] - xpos[holder, 1]) <= REFERENCE_RADIUS
        and xpos[pod, 2] - POD_HALF_HEIGHT >= xpos[holder, 2] - HOLDER_HALF_HEIGHT
        and xpos[pod, 2] + POD_HALF_HEIGHT <= xpos[lid, 2] - LID_HALF_HEIGHT
    )


class CoffeeMachineTask(Task):
    """What the tasks with a coffee machine share: reading pod, holder and lid.

    Success:
        lid_shut: the hinge is within 5 degrees of shut; MimicGen's check allows 15
        pod_in_holder: MimicGen's check: the pod's axis is within 5.2 mm of the holder's, its bottom above the
            holder's floor and its top under the lid
        pod_upright: the pod leans less than 15 degrees
        pod_released: no part of the robot touches the pod
        machine_upright: the machine leans less than 15 degrees
        at_rest: pod and machine move slower than 5 cm/s along every axis, the lid slower than 0.5 rad/s

    Ours:
        The predicates that are not MimicGen's and their tolerances, the failures and the stages' horizons. MimicGen's
        machine and pod are meshes; ours are primitives, 56 geoms in Coffee's scene where MimicGen's has 420. Exact
        are the holder's inner radius (24.97 mm), rim and floor, the pod's flange, height and mass, and the lid's
        hinge, underside and size. The holder's wall is 20 boxes, not 64, whose corners stand 0.3 mm further out; the
        machine's body is four nested boxes; the cup under the holder is solid; the pod is five stacked cylinders; the
        margin of the holder's floor is 0.6 mm, not 1 mm, so that a pod rests 7.7 mm above the holder's centre, as on
        the mesh. A lid let go at 1.55 rad falls shut, at 1.65 rad open.
    """

    joints: ClassVar = {LID_JOINT: LID_OPEN}
    seats: ClassVar = {"coffee_pod": Seat("coffee_machine", tuple(POD_IN_HOLDER), slack=0.003)}

    def __init__(self, model: mujoco.MjModel):
        super().__init__(model)
        self._holder = model.body("coffee_machine_pod_holder").id
        self._lid = model.body("coffee_machine_lid").id
        lid_joint = model.joint(LID_JOINT)
        self._lid_qpos, self._lid_dof = int(lid_joint.qposadr[0]), int(lid_joint.dofadr[0])
        self._robot_mask = mask_of(model, "gripper0", "robot0")

    def hinge(self, sim: Simulation) -> float:
        """Opening of the lid, radians."""
        return float(sim.data.qpos[self._lid_qpos])

    def pod_in_holder(self, sim: Simulation) -> bool:
        """MimicGen's check: within the holder's wall, not below its floor, not above the lid's underside."""
        return _in_holder(sim.data.xpos, self.object_body["coffee_pod"], self._holder, self._lid)

    def touched(self, sim: Simulation, name: str) -> bool:
        """Whether any part of the robot touches the object."""
        return touching(sim.data.contact.geom, self._robot_mask, self.object_mask[name])

    def slow(self, sim: Simulation, *names: str) -> bool:
        """Whether objects move slower than `REST_SPEED` along every axis."""
        qvel = sim.data.qvel
        return all(slow(qvel, self.object_dof[name], REST_SPEED, np.inf) for name in names)

    def brewing_reference(self, sim: Simulation) -> bool:
        """MimicGen's check of Coffee: lid shut to 15 degrees, pod in the holder."""
        return self.hinge(sim) < REFERENCE_HINGE and self.pod_in_holder(sim)

    def brewing_predicates(self, sim: Simulation) -> dict[str, bool]:
        """Strict conditions on pod, holder and lid."""
        return {
            "lid_shut": self.hinge(sim) < SHUT_HINGE,
            "pod_in_holder": self.pod_in_holder(sim),
            "pod_upright": self.upright(sim, "coffee_pod", UPRIGHT_COSINE),
            "pod_released": not self.touched(sim, "coffee_pod"),
            "machine_upright": self.upright(sim, "coffee_machine", UPRIGHT_COSINE),
            "at_rest": self.slow(sim, "coffee_pod", "coffee_machine")
            and abs(float(sim.data.qvel[self._lid_dof])) < REST_HINGE_SPEED,
        }


class CoffeeTask(CoffeeMachineTask):
    """Pick up a coffee pod, let it into the holder of a coffee machine and push the machine's lid shut.

    Frames, sizes, masses, reset ranges and the reference check are MimicGen's Coffee, rebuilt from their numbers. The
    pod's flange leaves 0.7 mm to the holder's wall. The lid starts open.

    Stages:
        grasp: reach the pod's flange, close, lift; finished when both pads touch the pod and it is 3 cm off the table
        insert: lower the pod, let go, reach over the open lid, push it shut; finished with strict success

    Reference:
        It is ``pod_in_holder`` and a hinge below 15 degrees. It also counts a lid that is not quite shut, a pod put in
        upside down, and one that passes at speed; strict success does not.

    Failure:
        An object is off the table, the machine leans by more than 45 degrees, or the pod is dropped while it should
        be carried.

    Resets:
        The machine is worked on in its plane of symmetry, fingers closing across it, in one of two ways half a turn
        apart: one suits machines that face away from the robot (D0, D1), the other those that face it (D2). The
        source demonstrations hold both. In some of D2's resets the opened hand starts next to the machine, or touches
        it. That is in the ranges, so it stays; the planner first backs the hand out.

    Version history:
        v0: first version.
    """

    name = "Coffee"
    # Without multiccd, with which its demonstrations were recorded, 3 of them do not replay (ours, measured).
    scene = Scene("coffee", (machine(cup=True), POD), multiccd=True)
    objects = ("coffee_pod", "coffee_machine")
    symmetries = {"coffee_pod": Symmetry(0)}
    shapes = {
        "coffee_machine": Shape(MACHINE_HALF_HEIGHT, 0.15805),
        "coffee_pod": Shape(POD_HALF_HEIGHT, POD_RADIUS),
    }
    # In the order of placement.
    variants = {
        "D0": {
            "coffee_machine": Placement((0.0, 0.0), (-0.1, -0.1), (-PI / 6, -PI / 6)),
            "coffee_pod": Placement((-0.13, -0.07), (0.17, 0.23), (0.0, 0.0)),
        },
        "D1": {
            "coffee_machine": Placement((0.05, 0.15), (-0.2, -0.1), (-PI / 6, PI / 3)),
            "coffee_pod": Placement((-0.2, 0.05), (0.17, 0.3), (0.0, 0.0)),
        },
        "D2": {
            "coffee_machine": Placement((-0.05, 0.05), (0.1, 0.2), (2 * PI / 3, 7 * PI / 6)),
            "coffee_pod": Placement((-0.2, 0.05), (-0.3, -0.17), (0.0, 0.0)),
        },
    }
    stages = (
        Stage("grasp", "coffee_pod", None, 100, "grasp", skill_radius=0.09, end_offset=10),
        Stage("insert", "coffee_machine", "coffee_pod", 200, None, skill_radius=0.1, end_offset=0),
    )
    horizon = 400
    reference_speed = 105.0

    def reference_success(self, sim: Simulation) -> bool:
        return self.brewing_reference(sim)

    def predicates(self, sim: Simulation) -> dict[str, bool]:
        return self.brewing_predicates(sim)

    def stage_done(self, sim: Simulation, stage: int) -> bool:
        if stage == 0:
            lifted = self.height(sim, "coffee_pod") > POD_HALF_HEIGHT + LIFT_HEIGHT
            return lifted and self.grasped(sim, "coffee_pod")
        return all(self.predicates(sim).values())

    def failure(self, sim: Simulation, stage: int) -> str:
        if self.off_table(sim, self.objects):
            return "object off the table"
        if not self.upright(sim, "coffee_machine", TOPPLED_COSINE):
            return "machine toppled"
        if stage == 1 and self.height(sim, "coffee_pod") < DROPPED_HEIGHT:
            return "pod dropped"
        return ""

    @classmethod
    def recipe(cls, rng: np.random.Generator) -> list[Keyframe]:
        """Take the pod by its flange, let it into the holder, push the lid shut.

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


# --- the scripted teleoperator ---


def grasp_pod(rng: np.random.Generator, stage: int, grasp: Array, pace: float, lift: float) -> list[Keyframe]:
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


def brew(rng: np.random.Generator, stage: int, grasp: Array, lean: float, yaw: float, pace: float) -> list[Keyframe]:
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

    def pod_at(z: float, offset=(0.0, 0.0)) -> Array:
        """Pod pose in the machine's frame, its centre ``z`` over the rim."""
        return matrix_from(turn, rim + np.array([*offset, z]))

    def hand_at(y: float, z: float) -> Array:
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
