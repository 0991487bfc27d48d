"""What Square and Nut Assembly share: when a nut is on its peg, and when a stage is finished or lost."""

from __future__ import annotations

import mujoco
import numpy as np

from reinforcegen_envs.models.nuts import NUT_HALF_THICKNESS, NUT_RADIUS, PEG_HEIGHT, TABLE_HEIGHT, Fit
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks.base import Shape, Stage, Task

# MimicGen's check: nut body this near to the peg in x and in y, this low, grip site this far from it (1 - tanh(10 d) < 0.6).
REFERENCE_OFFSET = 0.03
REFERENCE_HEIGHT = 0.05  # above the table
REFERENCE_HAND_DISTANCE = float(np.arctanh(0.4) / 10.0)
# Ours, for strict success, stages and failures:
FLAT_COSINE = float(np.cos(np.deg2rad(3)))
DOWN_TOLERANCE = 0.003  # metres between the nut's lower face and the table
HAND_DISTANCE = 0.09  # metres of the grip site from the nut's body; the handle's end is at 0.079
REST_SPEED, REST_SPIN = 0.02, 0.3  # metres, radians a second
LIFT_HEIGHT = 0.02  # metres that a grasped nut must have left the table
DROPPED_HEIGHT = 0.02  # nut this near above the table ...
DROPPED_DISTANCE = 0.05  # ... and this far from its peg while it should be carried or on it: dropped

NUT_SHAPE = Shape(NUT_HALF_THICKNESS, NUT_RADIUS)


def peg_shape(radius: float) -> Shape:
    """What the placement sampler knows of a peg."""
    return Shape(PEG_HEIGHT, radius)


def nut_stages(fit: Fit, name: str, last: bool) -> tuple[Stage, Stage]:
    """Grasp a nut, put it on its peg.

    Args:
        fit: nut and peg.
        name: what follows "grasp" and "insert" in the stages' names: "" or "_square_nut".
        last: whether the task is over with this.
    """
    signals = f"grasp{name}", None if last else f"insert{name}"
    return (
        # What was done with one nut has no bearing on how the next is taken.
        Stage(f"grasp{name}", fit.nut, None, 100, signals[0], skill_radius=0.09, end_offset=16, new_source=True),
        Stage(f"insert{name}", fit.peg, fit.nut, 130, signals[1], skill_radius=0.15, end_offset=0),
    )


class NutTask(Task):
    """Nuts on pegs; subclasses declare ``fits`` next to what every task declares, and stages are grasp, insert for each
    fit.

    Stages:
        grasp: reach the handle, close, lift; finished when both pads touch the nut and it is 2 cm off the table
        insert: lower the nut round its peg, let go, withdraw; finished when all five conditions hold for this nut

    Success:
        on_peg: less than 3 cm from the peg in x and in y, body lower than 5 cm above the table, and grip site more
            than 4.24 cm from it; alone, this is MimicGen's check
        peg_through_hole: the peg's axis meets the nut's plane inside the hole
        flat_and_down: the nut is within 3 degrees of flat, either side up, and within 3 mm of the table
        released: the grip site is more than 9 cm from the nut's body, and no part of the hand touches the nut
        at_rest: the nut moves slower than 2 cm/s and turns slower than 0.3 rad/s about every axis

    Reference:
        It also counts a nut that leans on its peg, hovers half-way down, or is still held by its handle; strict
        success does not.

    Failure:
        A nut is off the table, or lies more than 5 cm from its peg while it should be carried or on it.

    Ours:
        The predicates other than ``on_peg`` and their tolerances, the failures and the stages' horizons. Nuts start
        where they come to lie; the reference drops them by 6 cm. They fall flat, so nothing else differs, and a plan
        made at reset aims at where the nut is. A nut let go round the peg falls down by itself, so the demonstrations
        let go 3 cm below the peg's top: lowered all the way, the palm would come to the peg. One way to hold a nut is
        not within reach everywhere: the demonstrations hold several (two half-turns, several leans) and several yaws
        on the peg.
    """

    fits: tuple[Fit, ...]

    def __init__(self, model: mujoco.MjModel):
        super().__init__(model)
        hand = [
            i
            for i in range(model.ngeom)
            if model.body(model.geom_bodyid[i]).name.startswith(("gripper0", "robot0_right_hand"))
        ]
        self._is_hand = np.zeros(model.ngeom, bool)
        self._is_hand[hand] = True
        self._is_nut = {}
        for fit in self.fits:
            mask = np.zeros(model.ngeom, bool)
            mask[self.object_geoms[fit.nut]] = True
            self._is_nut[fit.nut] = mask

    def _hand_distance(self, sim: Simulation, nut: str) -> float:
        """Metres from the grip site to a nut's body."""
        return float(np.linalg.norm(sim.data.site_xpos[sim.grip_site] - sim.data.xpos[self.object_body[nut]]))

    def hand_touches(self, sim: Simulation, nut: str) -> bool:
        """Whether any part of the hand touches a nut."""
        first, second = sim.data.contact.geom.T
        hand, own = self._is_hand, self._is_nut[nut]
        return bool(((hand[first] & own[second]) | (hand[second] & own[first])).any())

    def reference_on_peg(self, sim: Simulation, fit: Fit) -> bool:
        """MimicGen's check of one nut."""
        x, y, z = sim.data.xpos[self.object_body[fit.nut]] - sim.data.xpos[self.object_body[fit.peg]]
        return bool(
            abs(x) < REFERENCE_OFFSET
            and abs(y) < REFERENCE_OFFSET
            and z < REFERENCE_HEIGHT - PEG_HEIGHT
            and self._hand_distance(sim, fit.nut) > REFERENCE_HAND_DISTANCE
        )

    def reference_success(self, sim: Simulation) -> bool:
        return all(self.reference_on_peg(sim, fit) for fit in self.fits)

    def nut_predicates(self, sim: Simulation, fit: Fit) -> dict[str, bool]:
        """The named conditions on one nut."""
        nut, peg = self.object_body[fit.nut], self.object_body[fit.peg]
        xpos, axes = sim.data.xpos, sim.data.xmat[nut]
        offset = xpos[peg] - xpos[nut]
        # Where the peg's axis, which is upright, meets the nut's plane, in the nut's frame.
        normal_z = float(axes[8])
        through = False
        if abs(normal_z) > 0.1:
            height = -(axes[2] * offset[0] + axes[5] * offset[1]) / normal_z
            x = axes[0] * offset[0] + axes[3] * offset[1] + axes[6] * height
            y = axes[1] * offset[0] + axes[4] * offset[1] + axes[7] * height
            through = fit.inside(float(x), float(y))
        down = abs(xpos[nut, 2] - TABLE_HEIGHT - NUT_HALF_THICKNESS) < DOWN_TOLERANCE
        dof = self.object_dof[fit.nut]
        speed, spin = np.abs(sim.data.qvel[dof : dof + 6]).reshape(2, 3).max(axis=1)
        return {
            "on_peg": self.reference_on_peg(sim, fit),
            "peg_through_hole": through,
            "flat_and_down": bool(down) and abs(normal_z) > FLAT_COSINE,
            "released": self._hand_distance(sim, fit.nut) > HAND_DISTANCE and not self.hand_touches(sim, fit.nut),
            "at_rest": bool(speed < REST_SPEED and spin < REST_SPIN),
        }

    def stage_done(self, sim: Simulation, stage: int) -> bool:
        fit = self.fits[stage // 2]
        if stage % 2 == 0:
            height = sim.data.xpos[self.object_body[fit.nut], 2] - TABLE_HEIGHT
            return bool(height > NUT_HALF_THICKNESS + LIFT_HEIGHT) and self.grasped(sim, fit.nut)
        return all(self.nut_predicates(sim, fit).values())

    def failure(self, sim: Simulation, stage: int) -> str:
        xpos = sim.data.xpos
        for index, fit in enumerate(self.fits):
            nut, peg = xpos[self.object_body[fit.nut]], xpos[self.object_body[fit.peg]]
            if nut[2] < TABLE_HEIGHT - 0.05:
                return "object off the table"
            if stage > 2 * index:  # held, or on its peg
                low = nut[2] < TABLE_HEIGHT + DROPPED_HEIGHT
                if low and float(np.hypot(*(nut - peg)[:2])) > DROPPED_DISTANCE:
                    return "nut dropped"
        return ""
