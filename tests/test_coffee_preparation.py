"""Coffee Preparation: resets, geometry, and what counts as success and as a finished stage."""

import numpy as np
import pytest
from helpers import assert_strict_implies_reference, play, visit

from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.models.coffee import DRAWER_JOINT, LID_JOINT, MUG_AXIS, MUG_ON_PLATE, MUG_RIM, MUG_WALL_RADIUS
from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.poses import from_pose7, invert, rotation, to_pose7, translation
from reinforcegen_envs.sim.simulation import INITIAL_JOINTS, Simulation
from reinforcegen_envs.tasks.coffee_preparation import CoffeePreparationTask

PI = np.pi
RANGES = {
    "D0": {
        "drawer": ((0.15, 0.15), (-0.35, -0.35)),
        "coffee_machine": ((-0.15, -0.15), (-0.25, -0.25)),
        "mug": ((0.05, 0.2), (0.05, 0.25)),
    },
    "D1": {
        "drawer": ((0.15, 0.15), (-0.35, -0.35)),
        "coffee_machine": ((-0.25, -0.15), (-0.3, -0.25)),
        "mug": ((-0.15, 0.2), (0.05, 0.25)),
    },
    "D2": {
        "drawer": ((0.15, 0.15), (0.35, 0.35)),
        "coffee_machine": ((-0.23, -0.15), (-0.3, -0.25)),
        "mug": ((-0.05, 0.15), (-0.25, -0.05)),
    },
}
MUG_PLACE = (0, 0.14, MUG_ON_PLATE)  # of the mug's root in the machine's frame
IN_HOLDER = translation(0, 0.1061, 0.0635 + 0.0077)


@pytest.fixture(scope="module")
def sim():
    return Simulation(load_scene(CoffeePreparationTask.scene))


@pytest.fixture(scope="module")
def task(sim):
    return CoffeePreparationTask(sim.model)


def arrange(sim, task, layout, steps=0, **joints):
    sim.reset(INITIAL_JOINTS)
    task.place(sim, task.sample_layout("D0", np.random.default_rng(0)) | layout)
    for name, value in joints.items():
        sim.data.qpos[sim.model.joint(name).qposadr[0]] = value
    sim.refresh()
    for _ in range(steps):
        sim.step(np.zeros(7))


def on_machine(sim, task, mug=MUG_PLACE, tilt=0.0, pod=IN_HOLDER):
    """Layout with mug (root in the machine's frame) and pod at the machine."""
    machine = from_pose7(task.sample_layout("D0", np.random.default_rng(0))["coffee_machine"])
    return {
        "mug": to_pose7(machine @ translation(*mug) @ rotation([tilt, 0, 0])),
        "coffee_pod": to_pose7(machine @ pod),
    }


@pytest.mark.parametrize("variant", sorted(RANGES))
def test_resets_stay_inside_their_ranges(task, variant):
    rng = np.random.default_rng(0)
    layouts = [task.sample_layout(variant, rng) for _ in range(2000)]
    for name, ranges in RANGES[variant].items():
        poses = np.array([layout[name] for layout in layouts])
        for drawn, (low, high) in zip((poses[:, 0], poses[:, 1]), ranges, strict=True):
            assert low - 1e-9 <= drawn.min() and drawn.max() <= high + 1e-9
            # Rejections near the machine thin out D2's mugs at one end.
            assert drawn.max() - drawn.min() >= 0.85 * (high - low) - 1e-9
    pods = np.array(
        [(invert(from_pose7(layout["drawer"])) @ from_pose7(layout["coffee_pod"]))[:3, 3] for layout in layouts]
    )
    np.testing.assert_allclose(pods[:, 2], 0.054 + 0.023103 + 0.001)
    assert np.abs(pods[:, 0]).max() <= 0.03 + 1e-9
    assert -0.05 - 0.05 - 1e-9 <= pods[:, 1].min() and pods[:, 1].max() <= -0.05 + 0.03 + 1e-9


def test_masses_and_start(sim, task):
    assert float(sim.model.body("mug").mass[0]) == pytest.approx(0.013, rel=1e-3)
    np.testing.assert_allclose(sim.model.body("mug").ipos, [0.0003, -0.0191, -0.0068], atol=1.5e-3)
    assert float(sim.model.body("drawer_tray").mass[0]) == pytest.approx(7.85398)
    arrange(sim, task, {}, steps=30)
    assert task.hinge(sim) == pytest.approx(0, abs=0.01) and task.drawer(sim) == pytest.approx(0, abs=1e-3)
    assert task.upright(sim, "mug", 0.999) and task.failure(sim, 0) == ""


def test_pod_rides_in_the_drawer(sim, task):
    arrange(sim, task, {}, steps=5)
    height = task.height(sim, "coffee_pod")
    address = sim.model.joint(DRAWER_JOINT).dofadr[0]
    before = float(sim.data.xpos[task.object_body["coffee_pod"], 1])
    for _ in range(40):
        sim.data.qvel[address] = -0.1
        sim.step(np.zeros(7))
    assert task.drawer(sim) < -0.05
    assert task.height(sim, "coffee_pod") == pytest.approx(height, abs=2e-3)
    assert float(sim.data.xpos[task.object_body["coffee_pod"], 1]) - before > 0.04  # towards the table's middle


def test_everything_in_place_counts(sim, task):
    arrange(sim, task, on_machine(sim, task), steps=10)
    assert all(task.predicates(sim).values()) and task.reference_success(sim)


@pytest.mark.parametrize(
    "change, joints",
    [
        ({}, {LID_JOINT: 2 * PI / 3}),  # lid open
        ({"mug": (0.2, 0.2, -0.07)}, {}),  # mug on the table
        ({"tilt": 0.2}, {}),  # mug leaning
        ({"pod": translation(0.1, 0.1061, 0.1)}, {}),  # pod beside the holder
    ],
)
def test_what_must_not_count(sim, task, change, joints):
    arrange(sim, task, on_machine(sim, task, **change), **joints)
    assert not all(task.predicates(sim).values())
    assert not task.reference_success(sim)


def test_upside_down_pod_fools_only_the_reference(sim, task):
    arrange(sim, task, on_machine(sim, task, pod=IN_HOLDER @ rotation([PI, 0, 0])), steps=10)
    assert task.reference_success(sim) and not task.predicates(sim)["pod_upright"]


# --- success, in an environment ---


@pytest.fixture(scope="module")
def env():
    return ManipulationEnv("CoffeePreparation", "D0")


@pytest.fixture(scope="module")
def demos():
    return read_demos(source_file("CoffeePreparation"), "CoffeePreparation")


def start_last_stage(env, hinge=0.0, **change):
    """Start the last stage with mug and pod at the machine, see `on_machine`."""
    env.reset(seed=0)
    env.task.place(env.sim, on_machine(env.sim, env.task, **change))
    env.data.qpos[env.model.joint(LID_JOINT).qposadr[0]] = hinge
    env.refresh()
    env.engine.enter_stage(4)


@pytest.mark.parametrize("mug", [MUG_PLACE, (0.01, 0.135, MUG_ON_PLATE), (0, 0.15, MUG_ON_PLATE + 0.001)])
def test_mug_on_the_plate_and_pod_under_the_lid_count(env, mug):
    start_last_stage(env, mug=mug)
    assert play(env) == (True, True)


def test_drawer_may_be_open_or_shut(env):
    start_last_stage(env)
    env.data.qpos[env.model.joint(DRAWER_JOINT).qposadr[0]] = -0.19
    env.refresh()
    assert play(env) == (True, True)


def test_mug_on_the_table_touching_the_plate_fools_only_the_reference(env):
    # Its wall touches the plate's round front; it stands 1 cm lower than on the plate.
    start_last_stage(env, mug=(0, 0.1515 + 0.0355 - MUG_AXIS + 2e-4, MUG_ON_PLATE - 0.01))
    assert env.task.reference_success(env.sim) and not env.predicates()["mug_on_plate"]


@pytest.mark.parametrize(
    "change",
    [
        {"hinge": 2 * PI / 3},  # lid not shut
        {"mug": (0.2, 0.2, MUG_ON_PLATE - 0.01)},  # mug on the table
        {"mug": (0, 0.15, MUG_ON_PLATE + 0.02)},  # mug in the air
        {"mug": (0, 0.19, -0.06), "tilt": 0.5},  # mug leaning on the plate's edge
        {"pod": translation(0.1, 0.1061, -0.085)},  # pod beside the holder
        {"pod": translation(0, 0.1061, 0.16)},  # pod on the lid
    ],
)
def test_what_counts_nowhere(env, change):
    start_last_stage(env, **change)
    assert not env.task.reference_success(env.sim) and not all(env.predicates().values())


def test_lid_not_quite_shut_fools_only_the_reference(env):
    start_last_stage(env, hinge=np.deg2rad(12))
    assert env.task.reference_success(env.sim) and not env.predicates()["lid_shut"]


def scattered(env):
    """Put pod and mug about their places, the lid shut or nearly so, again and again."""
    rng = np.random.default_rng(0)
    hinge = env.model.joint(LID_JOINT).qposadr[0]
    env.reset(seed=0)
    machine = env.task.object_pose(env.sim, "coffee_machine")
    for i in range(1500):
        near = i % 2
        metres, radians = (0.0006, 0.008) if near else (0.003, 0.3)
        pod = translation(*rng.normal(0, metres, 3)) @ IN_HOLDER @ rotation(rng.normal(0, radians, 3))
        mug = (
            translation(*MUG_PLACE) @ translation(*rng.normal(0, metres, 3)) @ rotation(rng.normal(0, radians / 20, 3))
        )
        env.task.place(env.sim, {"coffee_pod": to_pose7(machine @ pod), "mug": to_pose7(machine @ mug)})
        env.data.qpos[hinge] = abs(rng.normal(0, 0.05 if near else 0.2))
        address = env.task.object_dof["coffee_pod"]
        env.data.qvel[address : address + 3] = rng.normal(0, 0.03, 3)
        yield


def test_strict_implies_reference(env):
    assert_strict_implies_reference(env, scattered(env), least=50)


# --- stages, on the way of a demonstration ---


@pytest.fixture(scope="module")
def visited(env, demos):
    return visit(env, demos[0])


def test_stages_are_not_done_too_early(env, visited):
    held_mug = shut_lid = held_drawer = low_pod = 0
    for state, stage, done, *_ in visited:
        env.set_state(state)
        task, sim = env.task, env.sim
        if stage == 1 and task.touched(sim, "mug"):
            held_mug += 1
            assert not done[1] and not env.predicates()["mug_released"]
        if stage == 1 and task.mug_placed(sim) and task.hinge(sim) < 0.1:
            shut_lid += 1
            assert not done[1]
        if stage == 2 and task.drawer(sim) < -0.19 and task.touched(sim, "drawer"):
            held_drawer += 1
            assert not done[2]
        if stage == 3 and task.grasped(sim, "coffee_pod") and task.height(sim, "coffee_pod") < 0.1:
            low_pod += 1
            assert not done[3]
    assert min(held_mug, shut_lid, held_drawer, low_pod) > 2


def test_sources_take_the_mug_by_its_rim_all_round_it(demos):
    grasps = []
    for demo in demos:
        closing = int(np.argmax(demo.gripper_action[:, 0] > 0))
        x, y, z = (invert(demo.object_poses["mug"][closing]) @ demo.eef_pose[closing])[:3, 3]
        assert np.hypot(x, y - MUG_AXIS) == pytest.approx(MUG_WALL_RADIUS, abs=0.004)
        assert z == pytest.approx(MUG_RIM - 0.004, abs=0.004)
        grasps.append(np.arctan2(y - MUG_AXIS, x))
    around = np.sort(grasps)
    gaps = np.diff(np.append(around, around[0] + 2 * PI))
    assert gaps.max() < np.deg2rad(90) and np.sort(gaps)[-2] < np.deg2rad(50)  # the widest is the handle's


def test_the_lid_is_opened_without_moving_the_machine(env, visited):
    moved = []
    for state, stage, *_ in visited:
        env.set_state(state)
        if stage == 1:
            moved.append(env.task.upright(env.sim, "coffee_machine", np.cos(np.deg2rad(2))))
    assert all(moved) and len(moved) > 50


def test_pod_still_held_does_not_count(env, visited):
    seen = 0
    for state, stage, *_ in visited:
        env.set_state(state)
        if stage == 4 and env.task.grasped(env.sim, "coffee_pod"):
            seen += 1
            assert not env.predicates()["pod_released"]
    assert seen > 5


@pytest.mark.parametrize(
    "stage, change, reason",
    [
        (0, {"mug": (0.9, 0.9, -0.4)}, "object off the table"),
        (1, {"mug": (0.2, 0.2, 0.0), "tilt": PI / 2}, "mug toppled"),
        (2, {"mug": (0.2, 0.2, MUG_ON_PLATE - 0.01)}, "mug off the plate"),
        (4, {"pod": translation(0.2, 0.2, -0.087)}, "pod dropped"),
    ],
)
def test_failures_are_told(env, stage, change, reason):
    start_last_stage(env)
    assert [env.task.failure(env.sim, i) for i in range(5)] == [""] * 5
    start_last_stage(env, **change)
    assert env.task.failure(env.sim, stage) == reason


def test_a_toppled_machine_is_a_failure(env):
    env.reset(seed=0)
    env.task.place(env.sim, {"coffee_machine": to_pose7(translation(0, -0.1, 1.0) @ rotation([0, PI / 2, 0]))})
    env.refresh()
    assert env.task.failure(env.sim, 1) == "machine toppled"
