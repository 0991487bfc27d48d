"""The base, a frame with a hole, and the two pieces that go on it.

MimicGen builds them from 53 cubes; here the cubes of a row or layer are one box (10 in all), which has the same shape, mass
and inertia.
"""

from __future__ import annotations

from reinforcegen_envs.models.objects import Body, Geom

# Half sizes of the cubes that the pieces consist of; roots are the centres of the bounding boxes.
BASE_UNIT, PIECE_1_UNIT, PIECE_2_UNIT = 0.019, 0.017, 0.020
# Heights of roots over the table: the base; piece_1 in its hole, its plate on the table; piece_2 astride, on the base.
BASE_HEIGHT = BASE_UNIT
PIECE_1_HEIGHT = 3 * PIECE_1_UNIT
PIECE_2_HEIGHT = 4 * PIECE_2_UNIT
SEATED_1 = PIECE_1_HEIGHT - BASE_HEIGHT  # over the base's root, metres
SEATED_2 = BASE_UNIT + PIECE_2_HEIGHT

BASE = Body(
    "base",
    (
        Geom("box", (5 * BASE_UNIT, BASE_UNIT, BASE_UNIT), (0.0, 4 * BASE_UNIT, 0.0), name="base_left"),
        Geom("box", (5 * BASE_UNIT, BASE_UNIT, BASE_UNIT), (0.0, -4 * BASE_UNIT, 0.0), name="base_right"),
        Geom("box", (BASE_UNIT, 3 * BASE_UNIT, BASE_UNIT), (4 * BASE_UNIT, 0.0, 0.0), name="base_front"),
        Geom("box", (BASE_UNIT, 3 * BASE_UNIT, BASE_UNIT), (-4 * BASE_UNIT, 0.0, 0.0), name="base_back"),
    ),
    density=10000.0,
    material="wood_red",
)
PIECE_1 = Body(
    "piece_1",
    (
        Geom(
            "box",
            (3 * PIECE_1_UNIT, 3 * PIECE_1_UNIT, PIECE_1_UNIT),
            (0.0, 0.0, -2 * PIECE_1_UNIT),
            name="piece_1_plate",
        ),
        Geom(
            "box",
            (PIECE_1_UNIT, 3 * PIECE_1_UNIT, 2 * PIECE_1_UNIT),
            (0.0, 0.0, PIECE_1_UNIT),
            name="piece_1_wall",
        ),
    ),
    density=100.0,
    material="wood_dark",
)
PIECE_2 = Body(
    "piece_2",
    (
        *(
            Geom(
                "box",
                (PIECE_2_UNIT, 3 * PIECE_2_UNIT, 2 * PIECE_2_UNIT),
                (side * 2 * PIECE_2_UNIT, 0.0, -2 * PIECE_2_UNIT),
                name=f"piece_2_leg_{i}",
            )
            for i, side in enumerate((-1, 1))
        ),
        Geom(
            "box",
            (3 * PIECE_2_UNIT, 3 * PIECE_2_UNIT, PIECE_2_UNIT),
            (0.0, 0.0, PIECE_2_UNIT),
            name="piece_2_plate",
        ),
        Geom("box", (PIECE_2_UNIT,) * 3, (0.0, 0.0, 3 * PIECE_2_UNIT), name="piece_2_knob"),
    ),
    density=100.0,
    material="wood_light",
)
