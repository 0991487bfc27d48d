"""Threading: resets, geometry, and what counts as success and as a finished stage."""

import numpy as np
import pytest
from helpers import assert_strict_implies_reference, play

from reinforcegen_envs.demos.replay import restore_first_state
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.poses import matrix_from, rotation, to_pose7
from reinforcegen_envs.sim.kernel import GRIPPER
from reinforcegen_envs.tasks import ThreadingTask

PI = np.pi
RING = np.array([0.0, 0.0, 0.088])  # centre, in the tripod's frame; the ring's normal is x
RING_HALF, NEEDLE_HALF = 0.005, 0.005  # thickness of ring and shaft
# Needle in the tripod's frame: shaft along the ring's normal, handle on +x; or across the ring's face.
THROUGH = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
ACROSS = np.eye(3)


@pytest.fixture(scope="module")
def env():
    return ManipulationEnv("Threading", "D0")


# --- resets and geometry ---


def test_reset_noises_the_arm(env):
    joints = []
    for seed in range(30):
        env.reset(seed=seed)
        joints.append(env.sim.joints.copy())
    home = [0, PI / 16, 0, -PI / 2 - PI / 3, 0, PI - 0.2, PI / 4]
    np.testing.assert_allclose(np.mean(joints, axis=0), home, atol=0.015)
    np.testing.assert_allclose(np.std(joints, axis=0), 0.02, rtol=0.4)
    env.reset(options={"joints": np.array(home)})
    np.testing.assert_allclose(env.eef_pose()[:3], [-0.1028, 0.0, 1.0110], atol=1e-4)
    np.testing.assert_allclose(env.data.qpos[env.sim.finger_qpos], [0.020833, -0.020833])


def test_masses_and_centres_of_mass(env):
    needle, tripod = env.model.body("needle"), env.model.body("tripod")
    np.testing.assert_allclose(needle.mass, 0.0076, rtol=1e-3)
    np.testing.assert_allclose(tripod.mass, 0.01809, rtol=1e-3)
    np.testing.assert_allclose(needle.ipos, [0, 0.04737, 0], atol=1e-5)
    np.testing.assert_allclose(tripod.ipos, [-0.0051, 0, -0.0281], atol=1e-4)


def geoms_of(env, body):
    model = env.model
    return [model.geom(i) for i in np.flatnonzero(model.geom_bodyid == model.body(body).id)]


def test_needle_geometry(env):
    by_name = {geom.name: geom for geom in geoms_of(env, "needle")}
    shaft, handle = by_name.pop("needle_shaft"), by_name.pop("needle_handle")
    assert not by_name
    np.testing.assert_allclose(shaft.size, [0.005, 0.06, 0.005])
    np.testing.assert_allclose(shaft.pos, [0, -0.02, 0])
    np.testing.assert_allclose(shaft.friction, [0.3, 0.005, 1e-4])
    np.testing.assert_allclose(handle.size, [0.02, 0.02, 0.02])
    np.testing.assert_allclose(handle.pos, [0, 0.06, 0])
    np.testing.assert_allclose(handle.friction, [1.0, 0.005, 1e-4])
    for geom in (shaft, handle):
        assert geom.condim == 3
        np.testing.assert_allclose(geom.solref, [0.02, 1])


def test_tripod_geometry(env):
    geoms = geoms_of(env, "tripod")
    ring = [geom for geom in geoms if geom.name.startswith("ring_")]
    assert len(ring) == 20 and len(geoms) == 25
    centres = np.array([geom.pos for geom in ring])
    np.testing.assert_allclose(centres.mean(axis=0), RING, atol=1e-12)
    np.testing.assert_allclose([geom.size for geom in ring], [[0.005, 0.002, 0.002]] * 20)
    np.testing.assert_allclose([geom.friction for geom in ring], [[0.3, 0.005, 1e-4]] * 20)
    # Opening 16 x 16 mm, outside 24 x 24 mm.
    offsets = np.abs(centres - RING)[:, 1:].max(axis=1)
    np.testing.assert_allclose(offsets, 0.010)
    post, plate = env.model.geom("tripod_post"), env.model.geom("tripod_plate")
    np.testing.assert_allclose(post.size, [0.005, 0.005, 0.043])
    np.testing.assert_allclose(post.pos, [0, 0, 0.033])
    np.testing.assert_allclose(plate.size, [0.05, 0.05, 0.005])
    np.testing.assert_allclose(plate.pos, [0, 0, -0.015])
    legs = [env.model.geom(f"tripod_leg_{i}") for i in range(3)]
    np.testing.assert_allclose([leg.size[:2] for leg in legs], [[0.01, 0.03]] * 3)
    np.testing.assert_allclose(
        [leg.pos for leg in legs], [[-0.04, -0.04, -0.06], [-0.04, 0.04, -0.06], [0.04, 0, -0.06]]
    )
    quats = [[0.96593, -0.18301, 0.18301, 0], [0.96593, 0.18301, 0.18301, 0], [0.96593, 0, -0.25882, 0]]
    np.testing.assert_allclose([leg.quat for leg in legs], quats, atol=1e-5)


def test_a_dropped_tripod_stands(env):
    env.reset(seed=0)
    for _ in range(20):
        env.step(np.zeros(7))
    assert env.object_poses()["tripod"][2] == pytest.approx(0.901 - 0.0052, abs=3e-4)
    assert env.predicates()["tripod_standing"] and env.predicates()["at_rest"]


# --- success ---


def needle_at(tripod, centre, turn=THROUGH):
    """Needle pose, world, with the shaft's centre at ``centre`` from the ring's, in the tripod's frame."""
    shaft_centre = np.array([0.0, -0.02, 0.0])
    return tripod @ matrix_from(turn, RING + np.asarray(centre, float) - turn @ shaft_centre)


def arrange(env, centre, turn=THROUGH, tripod=None, floating=("needle",), velocity=(0, 0, 0)):
    """Start the last stage with the needle at the ring, the arm away; what floats is freed of its weight.

    Returns:
        the needle's pose (7,) and whether the reference check counts it.
    """
    if tripod is None:
        tripod = matrix_from(rotation([0, 0, PI / 2])[:3, :3], np.array([0.0, -0.15, 0.8958]))
    needle = to_pose7(needle_at(tripod, centre, turn))
    env.reset(seed=0, options={"layout": {"tripod": to_pose7(tripod), "needle": needle}})
    for name in floating:
        body = env.model.body(name)
        env.data.xfrc_applied[body.id, 2] = 9.81 * body.mass[0]
    address = env.task.object_dof["needle"]
    env.data.qvel[address : address + 3] = velocity
    env.refresh()
    env.engine.enter_stage(1)
    return needle, env.task.reference_success(env.sim)


def test_needle_held_in_the_ring_counts(env):
    _, reference = arrange(env, (0, 0, 0))
    assert reference
    rewards = []
    for _ in range(ThreadingTask.success_steps):
        _, reward, terminated, _, info = env.step(np.zeros(7))
        rewards.append(reward)
    assert terminated and info["success"] and all(info["predicates"].values())
    assert rewards == [0.0] * (ThreadingTask.success_steps - 1) + [0.5]


def test_needle_across_the_face_of_the_ring_fools_only_the_reference(env):
    _, reference = arrange(env, (RING_HALF + NEEDLE_HALF + 2e-4, 0, 0), turn=ACROSS)
    assert reference
    assert play(env) == (False, True)
    assert not env.predicates()["through_ring"]


def test_needle_let_go_stays_in_the_ring_and_counts(env):
    arrange(env, (0, 0, 0), floating=())
    assert play(env, 100) == (True, True)
    assert all(env.predicates().values())


@pytest.mark.parametrize("speed", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("way", [-1, 1])
def test_needle_passing_at_speed_fools_only_the_reference(env, speed, way):
    # Along the ring's normal, which is the world's y here.
    arrange(env, (-way * 0.004, 0, 0), velocity=(0, way * speed, 0))
    assert env.task.reference_success(env.sim)
    strict, _ = play(env, 10)
    assert not strict


def test_toppled_tripod_with_the_needle_inside_fools_only_the_reference(env):
    lying = matrix_from(rotation([PI / 2, 0, 0])[:3, :3], np.array([0.0, -0.1, 0.87]))
    _, reference = arrange(env, (0, 0, 0), tripod=lying, floating=("needle", "tripod"))
    assert reference
    assert play(env) == (False, True)
    assert not env.predicates()["tripod_standing"]
    assert env.task.failure(env.sim, 1) == "tripod toppled"


@pytest.mark.parametrize(
    "centre, through",
    [
        ((0, 0.0175, 0), False),  # beside the ring
        ((0, -0.0175, 0), False),
        ((0, 0, 0.0175), False),  # over it
        ((0.075, 0, 0), False),  # in front of it
        ((0.055, 0, 0), True),  # only the tip inside
        ((0.02, 0, 0), True),  # not far enough
        ((-0.02, 0, 0), True),  # too far
    ],
)
def test_needle_elsewhere_counts_nowhere(env, centre, through):
    _, reference = arrange(env, centre)
    assert not reference
    assert play(env) == (False, False)
    predicates = env.predicates()
    assert not predicates["centred"] and predicates["through_ring"] == through


def test_success_needs_the_last_stage(env):
    arrange(env, (0, 0, 0))
    env.engine.enter_stage(0)
    assert play(env) == (False, True)


def scattered(env):
    """Put the needle near success, or anywhere about the ring, again and again."""
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    tripod = env.task.object_pose(env.sim, "tripod")
    for i in range(3000):
        near = i % 2  # near success, or anywhere about the ring
        centre = rng.normal(0, 0.006 if near else 0.02, 3)
        turn = rotation(rng.normal(0, 0.15 if near else 1.5, 3))[:3, :3] @ THROUGH
        lean = rotation(rng.normal(0, 0.15, 3)) if near else np.eye(4)
        layout = {
            "tripod": to_pose7(tripod @ lean),
            "needle": to_pose7(needle_at(tripod @ lean, centre, turn)),
        }
        env.task.place(env.sim, layout)
        address = env.task.object_dof["needle"]
        env.data.qvel[address : address + 3] = rng.normal(0, 0.03, 3)
        yield


def test_strict_implies_reference(env):
    assert_strict_implies_reference(env, scattered(env), least=100)


# --- the grasp stage ---


@pytest.fixture(scope="module")
def lifted(env, source_demos):
    """A moment of a source demonstration at which the needle hangs in the hand: qpos."""
    demo = source_demos[0]
    restore_first_state(env, demo)
    for action in demo.actions:
        env.step(action)
        if env.object_poses()["needle"][2] > 0.85:
            break
    assert env.task.stage_done(env.sim, 0)
    return env.data.qpos.copy()


def set_qpos(env, qpos, finger_1=0.0, finger_2=0.0, needle_z=0.0):
    """Write ``qpos`` with fingers opened by so many metres and the needle moved up by so many."""
    env.data.qpos[:] = qpos
    first, second = env.sim.finger_qpos
    env.data.qpos[first] += finger_1
    env.data.qpos[second] -= finger_2
    env.data.qpos[env.task.object_qpos["needle"] + 2] += needle_z
    env.data.qvel[:] = 0.0
    env.refresh()


def pads_touching(env):
    """Which finger pads touch the needle."""
    model = env.model
    needle = set(env.task.object_geoms["needle"])
    names = set()
    for pair in env.data.contact.geom:
        if needle & set(pair):
            names |= {model.geom(int(i)).name for i in pair}
    return [i for i in (1, 2) if f"gripper0_right_finger{i}_pad_collision" in names]


def test_grasp_is_done_with_the_needle_in_the_air_between_both_pads(env, lifted):
    set_qpos(env, lifted)
    assert pads_touching(env) == [1, 2]
    assert env.task.grasped(env.sim, "needle") and env.task.stage_done(env.sim, 0)


@pytest.mark.parametrize("opened, touching", [((0.004, 0.0), [2]), ((0.0, 0.004), [1]), ((0.004, 0.004), [])])
def test_grasp_is_not_done_when_pads_miss_the_needle(env, lifted, opened, touching):
    set_qpos(env, lifted, *opened)
    assert pads_touching(env) == touching
    assert env.object_poses()["needle"][2] > 0.85  # as if pushed up by something else
    assert not env.task.grasped(env.sim, "needle") and not env.task.stage_done(env.sim, 0)


def test_grasp_is_not_done_while_the_needle_lies_between_the_pads(env, source_demos):
    demo = source_demos[0]
    restore_first_state(env, demo)
    seen = 0
    for action in demo.actions:
        env.step(action)
        if env.task.grasped(env.sim, "needle") and env.object_poses()["needle"][2] < 0.835:
            seen += 1
            assert not env.task.stage_done(env.sim, 0)
    assert seen > 3


def test_a_stage_must_look_finished_for_some_steps(env, lifted):
    env.reset(seed=0)
    set_qpos(env, lifted)
    env.sim.controller[GRIPPER] = 1.0  # closed
    env.engine.enter_stage(0)
    closing = np.array([0, 0, 0, 0, 0, 0, 1.0])
    rewards, stages = [], []
    for _ in range(5):
        _, reward, _, _, info = env.step(closing)
        rewards.append(reward)
        stages.append(info["stage_name"])
    assert sum(rewards) == 0.5
    assert stages[0] == "grasp" and stages[-1] == "insert"


def test_a_needle_that_creeps_in_the_ring_stays_a_success(env):
    """Only movement within the held steps counts; a slow drift over many steps once restarted the count."""
    arrange(env, (0.004, 0, 0), velocity=(0, 0, 0))
    tripod = env.task.object_pose(env.sim, "tripod")
    for x in np.linspace(0.004, -0.004, 20):  # 0.4 mm a control step: 8 mm a second
        env.task.place(env.sim, {"needle": to_pose7(needle_at(tripod, (x, 0, 0)))})
        env.sim.refresh()
        env.engine.judge.step()
    assert env.engine.judge.success
