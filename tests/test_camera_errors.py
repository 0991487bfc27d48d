"""The camera's errors without pictures: the model, what it is fitted to, and the command that measures them."""

from __future__ import annotations

import json
import shutil
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from reinforcegen_envs.engine import Engine
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.perception import CameraErrors
from reinforcegen_envs.perception.accuracy import offsets
from reinforcegen_envs.perception.camera_errors import ErrorModel, Track, fit, load_model, save_model
from reinforcegen_envs.policies.bundle import SHIPPED, Bundle
from reinforcegen_envs.policies.weights_file import WeightsError
from reinforcegen_envs.sim.kernel import GRIPPER
from reinforcegen_envs.tasks import TASKS

NUMBERS = 12  # of Threading: two objects without joints


def model(lasting=0.0, passing=0.0, memory=0.0, numbers=NUMBERS, stages=2):
    return ErrorModel(np.full((stages, numbers), lasting), np.full((stages, numbers), passing), memory)


def weights_with(folder, errors, task="Threading"):
    """A copy of the shipped weights that has a model of camera errors."""
    shutil.copytree(SHIPPED / task.lower(), folder, dirs_exist_ok=True)
    save_model(folder / "camera_errors.json", errors, TASKS[task], {})
    return folder


def engine_of(task, variant, weights):
    engine = Engine(TASKS[task], variant, perception=CameraErrors(weights))
    engine.rng = np.random.default_rng(0)
    engine.reset()
    return engine


def wandering(rng, stage, lasting, passing, memory, steps):
    """A track that the model would make."""
    z, rows = rng.normal(size=len(lasting)), []
    for _ in range(steps):
        z = memory * z + np.sqrt(1 - memory**2) * rng.normal(size=len(lasting))
        rows.append(z * passing)
    return Track(stage, rng.normal(size=len(lasting)) * lasting + np.array(rows))


def test_a_model_is_fitted_to_what_was_played():
    rng = np.random.default_rng(0)
    lasting, passing = np.array([0.002, 0.03, 0.0]), np.array([0.001, 0.005, 0.01])
    tracks = [wandering(rng, 1, lasting, passing, 0.6, 200) for _ in range(200)]
    fitted = fit(tracks, stages=2, kept=1.0)
    np.testing.assert_allclose(fitted.lasting[1], np.hypot(lasting, 0.14 * passing), rtol=0.15)
    np.testing.assert_allclose(fitted.passing[1], passing, rtol=0.05)
    assert fitted.memory == pytest.approx(0.6, abs=0.05)
    np.testing.assert_array_equal(fitted.lasting[0], fitted.lasting[1])  # of a stage that nothing is known of


def test_gross_mistakes_are_no_part_of_the_model():
    rng = np.random.default_rng(1)
    small = np.full(2, 0.001)
    tracks = [wandering(rng, 0, small, small, 0.5, 50) for _ in range(96)]
    flipped = [Track(0, track.errors + [0.0, 3.0]) for track in tracks[:4]]
    fitted = fit(tracks + flipped, stages=1)
    assert fitted.lasting.max() < 0.0015


def test_nothing_played_is_no_model():
    with pytest.raises(InvalidArgument, match="no errors to fit"):
        fit([], 2)


def test_a_model_survives_its_file_and_damage_is_told(tmp_path):
    task, path = TASKS["Threading"], tmp_path / "camera_errors.json"
    with pytest.raises(WeightsError, match="reinforcegen measure --task Threading"):
        load_model(path, task)
    save_model(path, model(0.002, 0.001, 0.9), task, {"episodes": 3})
    loaded = load_model(path, task)
    np.testing.assert_array_equal(loaded.lasting, model(0.002).lasting)
    assert loaded.memory == 0.9 and json.loads(path.read_text())["episodes"] == 3
    with pytest.raises(WeightsError, match="made for.*Threading.*Coffee.*is needed"):
        load_model(path, TASKS["Coffee"])
    whole = path.read_text()
    document = json.loads(whole)
    for damaged in (
        whole[:100],
        json.dumps({k: v for k, v in document.items() if k != "memory"}),
        json.dumps({**document, "memory": 1.5}),
        json.dumps({**document, "lasting": {**document["lasting"], "grasp": [1.0]}}),
        json.dumps({**document, "passing": {**document["passing"], "grasp": [-1.0] * NUMBERS}}),
        "[]",
    ):
        path.write_text(damaged)
        with pytest.raises(WeightsError, match="measure again"):
            load_model(path, task)


@pytest.mark.parametrize("task", sorted(path.parent.name for path in SHIPPED.glob("*/estimator.safetensors")))
def test_shipped_estimators_have_a_model_of_their_errors(task):
    (known,) = (known for name, known in TASKS.items() if name.lower() == task)
    fitted = load_model(SHIPPED / task / "camera_errors.json", known)
    assert 0.0 < np.median(fitted.lasting) < 0.02 and fitted.memory > 0.5


def test_beliefs_are_as_wrong_as_the_model_says(tmp_path):
    errors = ErrorModel(np.zeros((2, NUMBERS)), np.zeros((2, NUMBERS)), 0.5)
    errors.lasting[:, 6:9], errors.passing[:, 9:] = 0.002, 0.03  # the tripod's
    weights = weights_with(tmp_path / "w", errors)
    engine, off = engine_of("Threading", "D1", weights), []
    for _ in range(150):
        engine.reset()
        off.append(offsets(engine.sim, engine.belief, engine.task, 0))
    off = np.array(off)
    np.testing.assert_allclose(off[:, :6], 0.0, atol=1e-9)
    np.testing.assert_allclose(off[:, 6:9].std(axis=0), 0.002, rtol=0.3)
    np.testing.assert_allclose(off[:, 9:].std(axis=0), 0.03, rtol=0.3)
    # The lasting part stays while the stage does; the passing one does not.
    first = offsets(engine.sim, engine.belief, engine.task, 0)
    engine.refresh()
    second = offsets(engine.sim, engine.belief, engine.task, 0)
    np.testing.assert_allclose(first[6:9], second[6:9], atol=1e-9)
    assert np.abs(first[9:] - second[9:]).min() > 1e-6
    engine.enter_stage(1)
    engine.refresh()
    assert np.abs(offsets(engine.sim, engine.belief, engine.task, 1)[6:9] - first[6:9]).min() > 1e-6


def test_what_is_carried_is_off_in_the_hands_frame(tmp_path):
    errors = model()
    errors.lasting[:, 0] = 0.01  # the needle's, along the first axis of its carrier
    engine = engine_of("Threading", "D1", weights_with(tmp_path / "w", errors))
    engine.enter_stage(1)  # the needle is held
    for gripper, hand in ((1.0, True), (-1.0, False)):
        engine.sim.controller[GRIPPER] = gripper
        engine.refresh()
        body = engine.task.object_body["needle"]
        moved = engine.belief.data.xpos[body] - engine.sim.data.xpos[body]
        along = engine.sim.data.site_xmat[engine.sim.grip_site].reshape(3, 3)[:, 0] if hand else np.eye(3)[0]
        assert np.linalg.norm(moved) > 1e-5
        np.testing.assert_allclose(np.abs(moved @ along), np.linalg.norm(moved), rtol=1e-6)


def test_what_is_pushed_is_believed_where_it_was_for_a_while(tmp_path):
    """A policy that knows at once how a tripod gives feels its way into the ring; from cameras it could not."""
    engine = engine_of("Threading", "D1", weights_with(tmp_path / "w", model()))
    tripod = engine.task.objects.index("tripod")
    off = lambda: np.linalg.norm(offsets(engine.sim, engine.belief, engine.task, engine.stage)[6 * tripod :][:3])  # noqa: E731
    for _ in range(30):
        engine.act(np.array([0, 0, 0, 0, 0, 0, -1.0]))
    assert off() < 1e-4
    pose = engine.task.root_pose7(engine.sim, "tripod").copy()
    pose[0] += 0.01
    engine.task.write_pose7(engine.sim, "tripod", pose)
    engine.sim.evaluate()
    behind = []
    for _ in range(100):
        engine.act(np.array([0, 0, 0, 0, 0, 0, -1.0]))
        behind.append(off())
    assert 0.009 < behind[0] < 0.01 and 0.003 < behind[50] < 0.006 and behind[99] < 0.003
    # What moves far is noticed.
    pose[0] += 0.05
    engine.task.write_pose7(engine.sim, "tripod", pose)
    engine.sim.evaluate()
    for _ in range(15):
        engine.act(np.array([0, 0, 0, 0, 0, 0, -1.0]))
    assert off() < 0.016


def test_a_joint_is_believed_within_its_range(tmp_path):
    task = TASKS["Coffee"]
    numbers = len(task.objects) * 6 + 1
    errors = model(numbers=numbers, stages=len(task.stages))
    errors.passing[:, -1] = 0.5
    engine = engine_of("Coffee", "D0", weights_with(tmp_path / "w", errors, "Coffee"))
    (address,) = engine.task.joint_qpos
    low, high = engine.sim.model.joint(next(iter(task.joints))).range
    seen = []
    for _ in range(50):
        engine.refresh()
        seen.append(float(engine.belief.data.qpos[address]))
    assert min(seen) >= low and max(seen) <= high and np.std(seen) > 0.1 * (high - low)


def test_snapshots_repeat_the_errors(tmp_path):
    weights = weights_with(tmp_path / "w", model(0.002, 0.002, 0.9))
    env, other = (ManipulationEnv("Threading", "D1", perception=CameraErrors(weights)) for _ in range(2))
    env.reset(seed=5)
    actions = np.random.default_rng(0).uniform(-1, 1, (15, 7)).astype(np.float32)
    for action in actions[:5]:
        env.step(action)
    state = env.get_state()
    expected = [env.step(action)[0] for action in actions[5:]]
    other.reset(seed=99)
    other.set_state(state)
    for action, obs in zip(actions[5:], expected, strict=True):
        np.testing.assert_array_equal(other.step(action)[0], obs)


def test_it_is_known_by_name_and_acts_with_the_cameras_weights(tmp_path):
    weights = weights_with(tmp_path / "w", model(0.001, 0.0005, 0.9))
    (weights / "camera").mkdir(exist_ok=True)
    for suffix in ("safetensors", "json"):
        shutil.copy(weights / f"residual-grasp.{suffix}", weights / "camera" / f"residual-insert.{suffix}")
    for perception, folder in (
        ("camera_errors", weights / "camera"),
        ("camera", weights / "camera"),
        ("truth", weights),
    ):
        bundle = Bundle.open(TASKS["Threading"], weights, perception)
        assert bundle.path("residual-insert").parent == folder and bundle.path("base").parent == weights
    env = gym.make("ReinforceGen/D0-Threading-Residual-v0", perception="camera_errors", weights=weights)
    env.reset(seed=0)
    core: Any = env.unwrapped
    engine = core.engine
    assert engine.perception.name == "camera_errors"
    assert np.abs(offsets(engine.sim, engine.belief, engine.task, engine.stage)).max() > 1e-5
