"""Coffee: geometry, and what counts as success and as a finished stage."""

import numpy as np
import pytest
from helpers import assert_strict_implies_reference, play

from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.replay import restore_first_state
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.models.coffee import LID_JOINT
from reinforcegen_envs.poses import rotation, to_pose7, translation
from reinforcegen_envs.tasks import CoffeeTask

PI = np.pi
HOLDER = np.array([0.0, 0.1061, 0.0635])  # centre, in the machine's frame
SEATED = 0.0077  # metres of a resting pod's centre over the holder's


@pytest.fixture(scope="module")
def env():
    return ManipulationEnv("Coffee", "D0")


@pytest.fixture(scope="module")
def demos():
    return read_demos(source_file("Coffee"), "Coffee")


# --- geometry ---


def test_masses(env):
    mass = {name: float(env.model.body(name).mass[0]) for name in ("coffee_machine_lid", "coffee_pod")}
    assert mass["coffee_machine_lid"] == pytest.approx(0.0911, rel=1e-3)
    assert mass["coffee_pod"] == pytest.approx(0.006954, rel=1e-3)
    # Body 6.313, base 0.0764, bracket 0.00522, lid 0.0911, holder 0.0699, cup 0.0722.
    machine = env.model.body("coffee_machine")
    assert float(env.model.body_subtreemass[machine.id]) == pytest.approx(6.6278, rel=1e-3)


def test_holder_is_a_tube_with_a_floor(env):
    holder = env.model.body("coffee_machine_pod_holder")
    np.testing.assert_allclose(holder.pos, HOLDER)
    walls = [env.model.geom(i) for i in np.flatnonzero(env.model.geom_bodyid == holder.id)]
    floor = next(geom for geom in walls if geom.name == "pod_holder_floor")
    walls.remove(floor)
    assert floor.pos[2] + floor.size[1] == pytest.approx(-0.016)
    for geom in walls:
        assert np.hypot(*geom.pos[:2]) - geom.size[0] == pytest.approx(0.02497)
        assert np.hypot(*geom.pos[:2]) + geom.size[0] == pytest.approx(0.0295)
        assert geom.size[2] == pytest.approx(0.028)
    assert len(walls) < 64


def test_lid_hinge(env):
    joint = env.model.joint(LID_JOINT)
    np.testing.assert_allclose(joint.range, [0, 2 * PI / 3])
    np.testing.assert_allclose(joint.axis, [1, 0, 0])
    np.testing.assert_allclose(joint.pos, [0, -0.044, 0])
    np.testing.assert_allclose(env.model.body("coffee_machine_lid").pos, [0, 0.1045, 0.106])


@pytest.mark.parametrize("angle, shut", [(1.5, True), (1.55, True), (1.65, False)])
def test_a_lid_let_go_falls_shut_or_open(env, angle, shut):
    env.reset(seed=0)
    env.data.qpos[env.model.joint(LID_JOINT).qposadr[0]] = angle
    env.refresh()
    for _ in range(40):
        env.step(np.zeros(7))
    assert env.task.hinge(env.sim) == pytest.approx(0.0 if shut else 2 * PI / 3, abs=0.01)


def test_reset_opens_the_lid_and_nothing_moves(env):
    env.reset(seed=3)
    before = env.object_poses()
    for _ in range(20):
        env.step(np.zeros(7))
    for name, pose in env.object_poses().items():
        np.testing.assert_allclose(pose[:3], before[name][:3], atol=2e-4)
    assert env.task.hinge(env.sim) == pytest.approx(2 * PI / 3, abs=0.01)


# --- success ---


def arrange(env, pod, hinge, lean=0.0):
    """Start the last stage with the pod at ``pod`` (4, 4) in the machine's frame, the lid at ``hinge`` radians."""
    env.reset(seed=0)
    machine = env.task.object_pose(env.sim, "coffee_machine") @ rotation([lean, 0, 0])
    env.task.place(env.sim, {"coffee_machine": to_pose7(machine), "coffee_pod": to_pose7(machine @ pod)})
    env.data.qpos[env.model.joint(LID_JOINT).qposadr[0]] = hinge
    env.refresh()
    env.engine.enter_stage(1)


def in_holder(x=0.0, y=0.0, z=SEATED):
    return translation(*(HOLDER + [x, y, z]))


@pytest.mark.parametrize("x, y", [(0, 0), (0.0005, 0), (0, -0.0005)])
def test_pod_under_the_shut_lid_counts(env, x, y):
    arrange(env, in_holder(x, y), 0.0)
    assert play(env) == (True, True)
    assert all(env.predicates().values())


def test_a_resting_pod_is_where_the_reference_pod_rests(env):
    arrange(env, in_holder(z=0.012), 2.0)
    for _ in range(20):
        env.step(np.zeros(7))
    pod = env.object_poses()["coffee_pod"][2]
    assert pod - (0.9105 + HOLDER[2]) == pytest.approx(SEATED, abs=4e-4)


def test_open_lid_does_not_count(env):
    arrange(env, in_holder(), 2 * PI / 3)
    assert play(env) == (False, False)
    assert [name for name, holds in env.predicates().items() if not holds] == ["lid_shut"]


def test_lid_not_quite_shut_fools_only_the_reference(env):
    arrange(env, in_holder(), np.deg2rad(12))
    assert env.task.reference_success(env.sim)
    assert not env.predicates()["lid_shut"]


def test_upside_down_pod_fools_only_the_reference(env):
    arrange(env, in_holder() @ rotation([PI, 0, 0]), 0.0)
    strict, reference = play(env)
    assert reference and not strict
    assert not env.predicates()["pod_upright"]


def test_pod_passing_at_speed_fools_only_the_reference(env):
    arrange(env, in_holder(z=0.0082), 0.0)
    env.data.qvel[env.task.object_dof["coffee_pod"] + 2] = -0.3
    env.refresh()
    assert env.task.reference_success(env.sim) and not env.predicates()["at_rest"]


@pytest.mark.parametrize(
    "pod",
    [
        in_holder(x=0.06),  # beside the holder
        in_holder(z=0.05),  # above the lid
        in_holder(z=-0.06),  # under the holder
        translation(0.0, 0.1061, -0.075),  # where the cup is
    ],
)
def test_pod_elsewhere_counts_nowhere(env, pod):
    arrange(env, pod, 0.0)
    assert not env.task.reference_success(env.sim)
    assert not env.predicates()["pod_in_holder"]


def test_toppled_machine_with_the_pod_inside_fails(env):
    env.reset(seed=0)
    lying = translation(0, -0.1, 1.0) @ rotation([0, PI / 2, 0])
    env.task.place(env.sim, {"coffee_machine": to_pose7(lying), "coffee_pod": to_pose7(lying @ in_holder())})
    env.refresh()
    env.engine.enter_stage(1)
    assert env.task.failure(env.sim, 1) == "machine toppled"
    assert not env.predicates()["machine_upright"]


def test_pod_on_the_table_is_a_failure_of_the_last_stage_only(env):
    env.reset(seed=0)
    assert env.task.failure(env.sim, 0) == ""
    assert env.task.failure(env.sim, 1) == "pod dropped"


def scattered(env):
    """Put the pod about the holder under a lid that is shut, or nearly so, again and again."""
    rng = np.random.default_rng(0)
    hinge = env.model.joint(LID_JOINT).qposadr[0]
    env.reset(seed=0)
    machine = env.task.object_pose(env.sim, "coffee_machine")
    for i in range(3000):
        near = i % 2
        spread = 0.0012 if near else 0.006
        tilt = rotation(rng.normal(0, 0.05 if near else 1.5, 3))
        pod = machine @ in_holder(rng.normal(0, spread), rng.normal(0, spread), SEATED + rng.normal(0, spread)) @ tilt
        env.task.place(env.sim, {"coffee_pod": to_pose7(pod)})
        env.data.qpos[hinge] = abs(rng.normal(0, 0.05 if near else 0.2))
        address = env.task.object_dof["coffee_pod"]
        env.data.qvel[address : address + 3] = rng.normal(0, 0.03, 3)
        yield


def test_strict_implies_reference(env):
    assert_strict_implies_reference(env, scattered(env), least=50)


# --- the grasp stage ---


def test_grasp_is_not_done_on_the_table_and_pod_in_hand_does_not_count(env, demos):
    demo = demos[0]
    restore_first_state(env, demo)
    on_table = held_in_holder = 0
    for action in demo.actions:
        _, _, terminated, _, _ = env.step(action.astype(np.float32))
        grasped = env.task.grasped(env.sim, "coffee_pod")
        low = env.object_poses()["coffee_pod"][2] < 0.85
        if env.engine.stage == 0 and grasped and low:
            on_table += 1
            assert not env.task.stage_done(env.sim, 0)
        if grasped:
            held_in_holder += env.task.touched(env.sim, "coffee_pod")
            assert not env.predicates()["pod_released"]
        if terminated:
            break
    assert on_table > 2 and held_in_holder > 5
    assert CoffeeTask.stages[1].held == "coffee_pod"
