"""Coffee Preparation: a mug onto the machine, the lid open, a pod out of a drawer, into the holder, the lid shut.

Frames, sizes, masses, reset ranges of D0 and D1 and the reference check follow MimicGen's, rebuilt from their numbers; D2 is
ours: of MimicGen's is only known that drawer and mug stand at opposite ends of the table, very unlike the demonstrations.
"""

from __future__ import annotations

from typing import ClassVar

import mujoco
import numpy as np

from reinforcegen_envs.models.coffee import (
    CABINET,
    DRAWER_JOINT,
    LID_JOINT,
    MACHINE_HALF_HEIGHT,
    MUG,
    MUG_GRIP,
    MUG_HALF_HEIGHT,
    MUG_ON_PLATE,
    POD,
    POD_HALF_HEIGHT,
    POD_RADIUS,
    TRAY_FLOOR,
    TRAY_FLOOR_HALF,
    TRAY_POSITION,
    machine,
)
from reinforcegen_envs.models.scene import Scene
from reinforcegen_envs.poses import from_pose7, invert, to_pose7, translation
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks.base import BASE_X, MAX_PLACEMENT_TRIES, Placement, PlacementError, Shape, Stage
from reinforcegen_envs.tasks.checks import touching
from reinforcegen_envs.tasks.coffee import LIFT_HEIGHT, TOPPLED_COSINE, CoffeeMachineTask

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


class CoffeePreparationTask(CoffeeMachineTask):
    """Put a mug on a coffee machine, then a pod out of a drawer into its holder, and shut the lid.

    Frames, sizes, masses, the reset ranges of D0 and D1 and the reference check are MimicGen's Coffee Preparation,
    rebuilt from their numbers. Drawer and lid start shut; the pod lies in the drawer. The drawer need not be shut in
    the end; it opens by 0.198 m, until the tray meets the cabinet's posts.

    Stages:
        mug_grasp: take the mug, lift; finished when both pads touch it and it is 3 cm off the table
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
        end; the machine is D1's, less what the hand hardly reaches when it opens the lid. The mug's x leaves out the
        machine's front and the arm's limit, where its handle cannot be gripped, and a layout is drawn again when the
        handle is more than 0.73 m from the robot's base axis, or in front of the machine where the hand would touch it.

    Version history:
        v0: first version.
    """

    name = "CoffeePreparation"
    interface = "MG_CoffeePreparation"
    joints: ClassVar = {LID_JOINT: 0.0, DRAWER_JOINT: 0.0}
    scene = Scene("coffee_preparation", (MUG, machine(cup=False), CABINET, POD))
    objects = ("mug", "coffee_machine", "drawer", "coffee_pod")
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

    def __init__(self, model: mujoco.MjModel):
        super().__init__(model)
        self._drawer_qpos = int(model.joint(DRAWER_JOINT).qposadr[0])
        self._plate_mask = np.zeros(model.ngeom, bool)
        self._plate_mask[[model.geom(f"coffee_machine_{part}").id for part in ("base", "base_front")]] = True

    def sample_layout(self, variant: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
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

    def _handle_free(self, layout: dict[str, np.ndarray]) -> bool:
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
        if min(self.height(sim, name) for name in self.objects if name != "drawer") < -0.05:
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
