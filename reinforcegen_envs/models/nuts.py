"""Square and round nut, and the pegs they go on: robosuite's shapes and masses, as data.

A nut lies in its x-y plane with the handle along +x. Pegs are mocap bodies: resets move them, physics does not. They stand
in the table, with their root (the middle of the peg) 3 cm above its top. The tests compare all of it with robosuite's files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reinforcegen_envs.models.objects import Body, Geom

TABLE_HEIGHT = 0.82  # z of the table top in robosuite's pegs arena, metres
NUT_HALF_THICKNESS = 0.01
NUT_RADIUS = 0.11  # of the circle that the placement sampler keeps free (robosuite's)
PEG_HEIGHT = 0.03  # of a peg's root above the table
PEG_TOP = 0.13  # of its top above the table

_NUT_CONTACT = (("condim", "4"), ("solref", "0.02 1"), ("solimp", "0.998 0.998 0.001"))
_NUT_FRICTION = (0.95, 0.3, 0.1)
_EIGHTH_TURN = (float(np.cos(np.pi / 8)), 0.0, 0.0, float(np.sin(np.pi / 8)))


@dataclass(frozen=True)
class Fit:
    """How a nut goes on its peg (metres).

    Args:
        nut, peg: body names.
        handle: distance of the handle's centre from the hole's, along the nut's x.
        bar: distance of the other three bars' centres from the hole's.
        hole: half-width of the square hole, or inner radius of the round one.
        square: whether hole and peg are square.
    """

    nut: str
    peg: str
    handle: float
    bar: float
    hole: float
    square: bool


SQUARE = Fit("square_nut", "square_peg", handle=0.054, bar=0.03325, hole=0.02275, square=True)
ROUND = Fit("round_nut", "round_peg", handle=0.06, bar=0.04245, hole=0.0312, square=False)


def _bar(size, pos, friction=_NUT_FRICTION, quat=(1.0, 0.0, 0.0, 0.0)) -> Geom:
    return Geom("box", (*size, NUT_HALF_THICKNESS), (*pos, 0.0), quat, friction=friction)


SQUARE_NUT = Body(
    "square_nut",
    (
        _bar((0.0105, 0.04375), (-0.03325, 0.0), (0.95, 0.3, 0.2)),
        _bar((0.03125, 0.0105), (0.0, 0.03325)),
        _bar((0.03125, 0.0105), (0.0, -0.03325)),
        _bar((0.0105, 0.04375), (0.03325, 0.0)),
        _bar((0.02525, 0.015875), (SQUARE.handle, 0.0)),
    ),
    density=100.0,
    material="brass",
    damping=0.0005,
    geom_attributes=_NUT_CONTACT,
)
ROUND_NUT = Body(
    "round_nut",
    (
        _bar((0.01125, 0.0225), (-0.04245, 0.0)),
        _bar((0.01125, 0.0225), (0.04245, 0.0)),
        _bar((0.0225, 0.01125), (0.0, -0.04245)),
        _bar((0.0225, 0.01125), (0.0, 0.04245)),
        _bar((0.01125, 0.0225), (-0.03, -0.03), quat=_EIGHTH_TURN),
        _bar((0.01125, 0.0225), (0.03, 0.03), quat=_EIGHTH_TURN),
        _bar((0.0225, 0.01125), (0.03, -0.03), quat=_EIGHTH_TURN),
        _bar((0.0225, 0.01125), (-0.03, 0.03), quat=_EIGHTH_TURN),
        _bar((0.02525, 0.015875), (ROUND.handle, 0.0)),
    ),
    density=100.0,
    material="steel",
    damping=0.0005,
    geom_attributes=_NUT_CONTACT,
)
SQUARE_PEG = Body("square_peg", (Geom("box", (0.016, 0.016, 0.1)),), density=1000.0, material="brass", motion="mocap")
ROUND_PEG = Body("round_peg", (Geom("cylinder", (0.02, 0.1)),), density=1000.0, material="steel", motion="mocap")
