"""Observations from cameras: Gymnasium's contract, truth of what is seen, replay, looks, machines without OpenGL.

What draws needs a back-end that was chosen before Python started: without one in MUJOCO_GL, a process of its own runs it.
"""

import copy
import os
import pickle
import subprocess
import sys
import warnings
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from drawing import does_not_draw, draws, run_what_draws
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from helpers import errors_of

import reinforcegen_envs  # noqa: F401
from reinforcegen_envs.engine import Snapshot
from reinforcegen_envs.env import OBS_MODES, PIXEL_MODES, ManipulationEnv
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.registration import make_env
from reinforcegen_envs.sim import looks
from reinforcegen_envs.sim.cameras import CAMERAS, MAX_SIZE, Cameras
from reinforcegen_envs.sim.kernel import GRIPPER
from reinforcegen_envs.sim.looks import Look
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

SIZE = 32
NEEDLE = np.array([0.0, 0.05, 0.82, 1.0, 0.0, 0.0, 0.0])
OUT_OF_SIGHT = np.array([-0.3, -0.38, 0.82, 1.0, 0.0, 0.0, 0.0])


def make(mode=None, task="Threading", **kwargs) -> Any:
    return make_env(task, "D0", mode, **{"obs_mode": "rgb", "image_size": SIZE, **kwargs})


def assert_same(a, b):
    assert list(a) == list(b)
    for key in a:
        assert a[key].dtype == b[key].dtype
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


@does_not_draw
def test_what_draws():
    """The tests below, where this process has no back-end."""
    run_what_draws(__file__, "not (ranges or checked or camera_of_render or without_opengl)")


# --- Gymnasium's contract ---

EVERYWHERE = [(task, mode, "rgb") for task in TASKS for mode in (None, "Residual")]
ONE_TASK = [("Threading", mode, obs_mode) for mode in ("Hybrid", "Skill") for obs_mode in PIXEL_MODES]
OTHER_KINDS = [("Coffee", mode, obs_mode) for mode in (None, "Residual") for obs_mode in ("rgbd", "segmentation")]


@draws
@pytest.mark.parametrize(("task", "mode", "obs_mode"), EVERYWHERE + ONE_TASK + OTHER_KINDS)
def test_check_env_without_a_warning(task, mode, obs_mode):
    env = make(mode, task, obs_mode=obs_mode)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(env, skip_render_check=True)
    obs, _ = env.reset(seed=0)
    names = {"front", "wrist", "proprio"} | ({"base_action"} if mode == "Residual" else set())
    kinds = {"rgbd": ("depth", np.float32), "segmentation": ("segmentation", np.uint8)}
    if obs_mode in kinds:
        kind, dtype = kinds[obs_mode]
        for camera in CAMERAS:
            picture = obs[f"{camera}_{kind}"]
            assert picture.shape == (SIZE, SIZE, 1) and picture.dtype == dtype
            names.add(f"{camera}_{kind}")
    assert set(obs) == set(env.observation_space.spaces) == names
    assert obs["front"].shape == (SIZE, SIZE, 3) and obs["front"].dtype == np.uint8 and obs["front"].std() > 10
    stages = len(env.unwrapped.task.stages)
    assert obs["proprio"].shape == (7 + 7 + 9 + 6 + 2 + stages,) and obs["proprio"].dtype == np.float32
    env.close()


@draws
def test_default_size_is_84():
    env = gym.make("ReinforceGen/D0-Threading-v0", obs_mode="rgb")
    assert env.reset(seed=0)[0]["wrist"].shape == (84, 84, 3)
    env.close()


def sub_env():
    return gym.make(
        "ReinforceGen/D0-Threading-v0", obs_mode="rgb", image_size=SIZE, randomize_visuals=True, max_episode_steps=3
    )


@draws
@pytest.mark.parametrize("autoreset", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_vector_environments_agree(autoreset):
    fns = [sub_env] * 2
    vectors = [
        SyncVectorEnv(fns, autoreset_mode=autoreset),
        ThreadVectorEnv(fns, num_threads=2, autoreset_mode=autoreset),
        AsyncVectorEnv(fns, context="spawn", autoreset_mode=autoreset),
    ]
    played = []
    for vector in vectors:
        rng = np.random.default_rng(0)
        seen = [copy.deepcopy(vector.reset(seed=3)[0])]
        for step in range(5):
            obs, _, _, truncated, info = vector.step(rng.uniform(-1, 1, (2, 7)).astype(np.float32))
            assert truncated.all() == (step == 2)
            seen.append(copy.deepcopy(obs))
            if step == 2 and autoreset == AutoresetMode.SAME_STEP:
                seen += list(info["final_obs"])
        vector.close()
        played.append(seen)
    for others in played[1:]:
        for a, b in zip(played[0], others, strict=True):
            assert_same(a, b)
    first = played[0][0]
    assert (first["front"][0] != first["front"][1]).mean() > 0.05

    # The last picture of an episode is one of its last state.
    env = sub_env()
    env.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(3):
        last = env.step(rng.uniform(-1, 1, (2, 7)).astype(np.float32)[0])[0]
    end = played[0][4] if autoreset == AutoresetMode.SAME_STEP else {k: v[0] for k, v in played[0][3].items()}
    assert_same(dict(sorted(end.items())), dict(sorted(last.items())))
    env.close()


# --- what is seen ---


def rays(model, data, camera, size):
    """Where rays through the middles of pixels start (3,), and their directions (size, size, 3), of depth 1."""
    i = model.camera(camera).id
    middle = (np.arange(size) + 0.5) / size * 2 - 1
    right, down = np.meshgrid(middle, middle)
    half = np.tan(np.radians(model.cam_fovy[i]) / 2)
    directions = np.stack([right * half, -down * half, np.full_like(right, -1.0)], -1)
    return data.cam_xpos[i], directions @ data.cam_xmat[i].reshape(3, 3).T


@draws
@pytest.mark.parametrize("task", TASKS)
def test_depth_and_labels_are_those_of_rays_at_the_collision_geoms(task):
    env = ManipulationEnv(task, "D1")
    env.reset(seed=2)
    cameras = Cameras(env.task.scene, 48, env.task.objects)
    pictures = cameras.pictures(env.data, depth=True, labels=True)
    assert pictures.depth is not None and pictures.labels is not None
    light = load_scene(env.task.scene, "light")
    data = mujoco.MjData(light)
    data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = env.data.qpos, env.data.mocap_pos, env.data.mocap_quat
    mujoco.mj_forward(light, data)
    group = np.array([1, 0, 0, 0, 0, 0], np.uint8)
    label = np.zeros(env.model.ngeom, np.uint8)
    label[[env.model.geom(i).name.startswith(("robot0_", "gripper0_")) for i in range(env.model.ngeom)]] = 1
    for k, name in enumerate(env.task.objects):
        label[env.task.object_geoms[name]] = 2 + k
    for k, camera in enumerate(CAMERAS.values()):
        start, directions = rays(light, data, camera, 48)
        expected, seen = np.zeros((48, 48)), np.zeros((48, 48), np.uint8)
        hit, table = np.zeros(1, np.int32), np.zeros((48, 48), bool)
        for v, u in np.ndindex(48, 48):
            expected[v, u] = mujoco.mj_ray(env.model, env.data, start, directions[v, u], group, 1, -1, hit)
            if hit[0] >= 0:
                seen[v, u], table[v, u] = label[hit[0]], env.model.geom(hit[0]).name == "table_collision"
        # Outlines apart, where a pixel's middle may be on either side; round shapes are drawn with flat sides.
        same = pictures.labels[k, ..., 0] == seen
        assert same.mean() > 0.98, f"{camera}: {1 - same.mean():.3f} of the labels differ"
        alike = same & ((seen > 1) | table)  # the robot and its mount look otherwise than they collide
        assert table.sum() > 100
        error = np.abs(pictures.depth[k, ..., 0] - expected)[alike]
        assert np.quantile(error, 0.97) < 0.003, f"{camera}: {np.quantile(error, 0.97)} m"
    cameras.close()


@draws
def test_segmentation_marks_the_pixels_of_the_needle_and_pictures_show_it_move():
    env = make(obs_mode="segmentation", image_size=84)
    here, _ = env.reset(seed=0, options={"layout": {"needle": NEEDLE}})
    gone, _ = env.reset(seed=0, options={"layout": {"needle": OUT_OF_SIGHT}})
    needle = here["front_segmentation"][..., 0] == 2
    assert needle.sum() > 20
    assert (here["front_segmentation"] != gone["front_segmentation"])[needle].all()
    changed = np.abs(here["front"].astype(int) - gone["front"]).max(-1) > 40
    assert changed[needle].mean() > 0.95
    assert not (changed & ~needle & (gone["front_segmentation"][..., 0] != 2)).any()
    env.close()


@draws
def test_proprio_knows_the_robot_and_nothing_of_objects():
    env = make()
    env.reset(seed=0)
    for _ in range(4):
        obs, *_ = env.step(np.array([0.5, -0.3, -0.4, 0.1, 0.4, -0.2, 1.0]))
    core = env.unwrapped
    layout, sim = core.proprio_layout, core.sim
    assert layout.flat_space == env.observation_space["proprio"]
    parts = layout.split(obs["proprio"])
    np.testing.assert_allclose(parts["joint_pos"], sim.joints, atol=1e-6)
    np.testing.assert_allclose(parts["joint_vel"], sim.data.qvel[sim.arm_dof], atol=1e-5)
    pose = sim.eef_pose()
    np.testing.assert_allclose(parts["eef_pos_world"], pose[:3, 3], atol=1e-6)
    np.testing.assert_allclose(parts["eef_rot6d_world"], pose[:3, :2].T.ravel(), atol=1e-6)
    velocity = np.zeros((2, 3, core.model.nv))
    mujoco.mj_jacSite(core.model, core.data, velocity[0], velocity[1], sim.grip_site)
    np.testing.assert_allclose(parts["eef_vel_world"], (velocity @ core.data.qvel).ravel(), atol=1e-5)
    np.testing.assert_allclose(parts["gripper"], [sim.gripper_opening(), sim.controller[GRIPPER]], atol=1e-6)
    np.testing.assert_array_equal(parts["stage"], [1, 0])
    for name in core.task.objects:
        core.task.write_pose7(sim, name, np.array([0.1, -0.2, 1.2, 0.0, 1.0, 0.0, 0.0]))
        if name in core.task.object_dof:
            core.data.qvel[core.task.object_dof[name] :][:6] = 0.3
    core.refresh()
    moved = core.observe()
    np.testing.assert_array_equal(moved["proprio"], obs["proprio"])
    assert (moved["front"] != obs["front"]).any()
    env.close()


@draws
def test_pictures_show_the_truth_whatever_is_believed():
    from reinforcegen_envs.perception import PoseErrors

    true, believed = make(), make(perception=PoseErrors(metres=0.05))
    assert_same(true.reset(seed=1)[0], believed.reset(seed=1)[0])
    assert believed.unwrapped.object_poses()["needle"][0] != believed.unwrapped.believed_poses()["needle"][0]


@draws
def test_leaving_out_what_is_out_of_sight_changes_no_bit():
    env = ManipulationEnv("CoffeePreparation", "D1")
    cameras = Cameras(env.task.scene)
    for seed in range(3):
        env.reset(seed=seed)
        frames = cameras.frames(env.data)
        radii, cameras._canvas._radii = cameras._canvas._radii, np.full(len(cameras._canvas._radii), np.inf)
        np.testing.assert_array_equal(cameras.frames(env.data), frames)
        cameras._canvas._radii = radii
    cameras.close()


# --- Residual ---


@draws
def test_base_action_and_residual_are_in_the_world_frame():
    pixels, state = make("Residual"), make("Residual", obs_mode="state")
    seen, flat = pixels.reset(seed=4)[0], state.reset(seed=4)[0]
    executed = []
    engine = pixels.unwrapped.engine
    act = engine.act
    engine.act = lambda action: executed.append(action.copy()) or act(action)
    residuals = [np.zeros(7)] * 6 + list(np.random.default_rng(0).uniform(-1, 1, (6, 7)))
    for i, residual in enumerate(residuals):
        base = pixels._pending.action.copy()
        np.testing.assert_array_equal(seen["base_action"], base.astype(np.float32))
        assert np.abs(seen["base_action"]).max() <= 1.0
        seen, *_, over, _, _ = pixels.step(residual)
        assert not over
        if i < 6:  # a zero residual is the base policy, bit for bit, as it is without pictures
            np.testing.assert_array_equal(executed[i], base)
            state.step(residual)
            np.testing.assert_array_equal(pixels.unwrapped.data.qpos, state.unwrapped.data.qpos)
        else:
            np.testing.assert_array_equal(executed[i], np.clip(base + 0.1 * residual, -1, 1))
    assert flat.shape == (pixels.layout.size,)  # what policies read stays the flat state
    assert pixels.layout.terms[-1].frame == "world" and state.layout.terms[-1].frame == "reference object"
    pixels.close()


@draws
@pytest.mark.parametrize("mode", ["Hybrid", "Skill", "Residual"])
def test_a_step_and_a_reset_take_one_picture_each(mode, monkeypatch):
    env = make(mode)
    taken = []
    pictures = Cameras.pictures
    monkeypatch.setattr(Cameras, "pictures", lambda *args: taken.append(1) or pictures(*args))
    env.reset(seed=0)
    env.step(np.zeros(7))
    assert len(taken) == 2


# --- snapshots and copies ---


@draws
@pytest.mark.parametrize("mode", [None, "Residual"])
def test_a_snapshot_replays_the_same_pictures(mode):
    env, other = make(mode, randomize_visuals=True), make(mode, randomize_visuals=True)
    env.reset(seed=5)
    other.reset(seed=6)
    for _ in range(3):
        env.step(np.full(7, 0.3))
    state = env.unwrapped.get_state()
    played = [env.step(np.full(7, -0.3))[0] for _ in range(3)]
    env.reset()
    for again, snapshot in ((env, state), (other, Snapshot.from_arrays(state.to_arrays()))):
        (again if mode is None else again).unwrapped.set_state(snapshot)
        for expected in played:
            assert_same(again.step(np.full(7, -0.3))[0], expected)


@draws
def test_copies_go_on_with_the_same_pictures():
    env = make(randomize_visuals=True)
    env.reset(seed=5)
    copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    obs = env.step(np.full(7, 0.3))[0]
    env.close()
    for twin in copies:
        assert_same(twin.step(np.full(7, 0.3))[0], obs)
    assert env.step(np.zeros(7))[0]["front"].std() > 10  # a closed one opens its cameras anew


# --- looks ---


@draws
def test_looks_change_pictures_and_nothing_else():
    plain, random = make(), make(randomize_visuals=True)
    before = plain.reset(seed=1)[0]
    first, second = random.reset(seed=1)[0], None
    for key in ("qpos", "mocap_pos", "mocap_quat"):
        np.testing.assert_array_equal(getattr(plain.unwrapped.data, key), getattr(random.unwrapped.data, key))
    assert (first["front"] != before["front"]).mean() > 0.2
    np.testing.assert_array_equal(first["proprio"], before["proprio"])
    plain.reset()
    second = random.reset()[0]
    np.testing.assert_array_equal(plain.unwrapped.data.qpos, random.unwrapped.data.qpos)
    random.unwrapped.sim.look = None
    assert_same(random.unwrapped.observe(), plain.unwrapped.observe())
    assert (second["front"] != first["front"]).mean() > 0.2
    assert_same(random.reset(seed=1)[0], first)
    plain.close()
    random.close()


@draws
def test_a_look_leaves_no_trace():
    scene = TASKS["Coffee"].scene
    env = ManipulationEnv("Coffee")
    env.reset(seed=0)
    shared = load_scene(scene, "light")
    names = (
        "geom_rgba",
        "geom_group",
        "mat_texid",
        "light_pos",
        "light_dir",
        "light_diffuse",
        "cam_pos",
        "cam_quat",
        "cam_fovy",
    )
    before = {name: getattr(shared, name).copy() for name in names}
    cameras, others = Cameras(scene), Cameras(scene)
    frames = cameras.frames(env.data)
    look = Look.draw(scene, np.random.default_rng(0))
    assert (cameras.frames(env.data, look) != frames).mean() > 0.2
    np.testing.assert_array_equal(cameras.frames(env.data, Look.own(shared)), frames)
    np.testing.assert_array_equal(cameras.frames(env.data), frames)
    np.testing.assert_array_equal(others.frames(env.data), frames)
    for name in names:
        np.testing.assert_array_equal(getattr(shared, name), before[name])
    cameras.close()
    others.close()


def test_looks_stay_within_their_ranges():
    scene = TASKS["Coffee"].scene
    own = Look.own(load_scene(scene, "light"))
    drawn = [Look.draw(scene, np.random.default_rng(seed)) for seed in range(100)]
    textured = np.array([look.textured for look in drawn])
    assert textured.any(0).all() and not textured.all(0).any()  # every material with and without its texture
    assert (textured.any(1) & ~textured.all(1)).any()  # and both in one look
    for look in drawn:
        assert ((look.colours >= 0) & (look.colours <= 1)).all()
        for k, camera in enumerate(CAMERAS.values()):
            assert np.abs(look.camera_pos[k] - own.camera_pos[k]).max() <= looks.CAMERA_POSITION[camera]
            angle = 2 * np.arccos(min(1.0, abs(look.camera_quat[k] @ own.camera_quat[k])))
            assert angle <= np.radians(looks.CAMERA_ANGLE[camera]) * np.sqrt(3) + 1e-6
            assert abs(look.fovy[k] - own.fovy[k]) <= looks.CAMERA_FOVY[camera]
        assert (look.light >= looks.LIGHT[0] * own.light - 1e-6).all()
        assert (look.light <= looks.LIGHT[1] * own.light + 1e-6).all()
        np.testing.assert_allclose(np.linalg.norm(look.light_dir, axis=1), 1.0)
    moved = np.array([look.camera_pos[0] - own.camera_pos[0] for look in drawn])
    assert np.abs(moved).max() > 0.019


# --- arguments, and machines without OpenGL ---


@pytest.mark.parametrize("mode", [None, "Residual"])
@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"obs_mode": "smell"}, f"unknown obs_mode 'smell'; choose one of .*{', '.join(map(repr, OBS_MODES))}"),
        ({"image_size": 15}, f"image_size 15 must be an integer from 16 to {MAX_SIZE}"),
        ({"image_size": MAX_SIZE + 1}, f"image_size {MAX_SIZE + 1} must"),
        ({"image_size": 84.0}, "image_size 84.0 must"),
        ({"image_size": "84"}, "image_size '84' must"),
        ({"image_size": True}, "image_size True must"),
        ({"image_size": (84, 84)}, "image_size .84, 84. must"),
        ({"randomize_visuals": 1}, "randomize_visuals 1 must be True or False"),
    ],
)
def test_arguments_are_checked_when_the_environment_is_made(mode, kwargs, message):
    with pytest.raises(InvalidArgument, match=message):
        make(mode, **kwargs)


def test_the_camera_of_render_is_the_tasks():
    for task in TASKS.values():
        assert ManipulationEnv(task.name)._camera[0] == task.camera


def test_a_machine_without_opengl_plays_states_and_refuses_pictures_clearly():
    code = """
import gymnasium as gym, numpy as np, sys
import reinforcegen_envs
from reinforcegen_envs.sim import gl_thread
from reinforcegen_envs.sim.rendering import RenderingError
for suffix in ("", "-Residual"):
    env = gym.make(f"ReinforceGen/D0-Threading{suffix}-v0")
    env.reset(seed=0)
    env.step(np.zeros(7, np.float32))
assert gl_thread._thread is None and "OpenGL" not in sys.modules
for suffix in ("", "-Residual"):
    env = gym.make(f"ReinforceGen/D0-Threading{suffix}-v0", obs_mode="rgb")
    try:
        env.reset(seed=0)
    except RenderingError as error:
        assert "MUJOCO_GL='disabled'" in str(error) and "MUJOCO_GL=egl" in str(error) and "libosmesa6" in str(error)
    else:
        raise AssertionError("drawn")
"""
    environment = {**os.environ, "MUJOCO_GL": "disabled"}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (process.returncode, errors_of(process)) == (0, ""), process.stderr
