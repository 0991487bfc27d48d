r"""A task of one's own in one file: stack a cube on another, MimicGen's Stack rebuilt from its numbers.

Collect source demonstrations, multiply them, clone base policies, evaluate them (in the folder of this file; with two cores
about three minutes in all: 93.5% of 600 episodes succeeded, 95% interval 91.2 to 95.2):

    python -m reinforcegen_envs.demos.collect --task-module own_task --task Stack --variant D0 --out stack.hdf5
    python -m reinforcegen_envs.demos.generate --task-module own_task --task Stack --variant D0 --source stack.hdf5 \
        --count 600 --out stack_d0.hdf5
    python -m reinforcegen_envs.agents.bc --task-module own_task --data stack_d0.hdf5 --source stack.hdf5 --out weights_stack
    python -m reinforcegen_envs.evaluate --task-module own_task --env-id ReinforceGen/D0-Stack-Residual-v0 --policy base \
        --weights weights_stack --episodes 100 --seeds 6

In Python, ``import own_task`` registers the ids, ``gym.make("own_task:ReinforceGen/D0-Stack-v0")`` does both.
"""

from __future__ import annotations

import mujoco
import numpy as np

from reinforcegen_envs import register_task
from reinforcegen_envs.models.objects import Body, Geom
from reinforcegen_envs.models.scene import Scene
from reinforcegen_envs.poses import matrix_from, rotation, translation
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks import Placement, Shape, Stage, Task
from reinforcegen_envs.tasks.checks import mask_of, slow, touching
from reinforcegen_envs.tasks.recipe import CLOSE, Keyframe, hand_down

PI = float(np.pi)
HALF_A, HALF_B = 0.02, 0.025  # metres: half the edges of the cubes

REFERENCE_HEIGHT = 0.04  # MimicGen: metres of cubeA's centre above the table
# Ours, for strict success and for failures:
STACKED_OFFSET = 0.02  # metres between the cubes' axes
STACKED_TOLERANCE = 0.003  # metres of cubeA's height over cubeB
REST_SPEED, REST_SPIN = 0.05, 0.5  # metres and radians a second
LIFT_HEIGHT = 0.02  # metres that a grasped cube must have left the table
DROPPED_HEIGHT = 0.004  # cube this near above the table while it should be carried: dropped


def cube(name: str, half: float, material: str) -> Body:
    """A wooden cube; its frame is in its centre."""
    return Body(name, (Geom("box", (half, half, half)),), density=1000.0, material=material)


@register_task
class StackTask(Task):
    """Pick up a small cube and stack it on a larger one.

    Cubes, reset ranges and the reference check are MimicGen's Stack, rebuilt from their numbers. There is no D2.

    Stages:
        grasp: reach the small cube, close, lift; finished when both pads touch it and it is 2 cm off the table
        place: lower it onto the large cube, let go, withdraw; finished with strict success

    Success:
        on_cube: cubeA touches cubeB, its centre is more than 4 cm above the table, and it is not grasped; alone, this is
            MimicGen's check
        stacked: cubeA's centre is over cubeB's within 2 cm in the table's plane, and as high as on it within 3 mm
        released: no part of the gripper touches cubeA
        at_rest: both cubes move slower than 5 cm/s and turn slower than 0.5 rad/s about every axis

    Reference:
        It also counts a cube that leans on the other, is still touched, or falls; strict success does not.

    Failure:
        A cube is off the table, or cubeA is dropped while it should be carried.

    Ours:
        The predicates other than ``on_cube`` and their tolerances, the failures and the stages' horizons. Cubes start where
        they come to lie; MimicGen drops them by 1 cm.

    Version history:
        v0: first version.
    """

    name = "Stack"
    scene = Scene("stack", (cube("cubeA", HALF_A, "wood_red"), cube("cubeB", HALF_B, "wood_light")))
    objects = ("cubeA", "cubeB")
    shapes = {"cubeA": Shape(HALF_A, 2**0.5 * HALF_A), "cubeB": Shape(HALF_B, 2**0.5 * HALF_B)}
    variants = {
        "D0": dict.fromkeys(("cubeA", "cubeB"), Placement((-0.08, 0.08), (-0.08, 0.08), (0.0, 2 * PI))),
        "D1": dict.fromkeys(("cubeA", "cubeB"), Placement((-0.2, 0.2), (-0.2, 0.2), (0.0, 2 * PI))),
    }
    stages = (
        Stage("grasp", "cubeA", None, 100, "grasp", skill_radius=0.09, end_offset=16),
        Stage("place", "cubeB", "cubeA", 120, None, skill_radius=0.1, end_offset=0),
    )
    horizon = 400
    reference_speed = 186.0

    def __init__(self, model: mujoco.MjModel):
        super().__init__(model)
        self._gripper_mask = mask_of(model, "gripper0")

    def reference_success(self, sim: Simulation) -> bool:
        touch = touching(sim.data.contact.geom, self.object_mask["cubeA"], self.object_mask["cubeB"])
        return touch and self.height(sim, "cubeA") > REFERENCE_HEIGHT and not self.grasped(sim, "cubeA")

    def predicates(self, sim: Simulation) -> dict[str, bool]:
        x, y, z = sim.data.xpos[self.object_body["cubeA"]] - sim.data.xpos[self.object_body["cubeB"]]
        return {
            "on_cube": self.reference_success(sim),
            "stacked": bool(np.hypot(x, y) < STACKED_OFFSET and abs(z - HALF_A - HALF_B) < STACKED_TOLERANCE),
            "released": not touching(sim.data.contact.geom, self._gripper_mask, self.object_mask["cubeA"]),
            "at_rest": all(slow(sim.data.qvel, dof, REST_SPEED, REST_SPIN) for dof in self.object_dof.values()),
        }

    def stage_done(self, sim: Simulation, stage: int) -> bool:
        if stage == 0:
            return self.height(sim, "cubeA") > HALF_A + LIFT_HEIGHT and self.grasped(sim, "cubeA")
        return all(self.predicates(sim).values())

    def failure(self, sim: Simulation, stage: int) -> str:
        if self.off_table(sim, self.objects):
            return "object off the table"
        if stage == 1 and self.height(sim, "cubeA") < HALF_A + DROPPED_HEIGHT:
            return "cubeA dropped"
        return ""

    @classmethod
    def recipe(cls, rng: np.random.Generator) -> list[Keyframe]:
        """Take the small cube from above by two of its faces, lower it onto the large one with its faces along that one's.

        Cubes lie at any yaw, so not every way to take one is within reach everywhere: operators used the one that came handy.
        """
        pace = rng.uniform(0.8, 1.2)
        face, side = rng.integers(4, size=2) * PI / 2 + rng.normal(0.0, 0.03, 2)
        grasp = matrix_from(hand_down(face, rng.normal(0.0, 0.03)), rng.uniform(-0.003, 0.003, 3))
        x, y = rng.normal(0.0, 0.005, 2)  # metres by which the hand comes down beside its way
        before = translation(x, y, 0.08) @ grasp @ rotation(rng.normal(0.0, 0.03, 3))
        on = translation(0.0, 0.0, HALF_A + HALF_B) @ rotation([0.0, 0.0, side])
        over = translation(x, y, 0.07) @ on @ rotation(rng.normal(0.0, 0.04, 3))
        let_go = (
            translation(0.0, 0.0, 0.004) @ on
        )  # it falls the rest: pressed down, it hides from a policy when to open
        wait = int(rng.integers(6, 9))

        def take(pose: np.ndarray, speed: float, metres: float, **more) -> Keyframe:
            return Keyframe(0, "cubeA", pose, speed=speed * pace, tolerance=(metres, 0.1), **more)

        def put(pose: np.ndarray, speed: float, metres: float, **more) -> Keyframe:
            return Keyframe(1, "cubeB", pose, speed=speed * pace, tolerance=(metres, 0.1), **more)

        return [
            take(before, 0.016, 0.012, skill=False),
            take(translation(0, 0, 0.02) @ grasp, 0.01, 0.008),
            take(grasp, 0.006, 0.004),
            take(grasp, 0.006, 0.004, gripper=CLOSE, dwell=wait + 4, track_frame=False),
            take(translation(0, 0, 0.06) @ grasp, 0.009, 0.012, gripper=CLOSE, track_frame=False),
            put(over, 0.016, 0.012, tool="cubeA", gripper=CLOSE, skill=False),
            put(translation(0, 0, 0.02) @ on, 0.01, 0.004, tool="cubeA", gripper=CLOSE),
            put(let_go, 0.005, 0.002, tool="cubeA", gripper=CLOSE),
            put(let_go @ grasp, 0.005, 0.01, dwell=wait),
            put(translation(0, 0, 0.07) @ on @ grasp, 0.01, 0.012, dwell=12),
        ]
