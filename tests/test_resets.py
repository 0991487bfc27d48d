"""Resets of every task and variant: inside the fact sheet's ranges, covering them, and put into the simulation as drawn."""

import warnings
from itertools import combinations
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.poses import from_pose7, invert
from reinforcegen_envs.tasks import TASKS

PI = np.pi
DRAWS = 2000
ANYWHERE = (0.0, 2 * PI)
SQUARE = {
    "D0": {
        "square_peg": ((0.23, 0.23), (0.1, 0.1), (0.0, 0.0)),
        "square_nut": ((-0.115, -0.11), (0.11, 0.225), ANYWHERE),
    },
    "D1": {
        "square_peg": ((-0.1, 0.3), (-0.2, 0.2), (0.0, 0.0)),
        "square_nut": ((-0.115, 0.115), (-0.255, 0.255), ANYWHERE),
    },
    "D2": {
        "square_peg": ((-0.25, 0.25), (-0.25, 0.25), (0.0, PI / 2)),
        "square_nut": ((-0.25, 0.25), (-0.25, 0.25), ANYWHERE),
    },
}
FREE = (-0.22, 0.22)
PIECE_D0 = (FREE, FREE, (1.5708, 1.5708))
PIECE_D2 = (FREE, FREE, (1.5708 - PI / 2, 1.5708 + PI / 2))
POD_IN_TRAY = ((-0.03, 0.03), (-0.05, 0.03), (0.0, 0.0))
# The fact sheet's ranges: x, y (metres from the table's centre), yaw. Coffee Preparation's pod is given in the tray's frame.
# Nut Assembly D1 and D2, and Coffee Preparation D2, are ours: nothing was published of them.
SHEET = {
    "Square": SQUARE,
    "NutAssembly": {
        "D0": SQUARE["D0"]
        | {
            "round_peg": ((0.23, 0.23), (-0.1, -0.1), (0.0, 0.0)),
            "round_nut": ((-0.115, -0.11), (-0.225, -0.11), ANYWHERE),
        },
        "D1": {
            "square_peg": ((-0.1, 0.23), (-0.2, 0.2), (0.0, 0.0)),
            "round_peg": ((-0.1, 0.23), (-0.2, 0.2), (0.0, 0.0)),
            "square_nut": SQUARE["D1"]["square_nut"],
            "round_nut": SQUARE["D1"]["square_nut"],
        },
        "D2": {
            "square_peg": ((-0.25, 0.23), (-0.25, 0.25), (0.0, PI / 2)),
            "round_peg": ((-0.25, 0.23), (-0.25, 0.25), (0.0, 0.0)),
            "square_nut": SQUARE["D2"]["square_nut"],
            "round_nut": SQUARE["D2"]["square_nut"],
        },
    },
    "Threading": {
        "D0": {
            "needle": ((-0.2, -0.05), (0.15, 0.25), (-2 * PI / 3, -PI / 3)),
            "tripod": ((0.0, 0.0), (-0.15, -0.15), (PI / 2, PI / 2)),
        },
        "D1": {
            "needle": ((-0.2, 0.05), (0.15, 0.25), (-7 * PI / 6, PI / 6)),
            "tripod": ((-0.1, 0.15), (-0.2, -0.1), (PI / 6, 5 * PI / 6)),
        },
        "D2": {
            "needle": ((-0.2, 0.05), (-0.25, -0.15), (-7 * PI / 6, PI / 6)),
            "tripod": ((-0.1, 0.15), (0.1, 0.2), (-5 * PI / 6, -PI / 6)),
        },
    },
    "ThreePieceAssembly": {
        "D0": {"base": ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0)), "piece_1": PIECE_D0, "piece_2": PIECE_D0},
        "D1": {"base": (FREE, FREE, (0.0, 0.0)), "piece_1": PIECE_D0, "piece_2": PIECE_D0},
        "D2": {"base": (FREE, FREE, (-PI / 4, PI / 4)), "piece_1": PIECE_D2, "piece_2": PIECE_D2},
    },
    "Coffee": {
        "D0": {
            "coffee_machine": ((0.0, 0.0), (-0.1, -0.1), (-PI / 6, -PI / 6)),
            "coffee_pod": ((-0.13, -0.07), (0.17, 0.23), (0.0, 0.0)),
        },
        "D1": {
            "coffee_machine": ((0.05, 0.15), (-0.2, -0.1), (-PI / 6, PI / 3)),
            "coffee_pod": ((-0.2, 0.05), (0.17, 0.3), (0.0, 0.0)),
        },
        "D2": {
            "coffee_machine": ((-0.05, 0.05), (0.1, 0.2), (2 * PI / 3, 7 * PI / 6)),
            "coffee_pod": ((-0.2, 0.05), (-0.3, -0.17), (0.0, 0.0)),
        },
    },
    "CoffeePreparation": {
        "D0": {
            "drawer": ((0.15, 0.15), (-0.35, -0.35), (PI, PI)),
            "coffee_machine": ((-0.15, -0.15), (-0.25, -0.25), (-PI / 6, -PI / 6)),
            "mug": ((0.05, 0.2), (0.05, 0.25), (0.0, 0.0)),
            "coffee_pod": POD_IN_TRAY,
        },
        "D1": {
            "drawer": ((0.15, 0.15), (-0.35, -0.35), (PI, PI)),
            "coffee_machine": ((-0.25, -0.15), (-0.3, -0.25), (-PI / 6, PI / 6)),
            "mug": ((-0.15, 0.2), (0.05, 0.25), ANYWHERE),
            "coffee_pod": POD_IN_TRAY,
        },
    },
}
# Roots above the table's top, metres: where the sheet puts them, but for nuts, which start where they come to lie.
HEIGHTS = {
    "square_nut": 0.01,
    "round_nut": 0.01,
    "square_peg": 0.03,
    "round_peg": 0.03,
    "needle": 0.02,
    "tripod": 0.101,
    "base": 0.02,
    "piece_1": 0.052,
    "piece_2": 0.081,
    "coffee_pod": 0.023103,
    "coffee_machine": 0.1105,
    "drawer": 0.005,
    "mug": 0.05864,
}
RADII = {
    "square_nut": 0.11,
    "round_nut": 0.11,
    "square_peg": 0.0226,
    "round_peg": 0.0226,
    "needle": 0.08246,
    "tripod": 0.07071,
    "base": 0.13435,
    "piece_1": 0.07212,
    "piece_2": 0.08485,
    "coffee_pod": 0.0243,
    "coffee_machine": 0.15805,
    "drawer": 0.15,
    "mug": 0.03531,
}
TRAY_FLOOR = np.array([0.0, -0.05, 0.046])  # middle of the tray's floor, in the cabinet's frame
POD_OVER_TRAY = 0.008 + 0.023103 + 0.001  # half the floor, the pod's root, what it falls
PEGS_APART = 0.16  # metres, of Nut Assembly D1 and D2
CASES = [(task, variant) for task in sorted(TASKS) for variant in ("D0", "D1", "D2")]


@pytest.fixture(scope="module")
def tasks():
    return {name: task(load_scene(task.scene)) for name, task in TASKS.items()}


def ranges_of(task, variant):
    """Object -> ranges of x, y, yaw; of a variant that is ours and that this file does not list, those it declares."""
    if variant in SHEET[task]:
        return SHEET[task][variant]
    return {name: (place.x, place.y, place.yaw) for name, place in TASKS[task].variants[variant].items()}


def drawn(task, variant, seed=0, draws=DRAWS):
    """Layouts, and object -> (draws, 3) x, y, yaw in the terms of the ranges; checks heights and that all stand upright."""
    rng = np.random.default_rng(seed)
    layouts = [task.sample_layout(variant, rng) for _ in range(draws)]
    columns = {}
    for name, ranges in ranges_of(task.name, variant).items():
        poses = np.array([layout[name] for layout in layouts])
        height = task.scene.table_height + HEIGHTS[name]
        if task.name == "CoffeePreparation" and name == "coffee_pod":
            drawer = [from_pose7(layout["drawer"]) for layout in layouts]
            in_tray = [invert(d) @ from_pose7(p) for d, p in zip(drawer, poses, strict=True)]
            poses[:, :3] = np.array(in_tray)[:, :3, 3] - TRAY_FLOOR
            poses[:, 3:] = [1.0, 0.0, 0.0, 0.0]  # round, and upright below
            assert all(p[2, 2] > 1 - 1e-12 for p in in_tray)
            height = POD_OVER_TRAY
        np.testing.assert_allclose(poses[:, 2], height, atol=1e-9)
        np.testing.assert_allclose(poses[:, 4:6], 0.0, atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(poses[:, 3:], axis=1), 1.0)
        low, high = ranges[2]
        # The yaw within a turn of its range's middle: quaternions do not tell turns apart.
        yaw = 2 * np.arctan2(poses[:, 6], poses[:, 3])
        middle = (low + high) / 2
        yaw = middle + (yaw - middle + PI) % (2 * PI) - PI
        columns[name] = np.stack([poses[:, 0], poses[:, 1], yaw], axis=1)
    return layouts, columns


def unit(columns, ranges):
    """(draws, n) of every coordinate that is drawn, as a part of its range; the rest is checked to be fixed."""
    parts = []
    for name, places in ranges.items():
        for i, (low, high) in enumerate(places):
            values = columns[name][:, i]
            if low == high:
                np.testing.assert_allclose(values, low, atol=1e-9, err_msg=f"{name} {'x y yaw'.split()[i]}")
            else:
                parts.append((values - low) / (high - low))
    return np.array(parts).T


@pytest.mark.parametrize("task, variant", CASES)
def test_resets_stay_inside_their_ranges_and_reach_both_ends(tasks, task, variant):
    layouts, columns = drawn(tasks[task], variant)
    assert {name for layout in layouts for name in layout} == set(TASKS[task].objects)
    share = unit(columns, ranges_of(task, variant))
    assert share.min() > -1e-9 and share.max() < 1 + 1e-9
    # Where nothing is rejected, 2,000 draws miss the outer hundredth of a range once in 10^8 times.
    slack = 0.01 if not rejections(task, variant) else 0.03
    assert share.min(axis=0).max() < slack and share.max(axis=0).min() > 1 - slack


@pytest.mark.parametrize("task, variant", CASES)
def test_nothing_overlaps(tasks, task, variant):
    layouts, _ = drawn(tasks[task], variant, seed=1, draws=500)
    for first, second in combinations(TASKS[task].objects, 2):
        pair = {first, second}
        if task == "CoffeePreparation" and "coffee_pod" in pair:
            continue  # in the drawer
        least = RADII[first] + RADII[second]
        if task == "CoffeePreparation" and "coffee_machine" in pair:
            least += 0.14782 - RADII["coffee_machine"]  # it has no cup there
        if pair == {"square_peg", "round_peg"} and variant != "D0":
            least = PEGS_APART
        between = np.array([layout[first][:2] - layout[second][:2] for layout in layouts])
        apart = np.linalg.norm(between, axis=1)
        assert apart.min() > least, (first, second)


def rejections(task, variant):
    """Objects whose draws depend on others: those that may come too near to an earlier one, or are drawn as a whole."""
    if task == "NutAssembly" and variant != "D0":
        return set(TASKS[task].objects)
    found, before = set(), []
    for name, places in ranges_of(task, variant).items():
        if task == "CoffeePreparation" and name == "coffee_pod":
            continue
        for other, others in before:
            # Least distance of two boxes in the plane.
            gaps = [max(a[0] - b[1], b[0] - a[1], 0.0) for a, b in zip(places[:2], others[:2], strict=True)]
            if np.linalg.norm(gaps) <= RADII[name] + RADII[other]:
                found.add(name)
        before.append((name, places))
    return found


@pytest.mark.parametrize("task, variant", CASES)
def test_what_is_never_rejected_is_drawn_uniformly_and_independently(tasks, task, variant):
    ranges = ranges_of(task, variant)
    free = {name: places for name, places in ranges.items() if name not in rejections(task, variant)}
    if not any(low != high for places in free.values() for low, high in places):
        pytest.skip("every object that moves may be rejected")
    share = unit(drawn(tasks[task], variant, seed=2)[1], free)
    bins = np.minimum((share * 4).astype(int), 3)
    for i in range(share.shape[1]):
        counts = np.bincount(bins[:, i], minlength=4)
        assert np.abs(counts - DRAWS / 4).max() < 5 * np.sqrt(DRAWS * 3 / 16)
        for j in range(i):
            cells = np.bincount(4 * bins[:, i] + bins[:, j], minlength=16)
            assert np.abs(cells - DRAWS / 16).max() < 5 * np.sqrt(DRAWS * 15 / 256)


def test_what_is_drawn_is_clear_of_what_was_placed():
    """Five of these hundred nuts began inside the peg, and jumped."""
    env = gym.make("ReinforceGen/D2-Square-v0")
    core: Any = env.unwrapped
    task = core.task
    peg = np.array([0.0, 0.0, task.scene.table_height + task.shapes["square_peg"].height, 1, 0, 0, 0])
    reach = task.shapes["square_peg"].radius + task.shapes["square_nut"].radius
    for seed in range(100):
        env.reset(seed=seed, options={"layout": {"square_peg": peg}})
        poses = core.object_poses()
        np.testing.assert_allclose(poses["square_peg"], peg)
        assert np.hypot(*poses["square_nut"][:2]) > reach
        # Where that is so anyway, the same is drawn.
        env.reset(seed=seed)
        drawn = core.object_poses()["square_nut"]
        assert np.array_equal(drawn, poses["square_nut"]) == (np.hypot(*drawn[:2]) > reach)


def test_a_pod_goes_with_the_drawer_that_was_placed():
    env = gym.make("ReinforceGen/D0-CoffeePreparation-v0")
    core: Any = env.unwrapped
    env.reset(seed=0)
    before = core.object_poses()
    drawer = before["drawer"] + [-0.02, -0.03, 0, 0, 0, 0, 0]
    env.reset(seed=0, options={"layout": {"drawer": drawer}})
    after = core.object_poses()
    np.testing.assert_allclose(
        (after["coffee_pod"] - after["drawer"])[:3], (before["coffee_pod"] - before["drawer"])[:3], atol=1e-9
    )
    # Put by itself it stays where it was put: in the machine's holder, say, above a machine that stands where it always does.
    pod = before["coffee_machine"] + [0, 0, 0.2, 0, 0, 0, 0]
    env.reset(seed=0, options={"layout": {"coffee_pod": pod}})
    np.testing.assert_allclose(core.object_poses()["coffee_pod"], pod)


def test_objects_that_leave_no_room_are_told_of():
    env = gym.make("ReinforceGen/D0-Coffee-v0")
    core: Any = env.unwrapped
    env.reset(seed=0)
    machine = core.object_poses()["coffee_machine"]
    pod = machine.copy()
    pod[2] = core.task.scene.table_height + core.task.shapes["coffee_pod"].height
    with pytest.warns(RuntimeWarning, match=r"\['coffee_machine'\] may touch \['coffee_pod'\].*place them too"):
        env.reset(options={"layout": {"coffee_pod": pod}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.reset(options={"layout": {"coffee_pod": pod, "coffee_machine": machine + [0, 0.3, 0, 0, 0, 0, 0]}})
