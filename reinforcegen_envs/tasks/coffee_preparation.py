"""Coffee Preparation: a mug onto the machine, the lid open, a pod out of a drawer, into the holder, the lid shut.

Frames, sizes, masses, reset ranges of D0 and D1 and the reference check follow MimicGen's, rebuilt from their numbers; D2 is
ours: of MimicGen's is only known that drawer and mug stand at opposite ends of the table, very unlike the demonstrations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import mujoco
import numpy as np

from reinforcegen_envs.models.coffee import (
    CABINET,
    DRAWER_JOINT,
    HANDLE,
    LID_HALF_HEIGHT,
    LID_HALF_LENGTH,
    LID_JOINT,
    LID_POSITION,
    MACHINE_HALF_HEIGHT,
    MUG,
    MUG_AXIS,
    MUG_GRIP,
    MUG_HALF_HEIGHT,
    MUG_ON_PLATE,
    MUG_RIM,
    MUG_WALL_RADIUS,
    POD,
    POD_HALF_HEIGHT,
    POD_RADIUS,
    TRAY_FLOOR,
    TRAY_FLOOR_HALF,
    TRAY_POSITION,
    machine,
)
from reinforcegen_envs.models.scene import FRONT, Scene
from reinforcegen_envs.poses import from_pose7, invert, matrix_from, rotation, to_pose7, translation
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks.base import BASE_X, MAX_PLACEMENT_TRIES, Placement, PlacementError, Shape, Stage, Symmetry
from reinforcegen_envs.tasks.checks import touching
from reinforcegen_envs.tasks.coffee import (
    FINGER_TIP,
    LIFT_HEIGHT,
    TOPPLED_COSINE,
    CoffeeMachineTask,
    brew,
    grasp_pod,
)
from reinforcegen_envs.tasks.recipe import CLOSE, Keyframe, hand_down
from reinforcegen_envs.typing import Array

PI = float(np.pi)
# Of the layouts of D2 (ours): how far from the robot's base axis the sources' hand can take a mug's handle, and half the
# width and the depth, in the machine's frame, of where the hand would touch the machine's front; metres.
HANDLE_REACH = 0.73
MACHINE_FRONT = (0.10, 0.21)
MUG_COSINE = 1.0 - 1e-3  # MimicGen: a placed mug leans less than 2.6 degrees
LID_OPENED = 2.08  # MimicGen: radians of a lid that counts as open
PLATE_TOLERANCE = 0.003  # ours: metres that the mug's root may be higher or lower than on the plate
DRAWER_OPENED = -0.19  # MimicGen: metres of the slide
TRAY_HEIGHT = float((TRAY_POSITION + TRAY_FLOOR)[2]) + TRAY_FLOOR_HALF[2]  # of its floor, over the cabinet's origin
CABINET_HEIGHT = 0.005  # of the cabinet's origin over the table
# Of the scripted teleoperator:
MACHINE = "coffee_machine"
# Directions in which the hand leans back when it takes the mug, radians; the handle is free from 36 to 324 degrees.
PALMS = np.deg2rad(36.0 + 32.0 * np.arange(10))
EDGE_X = 0.0145  # metres, in the machine's frame, of where the fingers lift the lid's edge
OUTSIDE = (
    0.8  # part of the edge's way towards the hinge that they go with it: inside its circle they would push the machine
)
FINGERS_HALF = 0.0153  # metres: half the width of the closed finger tips, along the closing axis
HANDLE_ASIDE = 0.012  # metres in front of the drawer's handle that the open hand comes down


class CoffeePreparationTask(CoffeeMachineTask):
    """Put a mug on a coffee machine, then a pod out of a drawer into its holder, and shut the lid.

    Frames, sizes, masses, the reset ranges of D0 and D1 and the reference check are MimicGen's Coffee Preparation,
    rebuilt from their numbers. Drawer and lid start shut; the pod lies in the drawer. The drawer need not be shut in
    the end; it opens by 0.198 m, until the tray meets the cabinet's posts.

    Stages:
        mug_grasp: take the mug, by its rim or its handle, lift; finished when both pads touch it and it is 3 cm off the table
        mug_place: put the mug on the machine's base plate, let go, open the lid; finished when the mug is placed and
            not touched, and the lid is open by more than 2.08 rad
        drawer_open: pull the drawer by its handle, let go; finished when it is more than 19 cm open and not touched
        pod_grasp: take the pod, lift; finished when both pads touch it and it is 3 cm above where it lay
        insert: lower the pod into the holder, let go, push the lid shut; finished with strict success

    Success:
        mug_placed: MimicGen's check: the mug leans less than 2.6 degrees and touches the machine's base plate,
            anywhere on it
        mug_on_plate: the mug is as high as on the plate, to 3 mm
        mug_released: no part of the robot touches the mug, and it moves slower than 5 cm/s along every axis

    Reference:
        It is ``pod_in_holder``, a hinge below 15 degrees and ``mug_placed``. It also counts a lid that is not quite shut,
        a pod put in upside down, a mug still held and one that stands on the table against the plate; strict success does
        not.

    Failure:
        An object is off the table, machine or mug lean by more than 45 degrees, the mug leaves the plate after its
        stage, or the pod is dropped while it should be carried.

    Resets:
        The pod's x and y are relative to the middle of the drawer's floor and turn with the drawer. **D2 is our
        definition**: MimicGen never had one and SkillGen's was not published; known is that drawer and mug stand at
        opposite ends of the table. The drawer is mirrored to the other end and the mug to its
        end; the machine is D1's, less yaws and places where its lid is hard to reach. The mug's x leaves out the
        machine's front and the arm's limit, where its handle cannot be gripped, and a layout is drawn again when the
        handle is more than 0.73 m from the robot's base axis, or in front of the machine where the hand would touch it.
        The source demonstrations take the mug by its rim, at ten angles round it, and reach all of that; the ranges were
        drawn for hands that take the handle, and are kept.

    Version history:
        v0: first version.
    """

    name = "CoffeePreparation"
    joints: ClassVar = {LID_JOINT: 0.0, DRAWER_JOINT: 0.0}
    # The slide's range is a metre; at 0.198 m the tray meets the cabinet's posts.
    joint_stops: ClassVar = {DRAWER_JOINT: (-0.2, 0.0)}
    # Base policies that were trained with multiccd leave the pod in the drawer without: D0 0.45 instead of 0.91 (ours, measured).
    scene = Scene(
        "coffee_preparation", (MUG, machine(cup=False), CABINET, POD), front=replace(FRONT, fovy=48.0), multiccd=True
    )
    objects = ("mug", "coffee_machine", "drawer", "coffee_pod")
    symmetries = {"coffee_pod": Symmetry(0)}
    shapes = {
        "drawer": Shape(CABINET_HEIGHT, 0.15),
        "coffee_machine": Shape(MACHINE_HALF_HEIGHT, 0.14782),
        "mug": Shape(MUG_HALF_HEIGHT + 0.02, 0.03531),
        "coffee_pod": Shape(POD_HALF_HEIGHT, POD_RADIUS),
    }
    # In the order of placement; the pod's is relative to the middle of the tray's floor and turns with the drawer.
    _POD = Placement((-0.03, 0.03), (-0.05, 0.03), (0.0, 0.0))
    variants = {
        "D0": {
            "drawer": Placement((0.15, 0.15), (-0.35, -0.35), (PI, PI)),
            "coffee_machine": Placement((-0.15, -0.15), (-0.25, -0.25), (-PI / 6, -PI / 6)),
            "mug": Placement((0.05, 0.2), (0.05, 0.25), (0.0, 0.0)),
            "coffee_pod": _POD,
        },
        "D1": {
            "drawer": Placement((0.15, 0.15), (-0.35, -0.35), (PI, PI)),
            "coffee_machine": Placement((-0.25, -0.15), (-0.3, -0.25), (-PI / 6, PI / 6)),
            "mug": Placement((-0.15, 0.2), (0.05, 0.25), (0.0, 2 * PI)),
            "coffee_pod": _POD,
        },
        # Ours: MimicGen never published it; known is that drawer and mug stand at opposite ends of the table. The drawer
        # is mirrored to the other end and the mug to its end. The machine is D1's, less what hands that open its lid
        # hardly reach: turned by more than 15 degrees towards the robot's left (of such layouts half), or nearer than
        # x = -0.23. The mug's x leaves out the machine's front (below -0.05), where a handle that points at it cannot be
        # gripped, and the arm's limit (above 0.15).
        "D2": {
            "drawer": Placement((0.15, 0.15), (0.35, 0.35), (0.0, 0.0)),
            "coffee_machine": Placement((-0.23, -0.15), (-0.3, -0.25), (-PI / 6, PI / 12)),
            "mug": Placement((-0.05, 0.15), (-0.25, -0.05), (0.0, 2 * PI)),
            "coffee_pod": _POD,
        },
    }
    stages = (
        Stage("mug_grasp", "mug", None, 140, "mug_grasp", skill_radius=0.09, end_offset=10),
        Stage("mug_place", "coffee_machine", "mug", 200, "mug_place", skill_radius=0.1, end_offset=10),
        Stage("drawer_open", "drawer", None, 150, "drawer_open", skill_radius=0.1, end_offset=10, new_source=True),
        Stage("pod_grasp", "coffee_pod", None, 100, "pod_grasp", skill_radius=0.09, end_offset=10, new_source=True),
        Stage("insert", "coffee_machine", "coffee_pod", 200, None, skill_radius=0.1, end_offset=0),
    )
    horizon = 800
    camera = "agentview_full"
    reference_speed = 80.0
    styles = len(PALMS)

    def __init__(self, model: mujoco.MjModel):
        super().__init__(model)
        self._drawer_qpos = int(model.joint(DRAWER_JOINT).qposadr[0])
        self._plate_mask = np.zeros(model.ngeom, bool)
        self._plate_mask[[model.geom(f"coffee_machine_{part}").id for part in ("base", "base_front")]] = True

    def sample_layout(self, variant: str, rng: np.random.Generator) -> dict[str, Array]:
        """Draw a layout; D2's as a whole, again and again until a hand has room for the mug's handle.

        Raises:
            PlacementError: none found in 5000 tries.
        """
        places = dict(self.variants[variant])
        pod = places.pop("coffee_pod")
        for _ in range(MAX_PLACEMENT_TRIES):
            layout = self.place_apart(places, variant, rng)
            if variant != "D2" or self._handle_free(layout):
                break
        else:
            raise PlacementError(f"no mug within reach in {variant} after {MAX_PLACEMENT_TRIES} tries")
        x, y = rng.uniform(*pod.x), rng.uniform(*pod.y)
        on_tray = TRAY_POSITION + TRAY_FLOOR + [x, y, 0.0]
        on_tray[2] = TRAY_HEIGHT + POD_HALF_HEIGHT + 0.001
        layout["coffee_pod"] = to_pose7(from_pose7(layout["drawer"]) @ translation(*on_tray))
        return layout

    def put(self, fixed: Mapping[str, Array], layout: dict[str, Array]) -> dict[str, Array]:
        after = super().put(fixed, layout)
        if "coffee_pod" not in fixed:  # it stays where it is in the drawer
            in_drawer = invert(from_pose7(layout["drawer"])) @ from_pose7(layout["coffee_pod"])
            after["coffee_pod"] = to_pose7(from_pose7(after["drawer"]) @ in_drawer)
        return after

    def overlap(self, layout: Mapping[str, Array], first: str, second: str) -> bool:
        return {first, second} != {"drawer", "coffee_pod"} and super().overlap(layout, first, second)

    def _handle_free(self, layout: dict[str, Array]) -> bool:
        """Whether the mug's handle is within reach, and not so near to the machine's front that a hand would touch it."""
        handle = from_pose7(layout["mug"]) @ translation(*MUG_GRIP)
        x, y = (invert(from_pose7(layout["coffee_machine"])) @ handle)[:2, 3]
        near_front = abs(x) < MACHINE_FRONT[0] and y < MACHINE_FRONT[1]
        return not near_front and bool(np.hypot(handle[0, 3] - BASE_X, handle[1, 3]) <= HANDLE_REACH)

    def drawer(self, sim: Simulation) -> float:
        """Position of the drawer's slide, metres; negative is open."""
        return float(sim.data.qpos[self._drawer_qpos])

    def mug_placed(self, sim: Simulation) -> bool:
        """MimicGen's check: upright, and touching the machine's base plate anywhere."""
        return self.upright(sim, "mug", MUG_COSINE) and touching(
            sim.data.contact.geom, self.object_mask["mug"], self._plate_mask
        )

    def mug_on_plate(self, sim: Simulation) -> bool:
        """Whether the mug is as high as on the plate; MimicGen's check counts one that stands on the table and touches it."""
        mug, machine = (sim.data.xpos[self.object_body[name], 2] for name in ("mug", "coffee_machine"))
        return bool(abs(mug - machine - MUG_ON_PLATE) < PLATE_TOLERANCE)

    def reference_success(self, sim: Simulation) -> bool:
        return self.brewing_reference(sim) and self.mug_placed(sim)

    def looks_done(self, sim: Simulation) -> bool:
        # Whether the mug touches the plate cannot be seen; its stage was before.
        return self.brewing_reference(sim)

    def predicates(self, sim: Simulation) -> dict[str, bool]:
        return {
            **self.brewing_predicates(sim),
            "mug_placed": self.mug_placed(sim),
            "mug_on_plate": self.mug_on_plate(sim),
            "mug_released": not self.touched(sim, "mug") and self.slow(sim, "mug"),
        }

    def stage_done(self, sim: Simulation, stage: int) -> bool:
        if stage == 0:
            return self.height(sim, "mug") > MUG_HALF_HEIGHT + LIFT_HEIGHT and self.grasped(sim, "mug")
        if stage == 1:
            placed = self.mug_placed(sim) and self.mug_on_plate(sim) and not self.touched(sim, "mug")
            return placed and self.hinge(sim) > LID_OPENED
        if stage == 2:
            return self.drawer(sim) < DRAWER_OPENED and not self.touched(sim, "drawer")
        if stage == 3:
            clear = CABINET_HEIGHT + TRAY_HEIGHT + POD_HALF_HEIGHT + LIFT_HEIGHT
            return self.height(sim, "coffee_pod") > clear and self.grasped(sim, "coffee_pod")
        return all(self.predicates(sim).values())

    def failure(self, sim: Simulation, stage: int) -> str:
        if self.off_table(sim, ("mug", "coffee_machine", "coffee_pod")):
            return "object off the table"
        if not self.upright(sim, "coffee_machine", TOPPLED_COSINE):
            return "machine toppled"
        if not self.upright(sim, "mug", TOPPLED_COSINE):
            return "mug toppled"
        if stage >= 2 and self.height(sim, "mug") < MUG_HALF_HEIGHT + PLATE_TOLERANCE:
            return "mug off the plate"
        if stage == 4 and self.height(sim, "coffee_pod") < POD_HALF_HEIGHT + 0.013:
            return "pod dropped"
        return ""

    @classmethod
    def recipe(cls, rng: np.random.Generator, style: int = 0) -> list[Keyframe]:
        """Mug by its rim onto the plate, lid open, drawer open, and then as in Coffee.

        The mug is taken at any angle round it that leaves its handle free, so that one of several demonstrations reaches a mug
        that is turned any way; at the machine the hand is always in front, in its plane of symmetry, whatever the mug's yaw.
        """
        pace = rng.uniform(1.0, 1.2)
        lean = rng.uniform(0.55, 0.6)
        palm = PALMS[style] + rng.uniform(-0.1, 0.1)
        mug = at_rim(palm, lean, rng.uniform(0.0005, 0.0015), rng.uniform(0.0035, 0.0045))

        turned = rng.random() < 0.5  # of the two ways to take the drawer's handle
        across = rng.random() < 0.5  # of the two ways over the machine
        tilt = rng.uniform(0.1, 0.2) if across else -rng.uniform(0.0, 0.1)
        angle = rng.uniform(0.0, 0.8) + (np.pi if across else 0.0)  # of the closing axis in the pod's frame
        over = (0.0 if across else np.pi) + rng.uniform(-0.08, 0.08)  # of the closing axis over the machine
        pod = matrix_from(
            hand_down(angle, tilt), np.array([*rng.normal(0, 0.001, 2), 0.021 + rng.uniform(-0.001, 0.001)])
        )
        return [
            *grasp_mug(rng, 0, mug, pace),
            *set_down(rng, 1, mug, palm, pace),
            *open_lid(rng, 1, pace),
            *pull_drawer(rng, 2, turned, pace),
            *grasp_pod(rng, 3, pod, pace, lift=rng.uniform(0.09, 0.1)),
            *brew(rng, 4, pod, tilt, over - angle, pace),
        ]


# --- the scripted teleoperator ---


def at_rim(palm: float, lean: float, out: float, depth: float) -> Array:
    """(4, 4) hand in the mug's frame that has the mug's wall between its fingers, one in the cup.

    Args:
        palm: direction, about the mug's axis, in which the hand leans back from straight down, radians; it takes the wall a
            quarter turn on, so that it leans along the wall.
        lean: radians.
        out: metres that the middle between the fingers is farther out than the middle of the wall.
        depth: metres of the grip site under the rim.
    """
    side = palm + np.pi / 2
    radius = MUG_WALL_RADIUS + out
    return matrix_from(
        hand_down(side, lean),
        np.array([radius * np.cos(side), MUG_AXIS + radius * np.sin(side), MUG_RIM - depth]),
    )


def grasp_mug(rng: np.random.Generator, stage: int, grasp: Array, pace: float) -> list[Keyframe]:
    """Take the mug and lift it. ``grasp`` is the hand in the mug's frame."""
    wobble = rotation(rng.normal(0.0, 0.03, 3))
    above = translation(rng.normal(0, 0.003), rng.normal(0, 0.003), 0.035) @ grasp @ wobble
    return [
        Keyframe(stage, "mug", translation(0, 0, 0.06) @ above, skill=False, speed=0.03 * pace, tolerance=(0.03, 0.3)),
        Keyframe(stage, "mug", above, skill=False, speed=0.022 * pace, tolerance=(0.012, 0.12)),
        Keyframe(stage, "mug", translation(0, 0, 0.016) @ grasp, speed=0.010 * pace, tolerance=(0.005, 0.08)),
        Keyframe(stage, "mug", grasp, speed=0.008 * pace, tolerance=(0.003, 0.05)),
        Keyframe(stage, "mug", grasp, gripper=CLOSE, dwell=int(rng.integers(9, 12)), track_frame=False),
        Keyframe(
            stage,
            "mug",
            translation(0, 0, rng.uniform(0.06, 0.075)) @ grasp,
            gripper=CLOSE,
            speed=0.010 * pace,
            tolerance=(0.012, 0.1),
            track_frame=False,
        ),
    ]


def set_down(rng: np.random.Generator, stage: int, grasp: Array, palm: float, pace: float) -> list[Keyframe]:
    """Put the mug on the front of the base plate, where the holder and the lid leave room for the hand, and let go.

    Args:
        rng, stage, pace: as elsewhere.
        grasp: the hand in the mug's frame.
        palm: direction in which it leans, see `at_rim`; at the machine that is straight to the front.
    """
    axis = np.array([rng.normal(0, 0.002), rng.uniform(0.136, 0.14)])
    turn = rotation([0.0, 0.0, np.pi / 2 - palm + rng.uniform(-0.08, 0.08)])

    def mug_at(z: float, out: float = 0.0) -> Array:
        """Mug pose in the machine's frame, ``z`` metres over its place and ``out`` metres in front of it."""
        return translation(axis[0], axis[1] + out, MUG_ON_PLATE + z) @ turn @ translation(0, -MUG_AXIS, 0)

    down = mug_at(0.0)
    carry = {"gripper": CLOSE, "tool": "mug"}
    before = mug_at(0.05, 0.06) @ rotation(rng.normal(0, 0.04, 3))
    return [
        Keyframe(
            stage,
            MACHINE,
            translation(0, 0.03, 0.08) @ before,
            skill=False,
            speed=0.03 * pace,
            tolerance=(0.03, 0.3),
            **carry,
        ),
        Keyframe(stage, MACHINE, before, skill=False, speed=0.022 * pace, tolerance=(0.012, 0.1), **carry),
        Keyframe(stage, MACHINE, mug_at(0.02, 0.01), speed=0.010 * pace, tolerance=(0.006, 0.06), **carry),
        Keyframe(stage, MACHINE, mug_at(0.001), speed=0.006 * pace, tolerance=(0.0035, 0.04), **carry),
        Keyframe(stage, MACHINE, down @ grasp, dwell=int(rng.integers(7, 9)), tolerance=(0.01, 0.1)),
        Keyframe(
            stage, MACHINE, translation(0, 0.035, 0.06) @ down @ grasp, speed=0.014 * pace, tolerance=(0.015, 0.1)
        ),
    ]


def open_lid(rng: np.random.Generator, stage: int, pace: float) -> list[Keyframe]:
    """Lift the lid's front edge on closed finger tips that point in under it, and push it over.

    The fingers are flat enough for the edge to lie still on them, by friction, until the lid leans as they do; from then on their
    tips bear on its underside. So they follow circles about the hinge, and next to no force is left that could move the machine.
    Their upper face holds the hinge's direction: the lid's torsional friction, about the contact's normal, would stop the hinge.
    """
    lean = rng.uniform(0.98, 1.03)  # the palm is out in front of the machine; with less, the edge slides on the fingers
    askew = rng.uniform(0.44, 0.52)  # else the wrist of a robot beside the machine has no room
    approach = rotation([0.0, 0.0, -askew])[:3, :3] @ np.array([0.0, -np.sin(lean), -np.cos(lean)])
    upper = np.array([0.0, approach[2], -approach[1]]) / np.hypot(approach[1], approach[2])
    closing = np.cross(-upper, approach)
    hand = np.stack([closing, -upper, approach], axis=1)
    flush = np.arctan2(-upper[1], upper[2])
    reach = rng.uniform(0.016, 0.017)  # metres of finger beyond the edge, beside the holder
    edge = np.array([EDGE_X + rng.normal(0, 0.001), 2 * LID_HALF_LENGTH, -LID_HALF_HEIGHT])  # over the hinge's middle
    hinge = LID_POSITION + np.array([0.0, -LID_HALF_LENGTH, 0.0])
    start = hinge + edge + (reach - FINGER_TIP[0]) * approach - FINGER_TIP[1] * upper
    tip = edge - np.array([0.0, reach * abs(approach[1]) + FINGERS_HALF * abs(closing[1]), 0.0])

    def moved(angle: float, point: Array) -> Array:
        """Where a point of the lid is, over the hinge's middle, when it is open by ``angle`` radians."""
        return rotation([angle, 0.0, 0.0])[:3, :3] @ point

    def fingers_at(angle: float, offset: tuple[float, float] = (0.0, 0.0)) -> Array:
        """Grip-site pose, in the machine's frame, that bears a lid that is open by ``angle``; ``offset`` metres along y and z."""
        place = start + (moved(min(angle, flush), edge) - edge) * [1.0, OUTSIDE, 1.0]
        if angle > flush:
            place = place + moved(angle, tip) - moved(flush, tip)
        return matrix_from(hand, place + np.array([0.0, *offset]))

    lift = {"gripper": CLOSE, "speed": 0.012 * pace, "tolerance": (0.012, 0.12)}
    opened = rng.uniform(1.85, 1.95)
    return [
        Keyframe(
            stage, MACHINE, fingers_at(0.0, (0.04, -0.032)), speed=0.02 * pace, gripper=CLOSE, tolerance=(0.015, 0.15)
        ),
        Keyframe(
            stage,
            MACHINE,
            fingers_at(0.0, (0.0, -0.013)),
            speed=0.012 * pace,
            gripper=CLOSE,
            tolerance=(0.0025, 0.06),
            dwell=2,
        ),
        *(Keyframe(stage, MACHINE, fingers_at(angle), **lift) for angle in (0.15, 0.4, 0.7, 1.0, 1.35, 1.65)),
        Keyframe(stage, MACHINE, fingers_at(opened), dwell=3, **lift),
        Keyframe(
            stage,
            MACHINE,
            fingers_at(opened, (0.05, 0.04)),
            speed=0.02 * pace,
            gripper=CLOSE,
            tolerance=(0.02, 0.2),
            dwell=8,
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
        Keyframe(stage, drawer, translation(0, 0, 0.12) @ above, skill=False, speed=0.03 * pace, tolerance=(0.03, 0.3)),
        Keyframe(stage, drawer, above, skill=False, speed=0.022 * pace, tolerance=(0.012, 0.12)),
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
