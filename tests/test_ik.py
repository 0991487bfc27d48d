"""Inverse kinematics: it reaches what can be reached, and ends where the controller will hold the arm."""

import numpy as np
import pytest

from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.planning.ik import (
    LIMIT_MARGIN,
    POSITION_TOLERANCE,
    ROTATION_TOLERANCE,
    ArmKinematics,
)
from reinforcegen_envs.poses import distance, matrix_from, rotation, translation
from reinforcegen_envs.sim.kernel import (
    NULL_JOINTS,
    arm_jacobian,
    arm_mass_matrix,
    mj_comPos,
    mj_kinematics,
    mj_makeM,
)
from reinforcegen_envs.sim.simulation import INITIAL_JOINTS
from reinforcegen_envs.sim.views import Views

DOWN = np.diag([1.0, -1.0, -1.0])


@pytest.fixture(scope="module")
def env():
    env = ManipulationEnv("Threading", "D2")
    env.reset(seed=0)
    return env


@pytest.fixture(scope="module")
def kinematics(env):
    return ArmKinematics(env.model, env.sim.ids, env.sim.joint_range)


def random_joints(env, rng):
    low, high = env.sim.joint_range.T
    return np.clip(INITIAL_JOINTS + rng.uniform(-0.6, 0.6, 7), low + 2 * LIMIT_MARGIN, high - 2 * LIMIT_MARGIN)


def test_forward_is_where_the_simulation_puts_the_hand(env, kinematics):
    env.reset(seed=1)
    np.testing.assert_allclose(kinematics.forward(env.sim.joints), env.sim.eef_pose(), atol=1e-12)


def test_reaches_what_forward_kinematics_gives(env, kinematics):
    rng = np.random.default_rng(0)
    low, high = env.sim.joint_range.T
    for _ in range(200):
        target = kinematics.forward(random_joints(env, rng))
        found = kinematics.solutions(target, [INITIAL_JOINTS], rng)
        assert found, target
        for solution in found:
            assert solution.reached
            metres, radians = distance(kinematics.forward(solution.joints), target)
            assert metres < POSITION_TOLERANCE and radians < ROTATION_TOLERANCE + 1e-4
            margin = min((solution.joints - low).min(), (high - solution.joints).min())
            assert margin > LIMIT_MARGIN - 1e-9
            assert solution.margin == pytest.approx(margin)


def test_out_of_reach_is_told(kinematics):
    far = matrix_from(DOWN, np.array([0.6, 0.6, 0.9]))
    solution = kinematics.solve(far, INITIAL_JOINTS)
    assert not solution.reached and solution.position_error > 0.05
    assert kinematics.solutions(far, [INITIAL_JOINTS], np.random.default_rng(0)) == []


def workspace_poses(rng, count):
    """Poses that skills visit: the hand downwards, tilted by up to 0.5 rad, yaw within +-1.2 rad."""
    for _ in range(count):
        tilt = rotation(np.append(rng.uniform(-0.35, 0.35, 2), 0)) @ rotation([0, 0, rng.uniform(-1.2, 1.2)])
        turn = tilt[:3, :3] @ DOWN
        yield matrix_from(turn, np.array([rng.uniform(-0.2, 0.1), rng.uniform(-0.25, 0.25), rng.uniform(0.85, 1.0)]))


def null_vector_and_mass(kinematics, joints):
    kinematics.forward(joints)
    model, data = kinematics.model._address, kinematics.data._address
    for function in (mj_kinematics, mj_comPos, mj_makeM):
        function(model, data)
    views, ids = Views.of(kinematics.model, kinematics.data), kinematics.ids
    jacobian, mass = np.zeros((6, 7)), np.zeros((7, 7))
    arm_jacobian(views.xaxis, views.xanchor, ids.joint, views.site_xpos[ids.grip_site], jacobian)
    arm_mass_matrix(views.inertia, views.inertia_diagonal, views.dof_parent, ids.dof, mass)
    return np.linalg.svd(jacobian)[2][-1], mass


def test_null_space_is_mass_weighted(kinematics):
    """Along the self-motion, the mass-weighted distance to the posture is stationary."""
    rng = np.random.default_rng(1)
    free = 0
    for target in workspace_poses(rng, 60):
        solution = kinematics.solve(target, INITIAL_JOINTS)
        if not solution.reached or solution.margin < LIMIT_MARGIN + 1e-6:
            continue  # a joint limit holds it
        free += 1
        null, mass = null_vector_and_mass(kinematics, solution.joints)
        pull = mass @ (INITIAL_JOINTS - solution.joints)
        assert abs(null @ pull) < 1e-3 * np.linalg.norm(pull) * np.linalg.norm(null)
    assert free > 40


def drift(env, joints):
    """Largest joint motion in 2 s of the end-effector controller with zero actions, radians."""
    env.reset(seed=0, options={"joints": joints})
    env.sim.controller[NULL_JOINTS:] = INITIAL_JOINTS
    largest = 0.0
    for _ in range(40):
        env.sim.step(np.zeros(7))
        largest = max(largest, float(np.abs(env.sim.joints - joints).max()))
    return largest


def test_the_controller_takes_over_without_drift(env, kinematics):
    rng = np.random.default_rng(2)
    drifts, elsewhere = [], []
    for target in workspace_poses(rng, 30):
        solution = kinematics.solve(target, INITIAL_JOINTS)
        if not solution.reached or solution.margin < 2 * LIMIT_MARGIN:
            continue
        drifts.append(drift(env, solution.joints))
        null, _ = null_vector_and_mass(kinematics, solution.joints)
        # The same hand pose from elsewhere on the self-motion: what a plain pseudo-inverse might return.
        other = kinematics.solve(target, solution.joints, solution.joints + 0.4 * null)
        if other.reached and other.margin > LIMIT_MARGIN + 1e-6:
            elsewhere.append(drift(env, other.joints))
    print(f"drift: median {np.median(drifts):.4f}, largest {max(drifts):.4f} rad")
    assert len(drifts) > 15 and np.median(drifts) < 0.01 and max(drifts) < 0.08
    assert np.median(elsewhere) > 0.1  # the measure would notice


def test_restarts_draw_from_the_generator_alone(kinematics):
    target = translation(0, 0, 0.02) @ matrix_from(DOWN, np.array([0.05, 0.1, 0.9]))
    seed = INITIAL_JOINTS + np.array([0, 1.5, 0, 1.5, 0, -2, 0])
    first = kinematics.solutions(target, [seed], np.random.default_rng(5))
    second = kinematics.solutions(target, [seed], np.random.default_rng(5))
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.joints, b.joints)
