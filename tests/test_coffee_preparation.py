"""Coffee Preparation's objects, resets and checks; the task has no demonstrations yet and is not registered."""

import numpy as np
import pytest

from reinforcegen_envs.models.coffee import DRAWER_JOINT, LID_JOINT
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
        "coffee_machine": ((-0.25, -0.15), (-0.3, -0.25)),
        "mug": ((-0.15, 0.2), (-0.25, -0.05)),
    },
}
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


def on_machine(sim, task, mug=(0, 0.14, -0.061), tilt=0.0, pod=IN_HOLDER):
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
