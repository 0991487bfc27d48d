"""What Square and Nut Assembly share: when a nut is on its peg, when a stage is finished or lost, how nuts are handled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import mujoco
import numba
import numpy as np

from reinforcegen_envs.models.nuts import NUT_HALF_THICKNESS, NUT_RADIUS, PEG_HEIGHT, PEG_TOP, TABLE_HEIGHT, Fit
from reinforcegen_envs.poses import matrix_from, rotation, translation
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks.base import Seat, Shape, Stage, Symmetry, Task
from reinforcegen_envs.tasks.checks import mask_of, slow, touching
from reinforcegen_envs.tasks.recipe import CLOSE, Keyframe
from reinforcegen_envs.typing import Array

# MimicGen's check: nut body this near to the peg in x and in y, this low, grip site this far from it (1 - tanh(10 d) < 0.6).
REFERENCE_OFFSET = 0.03
REFERENCE_HEIGHT = 0.05  # above the table
REFERENCE_HAND_DISTANCE = float(np.arctanh(0.4) / 10.0)
# Ours, for strict success, stages and failures:
FLAT_COSINE = float(np.cos(np.deg2rad(3)))
DOWN_TOLERANCE = 0.003  # metres between the nut's lower face and the table
HAND_DISTANCE = 0.09  # metres of the grip site from the nut's body; the handle's end is at 0.079
BELOW_TOP = (
    0.02  # metres that a nut round its peg is believed below the peg's top, though it is seen to fall too slowly
)
REST_SPEED, REST_SPIN = 0.02, 0.3  # metres, radians a second
LIFT_HEIGHT = 0.02  # metres that a grasped nut must have left the table
DROPPED_HEIGHT = 0.02  # nut this near above the table ...
DROPPED_DISTANCE = 0.05  # ... and this far from its peg while it should be carried or on it: dropped

# D0 and D1 have the peg at yaw 0, D2 up to a quarter turn: a little below 0, so that no estimate of 0 becomes a quarter turn.
SQUARE_PEG_SYMMETRY = Symmetry(4, -0.1)
NUT_SHAPE = Shape(NUT_HALF_THICKNESS, NUT_RADIUS)


def on_peg(fit: Fit) -> Seat:
    """Where a nut lies round its peg, as far off its axis as most do; from a little below the peg's top it falls there."""
    fall = PEG_TOP - BELOW_TOP - NUT_HALF_THICKNESS
    return Seat(fit.peg, (0.0, 0.0, NUT_HALF_THICKNESS - PEG_HEIGHT), slack=0.005, fall=fall)


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
        Stage(
            f"grasp{name}",
            fit.nut,
            None,
            100,
            signals[0],
            skill_radius=0.09,
            end_offset=16,
            new_source=True,  # what was done with one nut has no bearing on how the next is taken
            mirrored=True,
            half_turn=True,
        ),
        Stage(
            f"insert{name}",
            fit.peg,
            fit.nut,
            130,
            signals[1],
            skill_radius=0.15,
            end_offset=0,
            turns=4,  # the round peg's stand for every angle
            mirrored=True,
        ),
    )


@numba.njit(cache=True)
def _hand_distance(xpos, site_xpos, nut, grip):
    """Metres from the grip site to a nut's body."""
    x, y, z = site_xpos[grip, 0] - xpos[nut, 0], site_xpos[grip, 1] - xpos[nut, 1], site_xpos[grip, 2] - xpos[nut, 2]
    return np.sqrt(x * x + y * y + z * z)


@numba.njit(cache=True)
def _round_peg(xpos, nut, peg, height):
    """Whether a nut is as near to a peg as MimicGen's check asks, and lower than so many metres above the table."""
    return (
        abs(xpos[nut, 0] - xpos[peg, 0]) < REFERENCE_OFFSET
        and abs(xpos[nut, 1] - xpos[peg, 1]) < REFERENCE_OFFSET
        and xpos[nut, 2] - xpos[peg, 2] < height - PEG_HEIGHT
    )


@numba.njit(cache=True)
def _reference_on_peg(xpos, site_xpos, nut, peg, grip):
    """MimicGen's check of one nut."""
    low = _round_peg(xpos, nut, peg, REFERENCE_HEIGHT)
    return low and _hand_distance(xpos, site_xpos, nut, grip) > REFERENCE_HAND_DISTANCE


@numba.njit(cache=True)
def _judge_nut(xpos, xmat, qvel, site_xpos, nut, peg, dof, grip, hole, square):
    """Whether a nut is on its peg as MimicGen has it, the peg through its hole, it flat and down, the hand away, it at rest."""
    axes = xmat[nut]
    ox, oy, oz = xpos[peg, 0] - xpos[nut, 0], xpos[peg, 1] - xpos[nut, 1], xpos[nut, 2] - TABLE_HEIGHT
    through = False
    if abs(axes[8]) > 0.1:
        # Where the peg's axis, which is upright, meets the nut's plane, in the nut's frame.
        height = -(axes[2] * ox + axes[5] * oy) / axes[8]
        x = axes[0] * ox + axes[3] * oy + axes[6] * height
        y = axes[1] * ox + axes[4] * oy + axes[7] * height
        through = (max(abs(x), abs(y)) if square else np.hypot(x, y)) < hole
    return (
        _reference_on_peg(xpos, site_xpos, nut, peg, grip),
        through,
        abs(oz - NUT_HALF_THICKNESS) < DOWN_TOLERANCE and abs(axes[8]) > FLAT_COSINE,
        _hand_distance(xpos, site_xpos, nut, grip) > HAND_DISTANCE,
        slow(qvel, dof, REST_SPEED, REST_SPIN),
    )


class NutTask(Task):
    """Nuts on pegs; subclasses declare ``fits`` next to what every task declares, and stages are grasp, insert for each
    fit.

    Stages:
        grasp: reach the handle or another bar, close, lift; finished when both pads touch the nut and it is 2 cm off the table
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
        let go just round the peg, with the handle in the hand 3 cm below the peg's top: lowered all the way, the palm
        would come to the peg. One way to hold a nut is not within reach everywhere: the demonstrations take it by its
        handle, by the bar opposite and by those at its sides, each with several leans. A skill may be mirrored, the
        empty hand turned by half a turn, and the nut put on the peg at every quarter turn.
    """

    fits: tuple[Fit, ...]

    def __init__(self, model: mujoco.MjModel):
        super().__init__(model)
        self._hand_mask = mask_of(model, "gripper0", "robot0_right_hand")

    def reference_success(self, sim: Simulation) -> bool:
        return all(self._reference_on_peg(sim, fit) for fit in self.fits)

    def looks_done(self, sim: Simulation) -> bool:
        # The last nut; the stage of another one was before, and what is done with this one does not mend that.
        return self._reference_on_peg(sim, self.fits[-1])

    def looks_placed(self, sim: Simulation, stage: int) -> bool:
        fit = self.fits[stage // 2]  # a nut that lies on its peg's top, or hangs on it, is not where it belongs
        nut, peg = self.object_body[fit.nut], self.object_body[fit.peg]
        return stage % 2 == 0 or bool(_round_peg(sim.data.xpos, nut, peg, PEG_TOP - BELOW_TOP))

    def _reference_on_peg(self, sim: Simulation, fit: Fit) -> bool:
        nut, peg = self.object_body[fit.nut], self.object_body[fit.peg]
        return bool(_reference_on_peg(sim.data.xpos, sim.data.site_xpos, nut, peg, sim.grip_site))

    def nut_predicates(self, sim: Simulation, fit: Fit) -> dict[str, bool]:
        """The named conditions on one nut."""
        data = sim.data
        on_peg, through, flat, away, rest = _judge_nut(
            data.xpos,
            data.xmat,
            data.qvel,
            data.site_xpos,
            self.object_body[fit.nut],
            self.object_body[fit.peg],
            self.object_dof[fit.nut],
            sim.grip_site,
            fit.hole,
            fit.square,
        )
        return {
            "on_peg": on_peg,
            "peg_through_hole": through,
            "flat_and_down": flat,
            "released": away and not touching(data.contact.geom, self._hand_mask, self.object_mask[fit.nut]),
            "at_rest": rest,
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
            if self.off_table(sim, (fit.nut,)):
                return "object off the table"
            if stage > 2 * index:  # held, or on its peg
                low = nut[2] < TABLE_HEIGHT + DROPPED_HEIGHT
                if low and float(np.hypot(*(nut - peg)[:2])) > DROPPED_DISTANCE:
                    return "nut dropped"
        return ""


# --- the scripted teleoperator ---


@dataclass(frozen=True)
class NutStyle:
    """One way to hold a nut.

    Args:
        hold: "handle", across it; "far_bar", the one opposite the handle; "side_bar", one of the two beside it.
        lean: radians by which the palm leans, along what it holds: positive towards the handle's end, for the far bar to
            either side.
    """

    hold: Literal["handle", "far_bar", "side_bar"]
    lean: float


# Nuts lie and pegs stand anywhere, so no single way is within reach everywhere: a handle may point away from the robot,
# beyond its reach. These, mirrored and turned, leave none of the layouts out; see benchmarks/reach.py.
STYLES = (
    NutStyle("handle", 0.0),
    NutStyle("far_bar", 0.3),
    NutStyle("side_bar", 0.3),
    NutStyle("handle", 0.3),
    NutStyle("side_bar", -0.3),
    NutStyle("far_bar", 0.0),
    NutStyle("handle", -0.3),
    NutStyle("far_bar", 0.45),
    NutStyle("side_bar", 0.0),
    NutStyle("handle", 0.45),
)


def grasp_pose(rng: np.random.Generator, fit: Fit, style: NutStyle) -> Array:
    """(4, 4) of the hand in the nut's frame: a little off, with fingers and sides that change places by chance.

    A bar is taken near its upper edge: the finger in the hole must stay above the peg, beside which there is no room for it.
    """
    lean = style.lean + rng.normal(0.0, 0.03)
    swapped, side = (float(sign) for sign in rng.choice([-1.0, 1.0], 2))
    out, deep = rng.uniform(0.004, 0.01), rng.uniform(0.0, 0.003)
    if style.hold != "handle":  # out of the hole, where the open finger is near the bar across
        out, deep = rng.uniform(0.001, 0.004), rng.uniform(0.006, 0.008)
    if style.hold == "far_bar":
        closing, along, grip = [swapped, 0.0, 0.0], [0.0, side, 0.0], [-fit.bar - out, rng.normal(0, 0.001), deep]
    else:
        closing, along = [0.0, swapped, 0.0], [1.0, 0.0, 0.0]
        grip = [fit.handle + out, rng.normal(0, 0.001), deep]
        if style.hold == "side_bar":
            grip = [rng.normal(0, 0.001), side * (fit.bar + out), deep]
    approach = np.array([0.0, 0.0, -np.cos(lean)]) - np.sin(lean) * np.array(along)
    return matrix_from(np.stack([closing, np.cross(approach, closing), approach], axis=1), np.array(grip))


def nut_keyframes(rng: np.random.Generator, fit: Fit, stage: int, style: NutStyle) -> list[Keyframe]:
    """Take a nut from above, hold it over the peg at one of four yaws, lower it, let go and withdraw.

    Args:
        rng: draws pace, grasp, yaw and approach.
        fit: nut and peg.
        stage: index of the grasp stage; the insertion is the next one.
        style: how the nut is held.
    """
    grasp = grasp_pose(rng, fit, style)
    yaw = float(rng.integers(4)) * np.pi / 2
    pace = rng.uniform(0.8, 1.2)
    wobble = rotation(rng.normal(0.0, 0.03, 3))

    def nut_at(height: float, x: float = 0.0, y: float = 0.0) -> Array:
        """Nut pose in the peg's frame, ``height`` metres above the peg's top."""
        return translation(x, y, PEG_TOP - PEG_HEIGHT + height) @ rotation([0.0, 0.0, yaw])

    # Once round the peg a nut falls down by itself; lowering it all the way would bring the palm, or the finger in the hole,
    # to the peg.
    low = nut_at(rng.uniform(-0.032, -0.024) if style.hold == "handle" else rng.uniform(0.001, 0.004))
    skill_0 = {"stage": stage, "frame": fit.nut}
    skill_1 = {"stage": stage + 1, "frame": fit.peg}
    return [
        Keyframe(
            **skill_0,
            pose=grasp @ translation(rng.normal(0, 0.004), rng.normal(0, 0.004), -0.075) @ wobble,
            skill=False,
            speed=0.016 * pace,
            tolerance=(0.012, 0.12),
            dwell=int(rng.integers(0, 4)),
        ),
        Keyframe(**skill_0, pose=grasp @ translation(0, 0, -0.02), speed=0.010 * pace, tolerance=(0.008, 0.08)),
        Keyframe(**skill_0, pose=grasp, speed=0.006 * pace, tolerance=(0.004, 0.04)),
        Keyframe(**skill_0, pose=grasp, gripper=CLOSE, dwell=int(rng.integers(11, 14)), track_frame=False),
        Keyframe(
            **skill_0,
            pose=translation(0, 0, 0.055) @ grasp,
            gripper=CLOSE,
            speed=0.009 * pace,
            tolerance=(0.012, 0.1),
            track_frame=False,
        ),
        Keyframe(
            **skill_1,
            pose=nut_at(0.07, rng.normal(0, 0.008), rng.normal(0, 0.008)) @ rotation(rng.normal(0, 0.04, 3)),
            tool=fit.nut,
            skill=False,
            gripper=CLOSE,
            speed=0.016 * pace,
            tolerance=(0.012, 0.1),
            dwell=int(rng.integers(0, 4)),
        ),
        Keyframe(
            **skill_1, pose=nut_at(0.024), tool=fit.nut, gripper=CLOSE, speed=0.008 * pace, tolerance=(0.0025, 0.04)
        ),
        Keyframe(**skill_1, pose=low, tool=fit.nut, gripper=CLOSE, speed=0.005 * pace, tolerance=(0.003, 0.06)),
        Keyframe(**skill_1, pose=low @ grasp, dwell=int(rng.integers(3, 6)), tolerance=(0.012, 0.1)),
        Keyframe(
            **skill_1,
            pose=low @ grasp @ translation(0, 0, -rng.uniform(0.08, 0.1)),
            speed=0.010 * pace,
            tolerance=(0.012, 0.1),
            dwell=12,
        ),
    ]
