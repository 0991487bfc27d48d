"""Square and Nut Assembly: geometry against robosuite's, resets, and what counts as success and as a finished stage."""

import numpy as np
import pytest
from helpers import assert_strict_implies_reference, play

from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.replay import restore_first_state
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.poses import invert, matrix_from, rotation, to_pose7, translation
from reinforcegen_envs.sim.kernel import GRIPPER

PI = np.pi
NUT_Z = 0.83
TASKS_OF_NUTS = ("NutAssembly", "Square")
PEGS = {"square_peg": (0.23, 0.1), "round_peg": (0.23, -0.1)}  # x, y, on D0


@pytest.fixture(scope="module", params=TASKS_OF_NUTS)
def env(request):
    return ManipulationEnv(request.param, "D0")


@pytest.fixture(scope="module")
def square():
    return ManipulationEnv("Square", "D0")


@pytest.fixture(scope="module")
def demos():
    return {task: read_demos(source_file(task), task) for task in TASKS_OF_NUTS}


# --- geometry ---


def geoms(model, body):
    """Collision geoms below a body as rows: type, half-sizes, position, quaternion, friction, condim, solref, solimp."""
    root = model.body(body).id
    own = [
        i for i in range(model.ngeom) if model.body_rootid[model.geom_bodyid[i]] == root and model.geom_group[i] == 0
    ]
    quat = [model.geom_quat[i] * (np.sign(model.geom_quat[i][0]) or 1.0) for i in own]
    rows = [
        np.concatenate(
            [
                [model.geom_type[i]],
                model.geom_size[i],
                model.geom_pos[i],
                q,
                model.geom_friction[i],
                [model.geom_condim[i]],
                model.geom_solref[i],
                model.geom_solimp[i],
            ]
        )
        for i, q in zip(own, quat, strict=True)
    ]
    return np.array(sorted(rows, key=lambda row: row.round(4).tolist()))


@pytest.fixture(scope="module")
def robosuites():
    """robosuite's own nuts and pegs, compiled: name -> (model, body)."""
    import mujoco

    from reinforcegen_envs.models.arena import quiet_import

    with quiet_import():
        from robosuite.models.arenas import PegsArena
        from robosuite.models.objects import RoundNutObject, SquareNutObject
        from robosuite.models.robots import Panda
        from robosuite.models.tasks import ManipulationTask

    arena = PegsArena((0.8, 0.8, 0.05), (1, 0.005, 1e-4), (0, 0, 0.82))
    nuts = [SquareNutObject("SquareNut"), RoundNutObject("RoundNut")]
    model = mujoco.MjModel.from_xml_string(ManipulationTask(arena, [Panda(idn=0)], nuts).get_xml())
    bodies = {"square_nut": "SquareNut_main", "round_nut": "RoundNut_main", "square_peg": "peg1", "round_peg": "peg2"}
    return {name: (model, body) for name, body in bodies.items()}


@pytest.mark.parametrize("name", ["square_nut", "round_nut", "square_peg", "round_peg"])
def test_nuts_and_pegs_are_robosuites(robosuites, name):
    model = ManipulationEnv("NutAssembly", "D0").model
    theirs, body = robosuites[name]
    np.testing.assert_allclose(geoms(model, name), geoms(theirs, body), atol=2e-6)
    if name.endswith("nut"):
        ours, root = model.body(name), theirs.body(body)
        dof = model.joint(f"{name}_joint").dofadr[0]
        np.testing.assert_allclose(model.dof_damping[dof : dof + 6], 0.0005)
        inner = [
            theirs.body(i) for i in range(theirs.nbody) if theirs.body_rootid[i] == root.id and theirs.body_mass[i]
        ]
        assert len(inner) == 1
        np.testing.assert_allclose(ours.mass, inner[0].mass, rtol=1e-6)
        np.testing.assert_allclose(ours.ipos, inner[0].ipos, atol=1e-7)
        np.testing.assert_allclose(ours.inertia, inner[0].inertia, rtol=1e-5)


def test_masses_of_the_sheet():
    model = ManipulationEnv("NutAssembly", "D0").model
    np.testing.assert_allclose(model.body("square_nut").mass, 0.01581, rtol=1e-3)
    np.testing.assert_allclose(model.body("round_nut").mass, 0.01941, rtol=1e-3)
    np.testing.assert_allclose(model.body("square_nut").ipos[0], 0.01096, atol=1e-5)
    np.testing.assert_allclose(model.body("round_nut").ipos[0], 0.00991, atol=1e-5)


# --- resets ---


@pytest.mark.parametrize("variant", ["D1", "D2"])
def test_handles_and_pegs_of_our_own_ranges_are_within_reach(variant):
    task = ManipulationEnv("NutAssembly", "D0").task
    rng = np.random.default_rng(1)
    for _ in range(300):
        layout = task.sample_layout(variant, rng)
        for nut, handle in (("square_nut", 0.054), ("round_nut", 0.06)):
            x, y, yaw = *layout[nut][:2], 2 * np.arctan2(layout[nut][6], layout[nut][3])
            assert np.hypot(x + handle * np.cos(yaw) + 0.56, y + handle * np.sin(yaw)) <= 0.775
        for peg in ("square_peg", "round_peg"):
            assert np.hypot(layout[peg][0] + 0.56, layout[peg][1]) <= 0.8


def test_a_nut_dropped_from_the_references_height_comes_to_lie_where_ours_starts(square):
    square.reset(seed=3)
    start = square.object_poses()["square_nut"]
    square.reset(seed=3, options={"layout": {"square_nut": start + [0, 0, 0.06, 0, 0, 0, 0]}})
    for _ in range(10):
        square.step(np.zeros(7))
    np.testing.assert_allclose(square.object_poses()["square_nut"], start, atol=1e-3)


def test_a_reset_nut_stays_where_it_is(env):
    env.reset(seed=5)
    before = env.object_poses()
    for _ in range(10):
        env.step(np.zeros(7))
    for name, pose7 in env.object_poses().items():
        np.testing.assert_allclose(pose7, before[name], atol=3e-4)


# --- success ---


def on_peg(env, fit, height=NUT_Z, offset=(0.0, 0.0), tilt=(0.0, 0.0), yaw=0.0):
    """Nut pose (7,) at its peg, which stands where D0 has it."""
    x, y = PEGS[fit.peg]
    pose = translation(x + offset[0], y + offset[1], height) @ rotation([0, 0, yaw]) @ rotation([*tilt, 0])
    return to_pose7(pose)


def arrange(env, joints=None, **nut):
    """Start the last stage with every nut on its peg; the last one as ``nut`` says."""
    last = env.task.fits[-1]
    layout = {fit.nut: on_peg(env, fit) for fit in env.task.fits[:-1]}
    layout[last.nut] = on_peg(env, last, **nut)
    env.reset(seed=0, options={"layout": layout} | ({} if joints is None else {"joints": joints}))
    env.engine.enter_stage(len(env.task.stages) - 1)


def failed(env):
    """Names of the predicates of the last nut that do not hold."""
    nut = env.task.fits[-1].nut
    return {name.removeprefix(f"{nut}_") for name, holds in env.predicates().items() if not holds}


def test_nuts_down_on_their_pegs_count(env):
    arrange(env)
    assert play(env, 12) == (True, True)
    assert all(env.predicates().values())


def test_a_nut_let_go_round_the_peg_falls_down_and_counts(env):
    arrange(env, height=0.92, offset=(0.003, -0.003), tilt=(0.05, -0.05))
    assert play(env, 40) == (True, True)


@pytest.mark.parametrize("tilt", [(0.0, -0.5), (0.5, 0.0)])
def test_a_leaning_nut_fools_only_the_reference(env, tilt):
    # Beside the peg, one edge on it: held there without weight, as a nut that has jammed would be.
    arrange(env, height=0.855, offset=(0.02, 0.0) if tilt[1] else (0.0, 0.02), tilt=tilt)
    body = env.model.body(env.task.fits[-1].nut)
    env.data.xfrc_applied[body.id, 2] = 9.81 * body.mass[0]
    env.refresh()
    assert env.task.reference_success(env.sim)
    assert not all(env.predicates().values()) and "flat_and_down" in failed(env)
    strict = False
    for _ in range(6):
        env.sim.data.qvel[:] = 0.0
        env.sim.step(np.zeros(7))
        env.engine.judge.step()
        strict |= env.engine.judge.success and "flat_and_down" in failed(env)
    assert not strict


def test_a_nut_hovering_half_way_down_fools_only_the_reference(env):
    arrange(env, height=0.865)
    body = env.model.body(env.task.fits[-1].nut)
    env.data.xfrc_applied[body.id, 2] = 9.81 * body.mass[0]
    env.refresh()
    assert play(env, 8) == (False, True)
    assert failed(env) == {"flat_and_down"}


def test_a_nut_beside_its_peg_does_not_count(env):
    arrange(env, offset=(0.0, 0.075), yaw=PI)
    assert play(env, 12) == (False, False)
    assert "peg_through_hole" in failed(env)
    assert env.task.failure(env.sim, len(env.task.stages) - 1) == "nut dropped"


def test_a_spinning_nut_does_not_count_yet(env):
    arrange(env)
    dof = env.task.object_dof[env.task.fits[-1].nut]
    env.data.qvel[dof + 5] = 5.0
    env.refresh()
    assert env.task.reference_success(env.sim) and "at_rest" in failed(env)


def test_a_nut_still_held_fools_only_the_reference(env, demos):
    """Carry the last nut of a demonstration in the hand to its peg: all the way down, but never let go."""
    demo = demos[env.task.name][0]
    restore_first_state(env, demo)
    last = env.task.fits[-1]
    seen = 0
    for action in demo.actions:
        env.step(action)
        if env.engine.stage == len(env.task.stages) - 1 and env.task.grasped(env.sim, last.nut):
            seen += 1
            nut = env.task.object_pose(env.sim, last.nut)
            in_hand = invert(env.sim.eef_pose()) @ nut
            # Whatever the nut's pose, the hand at the handle is 5 to 7 cm from its body: enough for MimicGen's check.
            assert 0.0424 < np.linalg.norm(in_hand[:3, 3]) < 0.09
            assert "released" in failed(env) and not env.engine.judge.success
    assert seen > 5


@pytest.fixture(scope="module")
def held(square, demos):
    """A moment of a demonstration at which the nut hangs in the hand: qpos."""
    demo = demos["Square"][0]
    restore_first_state(square, demo)
    for action in demo.actions:
        square.step(action)
        if square.engine.stage == 1:
            break
    assert square.task.stage_done(square.sim, 0)
    return square.data.qpos.copy()


@pytest.mark.parametrize("height", [0.84, 0.865])
def test_a_nut_held_by_its_handle_round_the_peg_fools_only_the_reference(square, held, height):
    sim, task = square.sim, square.task
    square.reset(seed=0)
    square.data.qpos[:] = held
    square.refresh()
    in_hand = invert(sim.eef_pose()) @ task.object_pose(sim, "square_nut")
    # The peg is put under the nut, and the hand lowered with it.
    nut = square.object_poses()["square_nut"]
    yaw = rotation([0, 0, 2 * np.arctan2(nut[6], nut[3])])
    low = translation(nut[0], nut[1], height) @ yaw
    solution = square.engine.connector.checker.kinematics.solve(low @ invert(in_hand), sim.joints)
    assert solution.reached
    task.place(sim, {"square_peg": to_pose7(translation(nut[0], nut[1], 0.85) @ yaw), "square_nut": to_pose7(low)})
    square.data.qpos[sim.arm_qpos] = solution.joints
    square.data.qvel[:] = 0.0
    sim.controller[GRIPPER] = 1.0
    square.refresh()
    square.engine.enter_stage(1)
    assert task.grasped(sim, "square_nut") and task.reference_success(sim)
    assert "released" in failed(square)
    assert play(square, 8, np.array([0, 0, 0, 0, 0, 0, 1.0]))[0] is False


def test_a_grasp_needs_both_pads_and_a_lifted_nut(square, held):
    first, second = square.sim.finger_qpos
    for openings, done in (((0.0, 0.0), True), ((0.004, 0.0), False), ((0.0, 0.004), False), ((0.004, 0.004), False)):
        square.reset(seed=0)
        square.data.qpos[:] = held
        square.data.qpos[first] += openings[0]
        square.data.qpos[second] -= openings[1]
        square.data.qvel[:] = 0.0
        square.sim.controller[GRIPPER] = 1.0
        square.refresh()
        assert square.task.stage_done(square.sim, 0) == done


def test_a_nut_lying_between_the_pads_is_not_grasped(square, demos):
    demo = demos["Square"][1]
    restore_first_state(square, demo)
    seen = 0
    for action in demo.actions:
        square.step(action)
        if square.task.grasped(square.sim, "square_nut") and square.object_poses()["square_nut"][2] < NUT_Z + 0.005:
            seen += 1
            assert not square.task.stage_done(square.sim, 0)
    assert seen > 3


def scattered(env):
    """Put the last nut about its peg, again and again."""
    rng = np.random.default_rng(0)
    arrange(env)
    fit = env.task.fits[-1]
    down = env.task.object_pose(env.sim, fit.nut)
    for i in range(2000):
        near = i % 2
        x, y = rng.normal(0, 0.005 if near else 0.02, 2)
        offset = translation(x, y, abs(rng.normal(0, 0.001 if near else 0.02)))
        turn = rotation(rng.normal(0, 0.02 if near else 0.5, 3) + [0, 0, rng.uniform(0, 2 * PI)])
        env.task.place(env.sim, {fit.nut: to_pose7(offset @ down @ matrix_from(turn[:3, :3], np.zeros(3)))})
        dof = env.task.object_dof[fit.nut]
        env.data.qvel[dof : dof + 6] = rng.normal(0, 0.008, 6)
        yield


def test_strict_implies_reference(env):
    assert_strict_implies_reference(env, scattered(env), least=100)


# --- Nut Assembly's order ---


def test_the_square_nut_must_stay_on_its_peg():
    env = ManipulationEnv("NutAssembly", "D0")
    arrange(env)
    square = env.task.object_pose(env.sim, "square_nut")
    env.task.place(env.sim, {"square_nut": to_pose7(translation(-0.1, 0.1, 0) @ square)})
    env.refresh()
    assert env.task.failure(env.sim, 1) == "nut dropped" and env.task.failure(env.sim, 0) == ""
    assert not all(env.predicates().values())
