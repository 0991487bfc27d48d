"""Needle and tripod, from primitives: MimicGen's sizes and masses, rebuilt from their numbers."""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.models.objects import Body, Geom

SLIPPERY = (0.3, 0.005, 1e-4)

# Needle: root at the centre of its bounding box, shaft along -y, 4 cm cube as handle.
SHAFT_CENTRE = np.array([0.0, -0.02, 0.0])
SHAFT_HALF_LENGTH = 0.06
# Tripod: ring of 20 boxes, 16 x 16 mm opening, 10 mm thick, normal along x.
RING_CENTRE = np.array([0.0, 0.0, 0.088])
RING_OPENING_HALF = 0.008
RING_HALF_THICKNESS = 0.005


def _ring_geoms() -> tuple[Geom, ...]:
    """Perimeter of a 6 x 6 grid of 4 mm cells in the y-z plane."""
    cells = [0.004 * (i - 2.5) for i in range(6)]
    return tuple(
        Geom(
            "box",
            (0.005, 0.002, 0.002),
            (0.0, y, RING_CENTRE[2] + z),
            friction=SLIPPERY,
            name=f"ring_{i}_{j}",
        )
        for i, y in enumerate(cells)
        for j, z in enumerate(cells)
        if i in (0, 5) or j in (0, 5)
    )


NEEDLE = Body(
    "needle",
    (
        Geom(
            "box",
            (0.005, SHAFT_HALF_LENGTH, 0.005),
            tuple(SHAFT_CENTRE),
            friction=SLIPPERY,
            name="needle_shaft",
        ),
        Geom("box", (0.02, 0.02, 0.02), (0.0, 0.06, 0.0), name="needle_handle"),
    ),
    density=100.0,
    material="wood_dark",
)
TRIPOD = Body(
    "tripod",
    (
        *_ring_geoms(),
        Geom("box", (0.05, 0.05, 0.005), (0.0, 0.0, -0.015), name="tripod_plate"),
        Geom("box", (0.005, 0.005, 0.043), (0.0, 0.0, 0.033), name="tripod_post"),
        Geom(
            "capsule",
            (0.01, 0.03),
            (-0.04, -0.04, -0.06),
            (0.96593, -0.18301, 0.18301, 0.0),
            name="tripod_leg_0",
        ),
        Geom(
            "capsule",
            (0.01, 0.03),
            (-0.04, 0.04, -0.06),
            (0.96593, 0.18301, 0.18301, 0.0),
            name="tripod_leg_1",
        ),
        Geom("capsule", (0.01, 0.03), (0.04, 0.0, -0.06), (0.96593, 0.0, -0.25882, 0.0), name="tripod_leg_2"),
    ),
    density=100.0,
    material="wood_light",
)
