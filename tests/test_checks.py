"""The compiled pieces of predicates against the obvious way to write them."""

import numpy as np
import pytest

from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.tasks.checks import mask_of, pinched, slow, touching

GEOMS = 6


def masks(rng):
    return rng.random(GEOMS) < 0.4, rng.random(GEOMS) < 0.4


@pytest.mark.parametrize("contacts", [0, 1, 2, 5])
def test_touching_and_pinched(contacts):
    rng = np.random.default_rng(contacts)
    met = set()
    for _ in range(300):
        first, second = masks(rng)
        records = np.zeros(contacts, [("dist", np.float64), ("geom", np.int32, 2)])
        records["geom"] = rng.integers(0, GEOMS, (contacts, 2))
        pairs = records["geom"]  # strided, as MuJoCo hands it out
        expected = any((first[a] and second[b]) or (first[b] and second[a]) for a, b in pairs)
        assert touching(pairs, first, second) is bool(expected)
        pads = np.array([0, 1])
        sides = [any((a == pad and second[b]) or (b == pad and second[a]) for a, b in pairs) for pad in pads]
        assert pinched(pairs, pads, second) is all(sides)
        met.add((bool(expected), all(sides)))
    assert contacts < 2 or len(met) == 4


def test_slow_is_judged_along_every_axis():
    for i, limit in enumerate([0.1] * 3 + [0.5] * 3):
        for value, expected in ((0.99 * limit, True), (-1.01 * limit, False), (limit, False), (np.nan, False)):
            qvel = np.full(10, 9.0)
            qvel[2:8] = 0.0
            qvel[2 + i] = value
            assert slow(qvel, 2, 0.1, 0.5) is expected


def test_masks_choose_geoms_by_their_bodies_name():
    model = ManipulationEnv("Square", "D0").model
    mask = mask_of(model, "gripper0", "square_nut")
    assert mask.dtype == bool and mask.shape == (model.ngeom,)
    names = {model.body(body).name.split("_")[0] for body in model.geom_bodyid[mask]}
    assert names == {"gripper0", "square"}
    assert not mask[model.geom_bodyid == model.body("square_peg").id].any()
