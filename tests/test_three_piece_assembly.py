"""Three Piece Assembly: geometry, and what counts as success and as a finished stage."""

import numpy as np
import pytest
from helpers import assert_strict_implies_reference, play, visit

from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.segments import cut
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.poses import from_pose7, invert, rotation, to_pose7, translation
from reinforcegen_envs.tasks import ThreePieceAssemblyTask

PI = np.pi
HEIGHTS = {"base": 0.82, "piece_1": 0.852, "piece_2": 0.881}  # 1 mm over where they come to lie
# The cubes that MimicGen builds the pieces from: half size, centres in units of the pitch (twice that), density.
RING = [(i, j, 0) for i in range(-2, 3) for j in range(-2, 3) if 2 in (abs(i), abs(j))]
PLATE = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
CUBES = {
    "base": (0.019, RING, 10000.0),
    "piece_1": (0.017, [(*p, -1) for p in PLATE] + [(0, j, k) for j in (-1, 0, 1) for k in (0, 1)], 100.0),
    "piece_2": (
        0.020,
        [(i, j, k) for i in (-1, 1) for j in (-1, 0, 1) for k in (-1.5, -0.5)]
        + [(*p, 0.5) for p in PLATE]
        + [(0, 0, 1.5)],
        100.0,
    ),
}
BASE = translation(0.0, 0.0, 0.819)
SEATED_1, SEATED_2 = 0.032, 0.099  # roots over the base's


def yaw(angle):
    return rotation([0.0, 0.0, angle])


@pytest.fixture(scope="module")
def env():
    return ManipulationEnv("ThreePieceAssembly", "D0")


@pytest.fixture(scope="module")
def demos():
    return read_demos(source_file("ThreePieceAssembly"), "ThreePieceAssembly")


# --- geometry ---


@pytest.mark.parametrize("name", sorted(CUBES))
def test_merged_boxes_weigh_and_fill_what_the_cubes_do(env, name):
    half, cells, density = CUBES[name]
    centres = 2 * half * np.array(cells)
    mass = density * (2 * half) ** 3
    com = centres.mean(axis=0)
    inertia = np.zeros((3, 3))
    for offset in centres - com:
        inertia += mass * ((2 / 3) * half**2 + offset @ offset) * np.eye(3) - mass * np.outer(offset, offset)
    body = env.model.body(name)
    np.testing.assert_allclose(body.mass, mass * len(cells), rtol=1e-9)
    np.testing.assert_allclose(body.ipos, com, atol=1e-9)
    np.testing.assert_allclose(np.sort(body.inertia), np.sort(np.diag(inertia)), rtol=1e-9)
    # Same shape: random points are inside a box exactly if they are inside a cube.
    points = np.random.default_rng(0).uniform(-0.11, 0.11, (5_000, 3))
    in_cube = (np.abs(points[:, None] - centres).max(axis=2) < half).any(axis=1)
    geoms = [env.model.geom(i) for i in np.flatnonzero(env.model.geom_bodyid == body.id)]
    in_box = np.zeros(len(points), bool)
    for geom in geoms:
        assert geom.condim == 3
        np.testing.assert_allclose(geom.friction, [1.0, 0.005, 1e-4])
        np.testing.assert_allclose(geom.quat, [1, 0, 0, 0])
        in_box |= (np.abs(points - geom.pos) < geom.size).all(axis=1)
    assert (in_box == in_cube).all() and in_cube.any()


def test_masses_are_the_fact_sheets(env):
    for name, mass in {"base": 8.7795, "piece_1": 0.05896, "piece_2": 0.1408}.items():
        np.testing.assert_allclose(env.model.body(name).mass, mass, rtol=1e-3)


# --- success ---


def arrange(env, in_base_1, in_base_2, floating=()):
    """Start the last stage with the pieces at poses (4, 4) in the base's frame, the arm away.

    What floats is freed of its weight.

    Returns:
        whether the reference check counts it.
    """
    layout = {"base": BASE, "piece_1": BASE @ in_base_1, "piece_2": BASE @ in_base_2}
    env.reset(seed=0, options={"layout": {name: to_pose7(pose) for name, pose in layout.items()}})
    env.data.xfrc_applied[:] = 0.0
    for name in floating:
        body = env.model.body(name)
        env.data.xfrc_applied[body.id, 2] = 9.81 * body.mass[0]
    env.refresh()
    env.engine.enter_stage(3)
    return env.task.reference_success(env.sim)


def in_hole(x=0.0, y=0.0, angle=0.0, up=0.0):
    return translation(x, y, SEATED_1 + up) @ yaw(angle)


def astride(x=0.0, y=0.0, angle=0.0, up=0.0):
    return translation(x, y, SEATED_2 + up) @ yaw(angle)


@pytest.mark.parametrize("angle", [0, PI / 2, PI, -PI / 2])
@pytest.mark.parametrize("turned", [0, PI])
def test_every_way_in_which_the_pieces_fit_counts(env, angle, turned):
    assert arrange(env, in_hole(angle=angle), astride(angle=angle + turned))
    rewards = []
    for _ in range(ThreePieceAssemblyTask.success_steps):
        _, reward, terminated, _, info = env.step(np.zeros(7))
        rewards.append(reward)
    assert terminated and info["success"] and all(info["predicates"].values())
    assert rewards == [0.0] * (ThreePieceAssemblyTask.success_steps - 1) + [0.25]


def test_the_assembly_rests_a_millimetre_inside_the_reference_tolerance(env):
    arrange(env, in_hole(), astride(up=0.001))
    assert play(env, 40) == (True, True)
    poses = env.object_poses()
    height = poses["piece_2"][2] - poses["base"][2]
    assert height == pytest.approx(0.099, abs=2e-4) and height < 0.1


def test_an_assembly_that_is_believed_a_little_too_high_looks_done(env):
    """Cameras believe heights to 3 mm; the reference check leaves 1 mm, and a finished assembly would be taken apart again."""
    for up, looks, counts in ((0.0, True, True), (0.003, True, False), (0.006, False, False)):
        assert arrange(env, in_hole(), astride(up=up), floating=("piece_2",)) == counts
        assert env.task.looks_done(env.sim) == looks


@pytest.mark.parametrize("corner", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_the_whole_play_of_the_pieces_counts(env, corner):
    x, y = 0.0055 * np.array(corner)
    arrange(env, in_hole(x, y), astride(x + 0.0028 * corner[0], y + 0.004 * corner[1]))
    assert play(env, 30) == (True, True)


def test_hovering_piece_1_fools_only_the_reference(env):
    # Piece_2's legs leave its plate 4 mm; higher up there is no place for it.
    assert arrange(env, in_hole(up=0.0036), astride(), floating=("piece_1",))
    assert play(env, 8) == (False, True)
    assert not env.predicates()["piece_1_seated"]


def test_piece_1_upside_down_fools_only_the_reference(env):
    flipped = translation(0, 0, SEATED_1) @ rotation([PI, 0, 0])
    # Its wall points down into the hole; piece_2 stands on the base as it should.
    assert arrange(env, flipped, astride(), floating=("piece_1",))
    assert play(env, 20) == (False, True)
    assert not env.predicates()["piece_1_seated"]


def test_piece_1_turned_half_a_right_angle_fools_only_the_reference(env):
    # Its plate lies across the base's bars; piece_2 is held where it would be.
    arrange(env, in_hole(angle=PI / 4, up=0.039), astride(angle=PI / 4), floating=("piece_2",))
    reference = env.task.reference_success(env.sim)
    assert reference and not env.predicates()["piece_1_seated"]


@pytest.mark.parametrize(
    "piece_1",
    [
        translation(0, 0, SEATED_1 + 0.05),  # hovering over the hole
        translation(0, 0, SEATED_1 + 0.039) @ yaw(PI / 4),  # across the bars
        translation(0, 0, SEATED_1) @ rotation([PI, 0, 0]),  # upside down
        translation(0.015, 0, SEATED_1 + 0.012) @ rotation([0, 0.2, 0]),  # one edge on a bar
    ],
)
def test_piece_1_that_only_the_reference_takes_for_inserted(env, piece_1):
    # MimicGen's signal: within 2 cm of the base in the table's plane and not grasped, whatever height and turn.
    arrange(env, in_hole(), translation(0.25, 0.25, 0.062))
    assert env.task.stage_done(env.sim, 1)
    arrange(env, piece_1, translation(0.25, 0.25, 0.062))
    assert env.task._apart(env.sim, "piece_1", "base") < 0.02 and not env.task.grasped(env.sim, "piece_1")
    assert not env.task.stage_done(env.sim, 1)


def test_piece_2_turned_a_right_angle_stands_on_the_wall_and_counts_nowhere(env):
    on_wall = translation(0, 0, SEATED_1 + 0.051 + 0.08 + 0.0005) @ yaw(PI / 2)
    assert not arrange(env, in_hole(), on_wall)
    assert play(env, 20) == (False, False)


def test_leaning_piece_2_does_not_count(env):
    # One leg in the hole beside the wall's end, the other on the base.
    leaning = translation(0.0, 0.012, SEATED_2 + 0.004) @ rotation([0.12, 0, 0])
    arrange(env, in_hole(), leaning, floating=("piece_2",))
    assert not all(env.predicates().values())
    assert not env.predicates()["piece_2_seated"]


def test_piece_1_left_on_the_base_counts_nowhere(env):
    # On the bars: piece_2 astride stands too high.
    assert not arrange(env, in_hole(angle=PI / 4, up=0.0385), astride(angle=PI / 4, up=0.04))
    assert play(env, 20) == (False, False)


def test_a_moving_assembly_does_not_count(env):
    arrange(env, in_hole(), astride())
    env.data.qvel[env.task.object_dof["piece_2"] + 2] = 0.3
    env.refresh()
    assert env.task.reference_success(env.sim) and not env.predicates()["at_rest"]


def scattered(env):
    """Put both pieces about their seats, again and again."""
    rng = np.random.default_rng(0)
    env.reset(seed=0)
    for _ in range(2000):
        wild = rng.random() < 0.5
        metres, radians = (0.008, 0.2) if wild else (0.0015, 0.012)
        quarter = rng.integers(4) * PI / 2
        piece_1 = translation(*rng.normal(0, metres, 3)) @ in_hole(angle=quarter)
        piece_2 = translation(*rng.normal(0, metres, 3)) @ astride(angle=quarter + rng.integers(2) * PI)
        layout = {
            "base": BASE,
            "piece_1": BASE @ piece_1 @ rotation(rng.normal(0, radians, 3)),
            "piece_2": BASE @ piece_2 @ rotation(rng.normal(0, radians, 3)),
        }
        env.task.place(env.sim, {name: to_pose7(pose) for name, pose in layout.items()})
        for address in env.task.object_dof.values():
            env.data.qvel[address : address + 3] = rng.normal(0, 0.015, 3)
        yield


def test_strict_implies_reference(env):
    assert_strict_implies_reference(env, scattered(env), least=50)


# --- stages, on the way of a demonstration ---


@pytest.fixture(scope="module")
def visited(env, demos):
    return visit(env, demos[0])


def test_insert_is_not_done_while_the_hand_is_there(env, visited):
    # Seated and let go, but the fingers still stand about the wall: the next connect would begin among them.
    seen = 0
    for state, stage, done, *_ in visited:
        env.set_state(state)
        if stage == 1 and env.predicates()["piece_1_seated"]:
            over = env.eef_pose()[2] - env.object_poses()["piece_1"][2]
            seen += over < 0.07
            assert over > 0.07 or not done[1]
    assert seen > 3


def test_place_is_not_done_while_held(env, visited):
    seen = 0
    for state, stage, *_ in visited:
        env.set_state(state)
        if stage == 3 and env.task.grasped(env.sim, "piece_2") and env.predicates()["piece_2_seated"]:
            seen += 1
            assert not env.predicates()["released"] and not env.predicates()["centred"]
    assert seen > 1


def test_grasps_are_not_done_before_the_piece_is_lifted(env, visited):
    for name, index in (("piece_1", 0), ("piece_2", 2)):
        seen = 0
        for state, stage, done, *_ in visited:
            env.set_state(state)
            if stage == index and env.task.grasped(env.sim, name):
                low = env.object_poses()[name][2] < HEIGHTS[name] + 0.015
                seen += low
                assert not (low and done[index])
        assert seen > 3


@pytest.mark.parametrize(
    "stage, name, pose, reason",
    [
        (1, "piece_1", BASE @ translation(0.2, 0.1, SEATED_1), "piece_1 dropped"),
        (2, "piece_1", BASE @ translation(0.2, 0.1, SEATED_1), "piece_1 left the hole"),
        (3, "piece_2", BASE @ translation(-0.2, -0.1, 0.061), "piece_2 dropped"),
        (3, "piece_2", BASE @ translation(-0.2, -0.1, 0.05) @ rotation([PI / 2, 0, 0]), "piece_2 toppled"),
        (0, "piece_2", translation(0.0, 0.9, 0.4), "object off the table"),
    ],
)
def test_failures_are_told(env, stage, name, pose, reason):
    arrange(env, in_hole(), astride(up=0.05))
    assert env.task.failure(env.sim, stage) == ""
    env.task.place(env.sim, {name: to_pose7(pose)})
    env.refresh()
    assert env.task.failure(env.sim, stage) == reason


# --- skills that open the hand ---


def test_a_skill_goes_on_from_where_the_hand_let_go(demos):
    for demo in demos:
        segment = cut(demo, ThreePieceAssemblyTask)[1]
        opened = int(np.argmax(segment.gripper <= 0))
        assert 0 < opened < len(segment) - 5 and (segment.gripper[opened:] <= 0).all()
        # The piece is left in its seat; what the hand then carries away is only thought of.
        seat = from_pose7(np.array([0, 0, SEATED_1, np.cos(PI / 4), 0, 0, np.sin(PI / 4)]))
        np.testing.assert_allclose(segment.left[:3, 3], seat[:3, 3], atol=0.006)
        np.testing.assert_allclose(segment.left[:3, :3], seat[:3, :3], atol=0.06)
        rise = (invert(segment.left) @ segment.actual[-1])[2, 3]
        assert 0.03 < rise < 0.12
