"""Nut Assembly: put a square and a round nut on their pegs.

Nuts and pegs are robosuite's; D0 and the reference check follow robosuite's and MimicGen's Nut Assembly. D1 and D2 are ours:
SkillGen's were never published.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from reinforcegen_envs.models.nuts import (
    ROUND,
    ROUND_NUT,
    ROUND_PEG,
    SQUARE,
    SQUARE_NUT,
    SQUARE_PEG,
    TABLE_HEIGHT,
)
from reinforcegen_envs.models.scene import Scene
from reinforcegen_envs.poses import yaw_quat
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks.base import BASE_X, MAX_PLACEMENT_TRIES, Placement, PlacementError, Symmetry
from reinforcegen_envs.tasks.nuts import (
    NUT_SHAPE,
    SQUARE_PEG_SYMMETRY,
    STYLES,
    NutTask,
    nut_keyframes,
    nut_stages,
    on_peg,
    peg_shape,
)
from reinforcegen_envs.tasks.recipe import Keyframe
from reinforcegen_envs.typing import Array

PI = float(np.pi)
# Of the layouts of D1 and D2 (ours): how far from the robot's base axis a hand can take a handle that lies across, and how
# far away a peg may stand on which a nut is to be put whichever way it is held.
HANDLE_REACH = 0.775  # metres, of a vertical hand at the height of the table
PEG_REACH = 0.80  # metres; D0's pegs stand at 0.796
PEG_DISTANCE = 0.16  # metres between the pegs' axes: room for both nuts
ANYWHERE = (0.0, 2 * PI)


class NutAssemblyTask(NutTask):
    """Put a square nut on a square peg, then a round nut on a round peg.

    Nuts and pegs are robosuite's; D0 and the reference check are robosuite's and MimicGen's Nut Assembly, rebuilt
    from their numbers. What was done with the first nut has no bearing on the second, so each may copy a source
    demonstration of its own.

    Resets:
        **D1 and D2 are our definition**: SkillGen's were never published; known is that they are far larger than D0.
        Nuts have the ranges of Square D1 and D2, and so have the pegs, but for x at most 0.23; the round peg's yaw is 0. The
        whole layout is drawn again
        unless the nuts are more than 22 cm apart, each nut more than 13.26 cm from each peg (robosuite's rule), the
        pegs more than 16 cm apart (room for both nuts), each peg at most 0.80 m from the robot's base axis (D0's stand
        at 0.796), and each handle's centre at most 0.775 m from
        it, which is how far a vertical hand reaches at the table: beyond it, handles that lie across cannot be
        taken.

    Version history:
        v0: first version.
    """

    name = "NutAssembly"
    scene = Scene("nut_assembly", (SQUARE_NUT, ROUND_NUT, SQUARE_PEG, ROUND_PEG), table_height=TABLE_HEIGHT)
    fits = (SQUARE, ROUND)
    objects = ("square_nut", "square_peg", "round_nut", "round_peg")
    symmetries = {"square_peg": SQUARE_PEG_SYMMETRY, "round_peg": Symmetry(0)}
    seats = {fit.nut: on_peg(fit) for fit in (SQUARE, ROUND)}
    shapes = {
        "square_nut": NUT_SHAPE,
        "round_nut": NUT_SHAPE,
        "square_peg": peg_shape(0.0226),
        "round_peg": peg_shape(0.0226),
    }
    variants = {
        "D0": {
            "square_peg": Placement((0.23, 0.23), (0.1, 0.1), (0.0, 0.0)),
            "round_peg": Placement((0.23, 0.23), (-0.1, -0.1), (0.0, 0.0)),
            "square_nut": Placement((-0.115, -0.11), (0.11, 0.225), ANYWHERE),
            "round_nut": Placement((-0.115, -0.11), (-0.225, -0.11), ANYWHERE),
        },
        # Ours: the ranges of Square D1 and D2, pegs no farther from the robot than D0's.
        "D1": {
            "square_peg": Placement((-0.1, 0.23), (-0.2, 0.2), (0.0, 0.0)),
            "round_peg": Placement((-0.1, 0.23), (-0.2, 0.2), (0.0, 0.0)),
            "square_nut": Placement((-0.115, 0.115), (-0.255, 0.255), ANYWHERE),
            "round_nut": Placement((-0.115, 0.115), (-0.255, 0.255), ANYWHERE),
        },
        "D2": {
            "square_peg": Placement((-0.25, 0.23), (-0.25, 0.25), (0.0, PI / 2)),
            "round_peg": Placement((-0.25, 0.23), (-0.25, 0.25), (0.0, 0.0)),
            "square_nut": Placement((-0.25, 0.25), (-0.25, 0.25), ANYWHERE),
            "round_nut": Placement((-0.25, 0.25), (-0.25, 0.25), ANYWHERE),
        },
    }
    stages = (
        *nut_stages(SQUARE, "_square_nut", last=False),
        *nut_stages(ROUND, "_round_nut", last=True),
    )
    horizon = 800
    camera = "agentview_full"
    styles = len(STYLES)
    reference_speed = 131.0

    def sample_layout(self, variant: str, rng: np.random.Generator) -> dict[str, Array]:
        """Draw a layout: D0 by robosuite's rule; D1 and D2 as a whole, again and again until all of it is acceptable.

        Raises:
            PlacementError: none found in 5000 tries.
        """
        if variant == "D0":
            return super().sample_layout(variant, rng)
        places = self.variants[variant]
        ranges = np.array([[place.x, place.y, place.yaw] for place in places.values()])
        for _ in range(MAX_PLACEMENT_TRIES):
            drawn = dict(zip(places, rng.uniform(ranges[..., 0], ranges[..., 1]), strict=True))
            if self._acceptable(drawn):
                break
        else:
            raise PlacementError(f"no acceptable layout in {variant} after {MAX_PLACEMENT_TRIES} tries")
        return {
            name: np.concatenate([[x, y, TABLE_HEIGHT + self.shapes[name].height], yaw_quat(yaw)])
            for name, (x, y, yaw) in drawn.items()
        }

    def _acceptable(self, drawn: dict[str, Array]) -> bool:
        """Whether nothing overlaps and all is within reach, of object name -> (x, y, yaw)."""
        for fit in self.fits:
            x, y, _ = drawn[fit.peg]
            if np.hypot(x - BASE_X, y) > PEG_REACH:
                return False
            x, y, yaw = drawn[fit.nut]
            if np.hypot(x + fit.handle * np.cos(yaw) - BASE_X, y + fit.handle * np.sin(yaw)) > HANDLE_REACH:
                return False
        for first, second in combinations(drawn, 2):
            least = self.shapes[first].radius + self.shapes[second].radius
            if first.endswith("peg") and second.endswith("peg"):
                least = PEG_DISTANCE
            if np.hypot(*(drawn[first] - drawn[second])[:2]) <= least:
                return False
        return True

    def predicates(self, sim: Simulation) -> dict[str, bool]:
        return {
            f"{fit.nut}_{name}": holds for fit in self.fits for name, holds in self.nut_predicates(sim, fit).items()
        }

    @classmethod
    def recipe(cls, rng: np.random.Generator, style: int = 0) -> list[Keyframe]:
        """First the square nut, then the round one."""
        return nut_keyframes(rng, SQUARE, 0, STYLES[style]) + nut_keyframes(rng, ROUND, 2, STYLES[style])
