"""Square: pick up a square nut by its handle and put it on a square peg.

Nut and peg are robosuite's; reset ranges and the reference check follow MimicGen's Square, rebuilt from their numbers.
"""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.models.nuts import SQUARE, SQUARE_NUT, SQUARE_PEG, TABLE_HEIGHT
from reinforcegen_envs.models.scene import Scene
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks.base import Placement
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

PI = float(np.pi)


class SquareTask(NutTask):
    """Pick up a square nut by its handle and put it on a square peg.

    Nut and peg are robosuite's; reset ranges and the reference check are MimicGen's Square, rebuilt from their
    numbers. The hole leaves 6.75 mm on every side of the peg. robosuite's round nut and round peg, which take no
    part, are left out.

    Version history:
        v0: first version.
    """

    name = "Square"
    scene = Scene("square", (SQUARE_NUT, SQUARE_PEG), table_height=TABLE_HEIGHT)
    fits = (SQUARE,)
    objects = ("square_nut", "square_peg")
    symmetries = {"square_peg": SQUARE_PEG_SYMMETRY}
    seats = {SQUARE.nut: on_peg(SQUARE)}
    shapes = {"square_nut": NUT_SHAPE, "square_peg": peg_shape(0.0226)}
    # The peg comes first: where the nut would overlap it, the nut is drawn again.
    variants = {
        "D0": {
            "square_peg": Placement((0.23, 0.23), (0.1, 0.1), (0.0, 0.0)),
            "square_nut": Placement((-0.115, -0.11), (0.11, 0.225), (0.0, 2 * PI)),
        },
        "D1": {
            "square_peg": Placement((-0.1, 0.3), (-0.2, 0.2), (0.0, 0.0)),
            "square_nut": Placement((-0.115, 0.115), (-0.255, 0.255), (0.0, 2 * PI)),
        },
        "D2": {
            "square_peg": Placement((-0.25, 0.25), (-0.25, 0.25), (0.0, PI / 2)),
            "square_nut": Placement((-0.25, 0.25), (-0.25, 0.25), (0.0, 2 * PI)),
        },
    }
    stages = nut_stages(SQUARE, "", last=True)
    horizon = 400
    camera = "agentview_full"
    styles = len(STYLES)
    reference_speed = 144.0

    def predicates(self, sim: Simulation) -> dict[str, bool]:
        return self.nut_predicates(sim, SQUARE)

    @classmethod
    def recipe(cls, rng: np.random.Generator, style: int = 0) -> list[Keyframe]:
        """The nut on the peg."""
        return nut_keyframes(rng, SQUARE, 0, STYLES[style])
