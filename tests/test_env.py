"""The plain environment: Gymnasium's contract, determinism, snapshots, bad input, scene cache, rendering."""

import dataclasses
import os
import subprocess
import sys
import warnings

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

import reinforcegen_envs  # noqa: F401
from reinforcegen_envs.demos.replay import restore_first_state
from reinforcegen_envs.engine import SnapshotError
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.models.scene import SceneCacheError, load_scene
from reinforcegen_envs.sim.simulation import SimulationError
from reinforcegen_envs.tasks import ThreadingTask

IDS = [f"ReinforceGen/{variant}-Threading-v0" for variant in ("D0", "D1", "D2")]
INFO_KEYS = {
    "success",
    "is_success",
    "stage",
    "stage_name",
    "predicates",
    "sim_steps",
    "planner",
    "reference_success",
    "failure",
    "failure_stage",
    "failure_segment",
}


@pytest.fixture(scope="module")
def env():
    return ManipulationEnv("Threading", "D0")


def run_python(code, *arguments, **environment):
    """Standard output of ``python -c code arguments``; environment variables change, None removes one."""
    variables = {k: v for k, v in (os.environ | environment).items() if v is not None}
    run = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, env=variables
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


# --- Gymnasium's contract ---


@pytest.mark.parametrize("env_id", IDS)
def test_check_env_without_a_warning(env_id):
    env = gym.make(env_id)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped, skip_render_check=True)


def test_specs_are_plain_data():
    for env_id in IDS:
        spec = gym.spec(env_id)
        assert EnvSpec.from_json(spec.to_json()) == spec
        assert spec.max_episode_steps == 400


def test_info_has_the_same_keys_always(env):
    _, info = env.reset(seed=0)
    assert set(info) == INFO_KEYS and info["sim_steps"] == 0 and info["stage_name"] == "grasp"
    for _ in range(3):
        _, _, _, _, info = env.step(env.action_space.sample())
        assert set(info) == INFO_KEYS and info["sim_steps"] == 1
        assert set(info["predicates"]) == set(env.predicates())


def test_observation_agrees_with_the_public_poses(env):
    env.reset(seed=3)
    for _ in range(10):
        obs, *_ = env.step(np.array([0.5, -0.3, 0.2, 0.1, 0.4, -0.2, 1.0]))
    entries = {name: obs[part] for name, part in env.layout.slices.items()}
    assert obs.shape == (46,) and obs.dtype == np.float32
    reference = env.task.object_pose(env.sim, "needle")
    eef = env.sim.eef_pose()
    in_reference = np.linalg.inv(reference) @ eef
    np.testing.assert_allclose(entries["eef_pos_in_ref"], in_reference[:3, 3], atol=1e-6)
    np.testing.assert_allclose(entries["eef_rot6d_in_ref"], in_reference[:3, :2].T.ravel(), atol=1e-6)
    tripod = np.linalg.inv(reference) @ env.task.object_pose(env.sim, "tripod")
    np.testing.assert_allclose(entries["tripod_pos_in_ref"], tripod[:3, 3], atol=1e-6)
    np.testing.assert_allclose(entries["needle_pos_in_ref"], 0, atol=1e-6)
    np.testing.assert_allclose(entries["ref_pos_world"], env.object_poses()["needle"][:3], atol=1e-6)
    np.testing.assert_allclose(entries["ref_rot6d_world"], reference[:3, :2].T.ravel(), atol=1e-6)
    np.testing.assert_allclose(entries["gripper"], [env.sim.gripper_opening(), 1.0], atol=1e-6)
    velocity = np.zeros((2, 3, env.model.nv))
    mujoco.mj_jacSite(env.model, env.data, velocity[0], velocity[1], env.sim.grip_site)
    expected = reference[:3, :3].T @ (velocity @ env.data.qvel).T
    np.testing.assert_allclose(entries["eef_vel_in_ref"], expected.T.ravel(), atol=1e-5)
    np.testing.assert_array_equal(entries["stage"], [1, 0])


# --- determinism ---

TRAJECTORY = """
import hashlib, random, sys
import gymnasium as gym, numpy as np
import reinforcegen_envs
from reinforcegen_envs.poses import matrix_from

random.seed(int(sys.argv[1]))
np.random.seed(int(sys.argv[1]))
state = random.getstate(), np.random.get_state()[1].tolist()
env = gym.make("ReinforceGen/D2-Threading-v0").unwrapped
digest = hashlib.sha256()
env.reset(seed=6)
# A tripod in the way, and no passing over it: only the sampling-based search can connect.
engine = env.engine
connector = engine.connector
connector.planner._lift_over = lambda *_: None
down = np.diag([1.0, -1.0, -1.0])
start = connector.checker.kinematics.solve(matrix_from(down, np.array([-0.05, -0.14, 0.9])), env.sim.joints)
tripod = np.array([-0.05, 0.0, 0.8958, 1.0, 0.0, 0.0, 0.0])
env.reset(seed=6, options={"joints": start.joints, "layout": {"tripod": tripod}})
goal = matrix_from(down, np.array([-0.05, 0.14, 0.9]))
plan = engine.plan(goal)
assert plan.status == "birrt", plan.status
assert engine.follow(plan, goal).failure == ""
digest.update(plan.path.tobytes())
env.action_space.seed(1)
for _ in range(200):
    obs, reward, *_ , info = env.step(env.action_space.sample())
    digest.update(obs.tobytes())
    digest.update(env.data.qpos.tobytes())
digest.update(env.get_state().simulation.tobytes())
digest.update(env.reset()[0].tobytes())
assert (random.getstate(), np.random.get_state()[1].tolist()) == state, "global generators were touched"
print(digest.hexdigest())
"""


def test_trajectories_are_equal_bit_for_bit_in_two_processes():
    """Planner included, whatever the global generators and the hash seed are; both are left as they were."""
    first = run_python(TRAJECTORY, 1, PYTHONHASHSEED="1")
    second = run_python(TRAJECTORY, 2, PYTHONHASHSEED="2")
    assert first == second


def test_same_seed_same_episode_and_other_seed_another(env):
    first, _ = env.reset(seed=11)
    second, _ = env.reset(seed=11)
    other, _ = env.reset(seed=12)
    following, _ = env.reset()
    np.testing.assert_array_equal(first, second)
    assert (first != other).any() and (other != following).any()


# --- snapshots ---


def assert_same(a, b):
    assert type(a) is type(b)
    if dataclasses.is_dataclass(a):
        assert_same(vars(a), vars(b))
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


def test_replay_from_a_snapshot_is_equal_bit_for_bit(env, source_demos):
    """From moments of every stage, in contact too, in another environment that was up to something else."""
    demo = source_demos[0]
    restore_first_state(env, demo)
    actions = demo.actions.astype(np.float32)
    states, steps = [], []
    for action in actions:
        states.append(env.get_state())
        steps.append(env.step(action))
    last = env.get_state()
    after_reset = env.reset()
    assert steps[-1][2] and steps[-1][4]["success"]
    grasped = next(i for i, step in enumerate(steps) if step[4]["stage_name"] == "insert")
    length = len(actions)
    moments = [
        0,
        grasped // 2,
        grasped - 5,
        grasped - 1,
        grasped,
        (grasped + length) // 2,
        length - 10,
        length - 1,
    ]
    other = ManipulationEnv("Threading", "D2")
    other.reset(seed=99)
    for moment in moments:
        for _ in range(3):
            other.step(other.action_space.sample())
        other.set_state(states[moment])
        assert_same(other.get_state(), states[moment])
        for action, expected in zip(actions[moment:], steps[moment:], strict=True):
            for a, b in zip(other.step(action), expected, strict=True):
                assert_same(a, b)
        assert_same(other.get_state(), last)
    # The random generator is part of the state: the next episode is the same, too (but for the variant).
    env.set_state(last)
    np.testing.assert_array_equal(env.reset()[0], after_reset[0])


# --- bad input ---


@pytest.mark.parametrize(
    "kwargs, message",
    [
        ({"task": "Knitting"}, "unknown task 'Knitting'.*Threading"),
        ({"task": "Threading", "variant": "D7"}, "unknown variant 'D7'.*D0.*D1.*D2"),
        ({"task": "Threading", "obs_mode": "smell"}, "unknown obs_mode 'smell'.*state"),
        ({"task": "Threading", "controller": "ik"}, "unknown controller 'ik'.*osc_pose.*osc_pose_v1_4"),
        ({"task": "Threading", "render_mode": "hologram"}, "unknown render_mode 'hologram'.*rgb_array"),
    ],
)
def test_unknown_values_are_named_with_what_is_allowed(kwargs, message):
    with pytest.raises(ValueError, match=message):
        ManipulationEnv(**kwargs)


def test_unknown_id_and_argument():
    with pytest.raises(gym.error.NameNotFound):
        gym.make("ReinforceGen/D0-Knitting-v0")
    with pytest.raises(TypeError, match="unexpected keyword argument .flavour.*obs_mode"):
        gym.make(IDS[0], flavour="sweet")


@pytest.mark.parametrize(
    "action, message",
    [
        (np.zeros(6), r"shape \(6,\).*\(7,\)"),
        (np.zeros((1, 7)), r"shape \(1, 7\).*\(7,\)"),
        (0.0, r"shape \(\).*\(7,\)"),
        ([0, 0, np.nan, 0, 0, 0, 0], "NaN"),
        ([0, 0, np.inf, 0, 0, 0, 0], "finite"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(env, action, message):
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError, match=message):
        env.step(action)
    assert_same(env.get_state(), before)


def test_actions_out_of_range_are_cut(env):
    results = []
    for scale in (1.0, 50.0):
        env.reset(seed=0)
        results.append(env.step(scale * np.array([1.0, -1, 1, -1, 1, -1, 1]))[0])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"speed": 2}, "speed.*joints.*layout"),
        ({"layout": {"cup": np.zeros(7)}}, "cup.*needle.*tripod"),
        ({"layout": {"needle": np.zeros(3)}}, r"needle.*qw.*\(3,\).*\(7,\)"),
        ({"layout": {"needle": np.full(7, np.nan)}}, "needle.*finite"),
        ({"layout": {"needle": np.zeros(7)}}, "needle.*quaternion"),
        ({"joints": np.zeros(6)}, r"joints.*\(6,\).*\(7,\)"),
        ({"joints": np.full(7, np.nan)}, "joints.*finite"),
        ({"joints": np.full(7, 100.0)}, "joints.*exceed.*limits"),
        ({"joints": "home"}, "joints.*7 numbers"),
        ({"layout": None}, "layout None.*dictionary"),
        ({"layout": {"needle": np.array([0.0, 0, 1e9, 1, 0, 0, 0])}}, "needle.*out of the cell"),
    ],
)
def test_bad_reset_options_are_refused(env, options, message):
    with pytest.raises(ValueError, match=message):
        env.reset(seed=0, options=options)


def test_reset_options_fix_what_they_name(env):
    pose = np.array([-0.1, 0.2, 0.82, 0.6, 0, 0, 0.8])
    joints = np.array([0.1, 0.2, 0.0, -2.5, 0.0, 2.9, 0.8])
    env.reset(seed=0, options={"layout": {"needle": pose}, "joints": joints})
    np.testing.assert_allclose(env.object_poses()["needle"], pose, atol=1e-12)
    np.testing.assert_array_equal(env.sim.joints, joints)


def test_bad_states_are_refused_and_change_nothing(env):
    env.reset(seed=0)
    state = env.get_state()
    env.step(np.full(7, 0.3))
    before = env.get_state()

    def changed(**parts):
        return dataclasses.replace(state, **parts)

    bad_verdict = dataclasses.replace(state.verdict, stage=7)
    for bad, message in [
        ({}, "dict is not a Snapshot"),
        (changed(simulation=state.simulation[:-1]), "shape.*same task"),
        (changed(verdict=bad_verdict), "stage 7.*has 2"),
        (changed(rng={"bit_generator": "dice"}), "cannot be restored.*take it again"),
        (changed(rng={"bit_generator": "PCG64"}), "cannot be restored: it lacks 'state'"),
        (changed(task="Coffee"), "task 'Coffee'.*'Threading'"),
        (changed(controller="osc_pose_v1_4"), "controller 'osc_pose_v1_4'"),
        (changed(perception="camera"), "perception 'camera'.*'truth'"),
        (changed(format=0), "format 0"),
    ]:
        with pytest.raises(SnapshotError, match=message):
            env.set_state(bad)
        assert_same(env.get_state(), before)


def test_no_state_before_the_first_reset():
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        ManipulationEnv("Threading").get_state()


def test_a_state_goes_on_with_its_generator_in_an_environment_that_was_never_reset(env):
    env.reset(seed=4)
    state = env.get_state()
    expected, _ = env.reset()
    fresh = ManipulationEnv("Threading", "D0")
    fresh.set_state(state)
    np.testing.assert_array_equal(fresh.reset()[0], expected)


def test_a_diverging_simulation_is_an_error(env, tmp_path, monkeypatch):
    """MuJoCo resets itself and goes on; nobody would notice."""
    monkeypatch.chdir(tmp_path)  # where MuJoCo writes its log
    env.reset(seed=0)
    env.data.qvel[:] = 1e12
    with pytest.raises(SimulationError, match="reset itself"):
        env.refresh()
    env.reset(seed=0)
    env.data.qvel[:7] = 1e9
    with pytest.raises(SimulationError, match="reset"):
        env.step(np.zeros(7))
    env.reset(seed=0)
    env.step(np.zeros(7))


def test_step_before_reset():
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        ManipulationEnv("Threading").step(np.zeros(7))


# --- the scene cache ---

build = load_scene.__wrapped__  # without the memory of this process


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of our own."""
    monkeypatch.setenv("REINFORCEGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)  # MuJoCo logs damaged files to the current folder
    return tmp_path / "cache"


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("REINFORCEGEN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(SceneCacheError, match="cannot write.*file/cache.*REINFORCEGEN_CACHE"):
        build(ThreadingTask.scene)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_damaged_cache_files_are_rebuilt(cache):
    build(ThreadingTask.scene)
    (path,) = cache.iterdir()
    good = path.read_bytes()
    for damaged in (b"", b"garbage" * 100, good[: len(good) // 2], good[:-10]):
        path.write_bytes(damaged)
        assert build(ThreadingTask.scene).nq == load_scene(ThreadingTask.scene).nq
        assert path.read_bytes() == good
    assert list(cache.iterdir()) == [path]


def test_unknown_form():
    with pytest.raises(ValueError, match="unknown scene form 'sketch'.*physics.*rendered"):
        load_scene(ThreadingTask.scene, "sketch")


def test_both_forms_have_the_same_dynamics():
    physics, rendered = load_scene(ThreadingTask.scene), load_scene(ThreadingTask.scene, "rendered")
    assert rendered.ngeom > physics.ngeom and physics.ntex == 0 and physics.nmat == 0
    for name in ("nq", "nv", "nu", "nbody", "njnt", "nsite", "nmocap", "neq", "na"):
        assert getattr(physics, name) == getattr(rendered, name), name
    for kind in ("body", "joint", "site", "actuator"):
        count = {"body": physics.nbody, "joint": physics.njnt, "site": physics.nsite, "actuator": physics.nu}[kind]
        names = [[getattr(model, kind)(i).name for i in range(count)] for model in (physics, rendered)]
        assert names[0] == names[1]
    for name in (
        "body_mass body_inertia body_ipos body_iquat body_pos body_quat jnt_range jnt_axis dof_damping "
        "dof_armature dof_frictionloss actuator_gainprm actuator_ctrlrange qpos0"
    ).split():
        np.testing.assert_array_equal(getattr(physics, name), getattr(rendered, name), err_msg=name)
    assert physics.opt.timestep == rendered.opt.timestep == 0.002
    # The same steps, bit for bit.
    rng = np.random.default_rng(0)
    controls = rng.uniform(-5, 5, (100, physics.nu))
    ends = []
    for model in (physics, rendered):
        data = mujoco.MjData(model)
        data.qpos[:] = physics.qpos0
        for control in controls:
            data.ctrl[:] = control
            mujoco.mj_step(model, data)
        ends.append(data.qpos.copy())
    np.testing.assert_array_equal(*ends)


BUILD = """
import os, sys
import reinforcegen_envs
from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.tasks import TASKS
load_scene(TASKS["Threading"].scene, "rendered")
assert "robosuite" in sys.modules
assert not any(name.split(".")[0] == "OpenGL" for name in sys.modules)
print(os.environ.get("MUJOCO_GL"))
"""
LOAD = """
import sys
import gymnasium as gym, reinforcegen_envs
env = gym.make("ReinforceGen/D0-Threading-v0")
env.reset(seed=0)
env.step(env.action_space.sample())
heavy = ("robosuite", "pybullet", "matplotlib", "torch", "OpenGL", "pandas")
print([name for name in heavy if name in sys.modules])
"""


def test_building_is_silent_and_leaves_no_trace_and_making_needs_little(cache):
    """robosuite's import sets MUJOCO_GL, which would break every child process where EGL is missing."""
    assert run_python("import sys; sys.stderr = sys.stdout\n" + BUILD, MUJOCO_GL=None) == "None\n"
    (path,) = cache.iterdir()
    assert path.suffix == ".mjb"
    assert run_python(LOAD, MUJOCO_GL=None) == "[]\n"


# --- rendering ---

RENDER = """
import gymnasium as gym, numpy as np
import reinforcegen_envs
from reinforcegen_envs.sim.rendering import RenderingError
env = gym.make("ReinforceGen/D0-Threading-v0", render_mode="rgb_array", width=160, height=120)
env.reset(seed=0)
try:
    frame = env.render()
except RenderingError as error:
    print("no OpenGL:", error)
else:
    assert frame.shape == (120, 160, 3) and frame.dtype == np.uint8
    assert frame.std() > 10
    for _ in range(5):
        env.step(np.array([1, 1, 1, 0, 0, 0, 1], np.float32))
    moved = env.render()
    assert (np.abs(moved.astype(int) - frame).max(axis=2) > 30).mean() > 0.005
    env.close()
    print("drawn")
"""
# What happens on a machine that lacks the libraries.
WITHOUT_LIBRARIES = """
import ctypes
class Refusing(ctypes.CDLL):
    def __init__(self, name, *args, **kwargs):
        if any(part in str(name) for part in ("libEGL", "libOSMesa", "libGL.", "libGLX", "libOpenGL")):
            raise OSError(f"{name}: cannot open shared object file")
        super().__init__(name, *args, **kwargs)
ctypes.cdll._dlltype = Refusing
"""


def test_frames_are_not_blank():
    try:
        output = run_python(RENDER, MUJOCO_GL="osmesa")
    except AssertionError as error:
        if "OpenGL library" not in str(error):
            raise
        pytest.skip("libosmesa6 is not installed")
    assert output == "drawn\n"


@pytest.mark.parametrize("backend", ["egl", "osmesa"])
def test_a_missing_gl_library_is_named(backend):
    with pytest.raises(AssertionError, match=f"MUJOCO_GL='{backend}'.*libegl1.*libosmesa6.*unset MUJOCO_GL"):
        run_python(WITHOUT_LIBRARIES + RENDER, MUJOCO_GL=backend)


def test_rendering_without_gl_is_refused_clearly():
    output = run_python(RENDER, MUJOCO_GL="disabled")
    assert output.startswith("no OpenGL: cannot open an OpenGL context with MUJOCO_GL='disabled'")
    assert "MUJOCO_GL=egl" in output and "libosmesa6" in output


def test_no_render_mode_no_frame(env):
    env.reset(seed=0)
    assert env.render() is None
