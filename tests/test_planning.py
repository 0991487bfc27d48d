"""Connects: collision checks, plans around obstacles, their timing, and following them."""

import random
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from reinforcegen_envs.demos.replay import restore_first_state
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.planning import motion
from reinforcegen_envs.planning import search as search_module
from reinforcegen_envs.planning.motion import (
    ACCELERATION,
    DRAG_PART,
    SPEED_PART,
    VELOCITY_LIMITS,
    WRIST,
    WRIST_TORQUE,
    time_parameterise,
)
from reinforcegen_envs.planning.search import (
    Problem,
    global_randomness,
    has_pybullet,
    pybullet_search,
    rrt_connect,
    steps,
)
from reinforcegen_envs.poses import matrix_from, to_pose7, translation
from reinforcegen_envs.sim.simulation import CONTROL_PERIOD, INITIAL_JOINTS

DOWN = np.diag([1.0, -1.0, -1.0])
TRIPOD = np.array([-0.05, 0.0, 0.8958, 1.0, 0.0, 0.0, 0.0])  # between LEFT and RIGHT
LEFT, RIGHT = (matrix_from(DOWN, np.array([-0.05, y, 0.9])) for y in (-0.14, 0.14))


SEARCHES = {"pybullet-planning": pybullet_search, "ours": rrt_connect}


@pytest.fixture(params=SEARCHES)
def each_search(request, monkeypatch):
    """The planner with each of both searches."""
    if request.param == "pybullet-planning" and not has_pybullet():
        pytest.skip("pybullet is not installed; it has no wheels for Python 3.12 and later")
    monkeypatch.setattr(motion, "search", SEARCHES[request.param])
    return SEARCHES[request.param]


@pytest.fixture(scope="module")
def env():
    return ManipulationEnv("Threading", "D2")


@pytest.fixture(scope="module")
def connector(env):
    return env.engine.connector


def start_at(env, connector, pose, seed=0, **layout):
    """Reset with the hand at ``pose`` and objects where ``layout`` says."""
    env.reset(seed=seed)
    connector.checker.kinematics.follow(env.sim)
    solution = connector.checker.kinematics.solve(pose, env.sim.joints)
    assert solution.reached
    env.reset(seed=seed, options={"joints": solution.joints, "layout": layout})
    return solution.joints


def penetrations(connector, path, parts=10):
    """How many of the postures along a path, ``parts`` a control step, really touch something."""
    checker = connector.checker
    clearance = checker.model.geom_margin.copy()
    checker.model.geom_margin[:] = 0.0
    try:
        return sum(
            checker.collides(a + t * (b - a))
            for a, b in zip(path[:-1], path[1:], strict=True)
            for t in np.linspace(0, 1, parts, endpoint=False)
        )
    finally:
        checker.model.geom_margin[:] = clearance


def assert_keeps_limits(path, kinematics):
    speeds = np.diff(path, axis=0) / CONTROL_PERIOD
    assert (np.abs(speeds) <= SPEED_PART * VELOCITY_LIMITS + 1e-9).all()
    for a, b, rates in zip(path[:-1], path[1:], speeds, strict=True):
        assert np.abs(kinematics.drag((a + b) / 2, rates)[WRIST]).max() <= DRAG_PART * WRIST_TORQUE * 1.02
    # Targets are sampled, so a corner in time shows up as at most one step's worth of speed.
    changes = np.diff(np.vstack([np.zeros(7), speeds, np.zeros(7)]), axis=0) / CONTROL_PERIOD
    assert np.abs(changes).max() <= ACCELERATION * 1.05


def assert_follows(env, connector, plan, goal):
    before = env.object_poses()
    connect = env.engine.follow(plan, goal)
    assert connect.failure == "" and len(plan.path) - 1 <= connect.steps <= len(plan.path) + 9
    assert env.sim.gripper_opening() > 0.95
    np.testing.assert_allclose(env.sim.joints, plan.path[-1], atol=0.004)
    for name, pose in env.object_poses().items():  # heights settle
        np.testing.assert_allclose(pose[:2], before[name][:2], atol=1e-3, err_msg=name)
        np.testing.assert_allclose(pose[3:], before[name][3:], atol=5e-3, err_msg=name)


# --- plans ---


def test_straight_line_where_nothing_is_in_the_way(env, connector):
    start = start_at(env, connector, LEFT, needle=np.array([0.2, -0.3, 0.82, 1, 0, 0, 0]))
    state = env.get_state().simulation
    goal = translation(0, 0, 0.05) @ LEFT
    plan = env.engine.plan(goal)
    assert plan.status == "line" and plan.solved
    np.testing.assert_array_equal(plan.path[0], start)
    np.testing.assert_allclose(connector.checker.kinematics.forward(plan.path[-1]), goal, atol=2e-3)
    assert plan.info() == {
        "status": "line",
        "milliseconds": plan.milliseconds,
        "collision_checks": plan.collision_checks,
    }
    assert plan.milliseconds > 0 and plan.collision_checks > 3
    np.testing.assert_array_equal(env.get_state().simulation, state)  # planning moves nothing
    assert_keeps_limits(plan.path, connector.checker.kinematics)
    assert_follows(env, connector, plan, goal)


def test_over_an_obstacle(env, connector):
    start_at(env, connector, LEFT, tripod=TRIPOD, needle=np.array([0.2, -0.3, 0.82, 1, 0, 0, 0]))
    plan = env.engine.plan(RIGHT)
    assert plan.status == "lift"
    assert penetrations(connector, plan.path) == 0
    assert_keeps_limits(plan.path, connector.checker.kinematics)
    assert_follows(env, connector, plan, RIGHT)


@pytest.mark.parametrize("seed", range(6))
def test_round_an_obstacle(env, connector, seed, monkeypatch, each_search):
    monkeypatch.setattr(connector.planner, "_lift_over", lambda *_: None)
    start_at(env, connector, LEFT, seed, tripod=TRIPOD, needle=np.array([0.2, -0.3, 0.82, 1, 0, 0, 0]))
    plan = env.engine.plan(RIGHT)
    assert plan.status == "birrt"
    assert penetrations(connector, plan.path) == 0
    assert_keeps_limits(plan.path, connector.checker.kinematics)
    assert_follows(env, connector, plan, RIGHT)


def test_unreachable(env, connector):
    env.reset(seed=0)
    plan = env.engine.plan(matrix_from(DOWN, np.array([0.7, 0.7, 0.9])))
    assert plan.status == "unreachable" and not plan.solved and plan.path.shape == (0, 7)


def test_goal_in_collision(env, connector):
    env.reset(seed=0)
    inside_the_table = matrix_from(DOWN, np.array([-0.05, 0.0, 0.80]))
    assert env.engine.plan(inside_the_table).status == "goal_collision"


def test_start_in_collision(env, connector, monkeypatch):
    start_at(env, connector, LEFT, tripod=np.concatenate([LEFT[:3, 3], [1, 0, 0, 0]]))
    plan = env.engine.plan(RIGHT)  # backs out first: never nearer to what it is near to
    assert plan.solved
    nearest = connector.checker.clearance(plan.path[0])
    on_the_way = [connector.checker.clearance(joints) for joints in plan.path[1:]]
    assert all(distance is None or distance > nearest - 1e-3 for distance in on_the_way)
    assert on_the_way[-1] is None
    monkeypatch.setattr(connector.planner, "_retreat", lambda *_: None)
    assert env.engine.plan(RIGHT).status == "start_collision"


def test_no_path(env, connector, monkeypatch):
    monkeypatch.setattr(connector.planner, "_lift_over", lambda *_: None)
    monkeypatch.setattr(search_module, "ITERATIONS", 1)
    monkeypatch.setattr(search_module, "RESTARTS", 0)
    start_at(env, connector, LEFT, tripod=TRIPOD)
    plan = env.engine.plan(RIGHT)
    assert plan.status == "no_path" and not plan.solved
    before = env.get_state().simulation
    connect = env.engine.follow(plan, RIGHT)
    assert (connect.failure, connect.steps) == ("no_path", 0)
    np.testing.assert_array_equal(env.get_state().simulation, before)


def test_what_the_hand_holds_is_part_of_it(env, connector, source_demos):
    restore_first_state(env, source_demos[0])
    for action in source_demos[0].actions:
        env.step(action)
        if env.object_poses()["needle"][2] > 0.87:
            break
    held = connector.in_hand("needle")
    np.testing.assert_allclose(env.sim.eef_pose() @ held, env.task.object_pose(env.sim, "needle"), atol=1e-12)
    # The hand stays, the tripod's post comes where the needle's tip is: only what is held can collide.
    tip = env.task.object_pose(env.sim, "needle") @ translation(0, -0.08, 0)
    env.task.place(env.sim, {"tripod": np.array([*(tip[:2, 3]), 0.8958, 1, 0, 0, 0])})
    env.refresh()
    joints = env.sim.joints.copy()
    connector.checker.update("needle")
    assert connector.checker.collides(joints)
    connector.checker.update(None)
    relevant = connector.checker._relevant
    tripod = env.task.object_geoms["tripod"]
    needle = env.task.object_geoms["needle"]
    assert not relevant[np.ix_(needle, tripod)].any()  # nobody's business while nobody holds it
    assert connector.plan(env.sim.eef_pose(), "needle", env.np_random).status in ("goal_collision", "start_collision")
    # With the tripod away, the grip itself is no collision.
    env.task.place(env.sim, {"tripod": np.array([0.25, 0.25, 0.8958, 1, 0, 0, 0])})
    env.refresh()
    connector.checker.update("needle")
    assert not connector.checker.collides(joints)
    connector.checker.update(None)
    assert connector.checker.collides(joints)  # for an empty hand the needle is an obstacle


def test_home_is_free(env, connector):
    env.reset(seed=0)
    connector.checker.update(None)
    assert not connector.checker.collides(INITIAL_JOINTS)


# --- randomness ---


def test_same_state_same_plan_whatever_the_global_generators(env, connector, monkeypatch):
    monkeypatch.setattr(connector.planner, "_lift_over", lambda *_: None)
    paths = []
    for seed in (1, 2):
        start_at(env, connector, LEFT, tripod=TRIPOD)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = random.getstate(), str(np.random.get_state())  # noqa: NPY002
        paths.append(env.engine.plan(RIGHT).path)
        assert (random.getstate(), str(np.random.get_state())) == before  # noqa: NPY002
    assert len(paths[0]) > 10
    np.testing.assert_array_equal(*paths)


def through_a_gap(search, seed, gap=0.1):
    """A problem whose straight line is blocked: a wall across the first joint with a gap in the second."""
    blocked = lambda joints: abs(joints[0]) < 0.1 and not 0.5 < joints[1] < 0.5 + gap  # noqa: E731
    start, goal = np.zeros(7), np.zeros(7)
    start[0], goal[0] = -0.5, 0.5
    box = np.full(7, 1.0)
    return search(Problem(start, goal, -box, box, blocked), np.random.default_rng(seed)), blocked


def test_both_searches_find_a_way_that_is_free_and_short(each_search):
    for seed in range(10):
        path, blocked = through_a_gap(each_search, seed, gap=0.4)
        assert path is not None
        np.testing.assert_allclose([path[0][0], path[-1][0]], [-0.5, 0.5], atol=1e-12)
        for a, b in zip(path[:-1], path[1:], strict=True):
            assert not any(blocked(joints) for joints in steps(a, b))
        length = sum(np.linalg.norm(b - a) for a, b in zip(path[:-1], path[1:], strict=True))
        assert length < 8  # the shortest way has 1.5; samples lie up to 2.6 apart


def test_a_search_draws_from_its_generator_alone(each_search):
    paths = [through_a_gap(each_search, seed, gap=0.4)[0] for seed in (3, 4, 3)]
    np.testing.assert_array_equal(paths[0], paths[2])
    assert len(paths[0]) != len(paths[1]) or not np.array_equal(paths[0], paths[1])


def test_a_search_ends_where_there_is_no_way(each_search):
    assert through_a_gap(each_search, 0, gap=0.0)[0] is None


def test_global_generators_are_restored_after_an_error():
    before = random.getstate(), str(np.random.get_state())  # noqa: NPY002
    drawn = []
    for _ in range(2):
        with pytest.raises(KeyError), global_randomness(np.random.default_rng(3)):
            drawn.append((random.random(), np.random.random()))  # noqa: NPY002
            raise KeyError
    assert drawn[0] == drawn[1]
    assert (random.getstate(), str(np.random.get_state())) == before  # noqa: NPY002


# --- timing ---


@pytest.mark.parametrize("length", [0.001, 0.05, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("joints", [range(7), [6], [4, 6], [0]])
def test_time_parameterisation_keeps_limits(connector, length, joints):
    rng = np.random.default_rng(0)
    for _ in range(10):
        waypoints = [INITIAL_JOINTS]
        for _ in range(3):
            step = np.zeros(7)
            step[list(joints)] = rng.uniform(-length, length, len(list(joints)))
            waypoints.append(waypoints[-1] + step)
        path = time_parameterise(np.array(waypoints), connector.checker.kinematics)
        assert_keeps_limits(path, connector.checker.kinematics)
        np.testing.assert_array_equal(path[0], waypoints[0])
        np.testing.assert_allclose(path[-1], waypoints[-1], atol=1e-12)
        for waypoint in waypoints:  # at rest in every corner, so every corner is hit
            assert np.abs(path - waypoint).max(axis=1).min() < 1e-9


def test_time_parameterisation_of_nothing(connector):
    path = time_parameterise(np.array([INITIAL_JOINTS, INITIAL_JOINTS]), connector.checker.kinematics)
    np.testing.assert_array_equal(path, [INITIAL_JOINTS])


def test_time_parameterisation_is_not_slow(connector):
    """Joint 1 over a radian at 0.8 of its limit of 2.175 rad/s, ramps of 0.29 s: 0.87 s; joint 7 keeps the hand from turning."""
    ends = np.array([INITIAL_JOINTS, INITIAL_JOINTS + [1.0, 0, 0, 0, 0, 0, 1.0]])
    path = time_parameterise(ends, connector.checker.kinematics)
    assert 0.85 < (len(path) - 1) * CONTROL_PERIOD < 0.95


@pytest.mark.parametrize("joint", [0, 4, 5, 6])
def test_turning_leaves_the_wrist_torque_to_spare(env, connector, joint):
    """MuJoCo's air drag on the hand is within nine tenths of what joints 6 and 7 have, wherever a path is fastest."""
    sim = env.sim
    data = mujoco.MjData(sim.model)
    worst = np.zeros(2)
    rng = np.random.default_rng(joint)
    for _ in range(20):
        start = INITIAL_JOINTS + rng.uniform(-0.3, 0.3, 7)
        goal = start + rng.uniform(-0.3, 0.3, 7)
        goal[joint] = start[joint] + 2.0
        path = time_parameterise(np.array([start, goal]), connector.checker.kinematics)
        for a, b in zip(path[:-1], path[1:], strict=True):
            data.qpos[:] = sim.data.qpos
            data.qpos[sim.arm_qpos], data.qvel[sim.arm_dof] = a, (b - a) / CONTROL_PERIOD
            mujoco.mj_forward(sim.model, data)
            worst = np.maximum(worst, np.abs(data.qfrc_passive[sim.arm_dof][WRIST]))
    assert 0.5 * WRIST_TORQUE < worst.max() < 0.9 * WRIST_TORQUE


def test_following_to_where_the_goal_is_not(env, connector):
    """A plan that ends elsewhere than the skill starts is reported."""
    start_at(env, connector, LEFT, tripod=np.array([0.2, 0.25, 0.8958, 1, 0, 0, 0]))
    goal = translation(0, 0, 0.05) @ LEFT
    plan = env.engine.plan(goal)
    assert env.engine.follow(plan, translation(0, 0, 0.03) @ goal).failure == "goal not reached"
    assert to_pose7(env.sim.eef_pose())[2] == pytest.approx(0.95, abs=0.003)


@pytest.mark.parametrize("controller", ["osc_pose", "osc_pose_v1_4"])
def test_snapshots_on_the_way_and_at_the_end_of_a_connect_replay_bit_for_bit(controller):
    env, other = (ManipulationEnv("Threading", "D2", controller=controller) for _ in range(2))
    connector = env.engine.connector
    goal = translation(0, 0, 0.05) @ LEFT
    start_at(env, connector, LEFT, tripod=np.array([0.2, 0.25, 0.8958, 1, 0, 0, 0]))
    plan = env.engine.plan(goal)
    connect = env.engine.follow(plan, goal, stop=lambda: True, every=4)
    assert connect.interrupted and connect.steps == 4
    actions = np.random.default_rng(0).uniform(-1, 1, (40, 7))
    actions[::2, 3:6] = 0.0  # with 1.4's latched orientation goal
    other.reset(seed=5)
    for _ in range(2):
        other.set_state(env.get_state())
        for action in actions:
            for a, b in zip(env.step(action)[:3], other.step(action)[:3], strict=True):
                np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(env.get_state().simulation, other.get_state().simulation)
        plan = env.engine.plan(goal)
        assert env.engine.follow(plan, goal).failure == ""


@pytest.mark.skipif(not has_pybullet(), reason="pybullet is not installed")
def test_threads_that_search_first_at_once_all_have_the_whole_library():
    """In a fresh interpreter, where it is yet to be imported."""
    code = """
from concurrent.futures import ThreadPoolExecutor
from reinforcegen_envs.planning.search import _pybullet_planning
with ThreadPoolExecutor(4) as threads:
    found = [threads.submit(lambda: hasattr(_pybullet_planning(), "birrt")) for _ in range(4)]
print([each.result() for each in found])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout.strip() == str([True] * 4), run.stdout + run.stderr
