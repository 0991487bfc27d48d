"""Beliefs from cameras: what they may read, what they remember, what they learn from, and what they refuse."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from drawing import draws

from reinforcegen_envs.engine import Engine
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.perception import CameraPerception, camera, fusion
from reinforcegen_envs.perception import frames as frames_module
from reinforcegen_envs.perception.accuracy import Row, errors, summarise
from reinforcegen_envs.perception.camera import (
    Carriers,
    Estimate,
    LateCamera,
    card_of,
    output_size,
    proprio,
    proprio_size,
    split,
    standing_heights,
)
from reinforcegen_envs.perception.frames import ROBOT, Frames, States, touching_groups
from reinforcegen_envs.perception.network import save_estimator
from reinforcegen_envs.perception.vectors import decode, encode
from reinforcegen_envs.policies.bundle import SHIPPED
from reinforcegen_envs.policies.weights_file import WeightsError
from reinforcegen_envs.poses import from_pose7, invert, rotation, to_pose7
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks import TASKS, CoffeePreparationTask, CoffeeTask, NutAssemblyTask, ThreadingTask
from reinforcegen_envs.tasks.base import Task
from reinforcegen_envs.wrappers import fill_pool

pytest.importorskip("torch")
from reinforcegen_envs.agents.estimating import loss_of  # noqa: E402
from reinforcegen_envs.agents.estimator import arrays, estimator_for, load_arrays, means_and_log_variances  # noqa: E402

pytestmark = draws  # test_what_draws runs them where this process cannot
SMALL = 32  # pixels: what need not be exact


def random_estimator(folder, task, **entries):
    """An estimator that knows nothing, in a copy of the task's shipped weights."""
    import torch

    shutil.copytree(SHIPPED / task.name.lower(), folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    model = estimator_for(task, SMALL)
    save_estimator(folder / "estimator.safetensors", arrays(model), {**card_of(task, SMALL), **entries})
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    return random_estimator(tmp_path_factory.mktemp("untrained") / "weights", ThreadingTask)


def engine_of(task: type[Task] = ThreadingTask, perception=None, seed=0, variant="D0"):
    engine = Engine(task, variant, perception=perception)
    engine.rng = np.random.default_rng(seed)
    engine.reset()
    return engine


def test_pictures_are_all_that_it_takes_from_the_simulation(untrained, monkeypatch):
    """Two scenes that look the same are believed to be the same, whatever is true."""
    engine, other = engine_of(perception=CameraPerception(untrained)), engine_of(seed=5)
    other.sim.data.qpos[engine.sim.arm_qpos] = engine.sim.joints
    other.sim.refresh()
    perception = engine.perception
    assert isinstance(perception, CameraPerception)
    own = perception._cameras
    assert own is not None
    see = own.frames
    believed = []
    for scene in (engine.sim, other.sim):
        monkeypatch.setattr(own, "frames", lambda data, look, of=scene: see(of.data, look))
        engine.perceive_anew()
        believed.append({name: engine.task.object_pose(engine.belief, name) for name in engine.task.objects})
    assert any(np.abs(believed[0][name] - believed[1][name]).max() > 1e-4 for name in believed[0])
    monkeypatch.undo()
    engine.perceive_anew()
    for name, pose in believed[0].items():
        np.testing.assert_array_equal(engine.task.object_pose(engine.belief, name), pose)


def test_the_robot_is_where_it_is_and_objects_are_not_copied(untrained):
    engine = engine_of(perception=CameraPerception(untrained))
    engine.act(np.array([0.5, -0.2, -0.3, 0.1, 0.0, 0.2, 1.0]))
    np.testing.assert_array_equal(engine.belief.joints, engine.sim.joints)
    np.testing.assert_array_equal(engine.belief.controller, engine.sim.controller)
    for name in engine.task.objects:
        assert (
            np.abs(engine.task.object_pose(engine.belief, name) - engine.task.object_pose(engine.sim, name)).max()
            > 1e-3
        )


def test_pictures_are_believed_from_a_stage_on(untrained):
    engine = engine_of(perception=LateCamera(untrained, 1))
    camera = engine.perception
    assert isinstance(camera, LateCamera) and camera.name == "camera"
    off = []
    for stage in (0, 1, 0):
        camera.update(engine.sim, engine.belief, engine.task, stage)
        engine.belief.evaluate()
        off.append(max(metres for metres, _ in errors(engine.sim, engine.belief, engine.task)))
    assert off[0] < 1e-9 and off[1] > 1e-3 and off[2] < 1e-9


def test_a_pools_last_stage_alone_believes_pictures(untrained):
    args = fill_pool.Args(stage="insert", weights=untrained, perception="camera", believe_from="insert")
    perception = engine_below(fill_pool.make(args)["D2"]).perception
    assert isinstance(perception, LateCamera) and perception.first_stage == 1
    assert not isinstance(engine_below(fill_pool.make(replace(args, believe_from=None))["D2"]).perception, LateCamera)


def test_snapshots_copies_and_seeds_repeat_the_belief(untrained):
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (6, 7))
    engine = engine_of(perception=CameraPerception(untrained))
    for action in actions[:3]:
        engine.act(action)
    snapshot, twin = engine.snapshot(), copy.deepcopy(engine)
    ends = []
    for one in (engine, twin):
        for action in actions[3:]:
            one.act(action)
        ends.append(one.belief.get_state())
    engine.restore(snapshot)
    for action in actions[3:]:
        engine.act(action)
    ends.append(engine.belief.get_state())
    again = engine_of(perception=CameraPerception(untrained))
    for action in actions:
        again.act(action)
    ends.append(again.belief.get_state())
    for end in ends[1:]:
        np.testing.assert_array_equal(end, ends[0])


def test_it_looks_as_often_as_it_is_told(untrained):
    perception = CameraPerception(untrained, every=3)
    engine = engine_of(perception=perception)
    looks = []
    look = perception.look
    perception.look = lambda *args: looks.append(1) or look(*args)  # type: ignore[method-assign]
    for _ in range(6):
        engine.act(np.zeros(7))
    assert len(looks) == 2
    with pytest.raises(InvalidArgument, match="every is 0"):
        CameraPerception(untrained, every=0)


def test_estimators_of_something_else_are_refused(untrained, tmp_path):
    with pytest.raises(WeightsError, match="no weights file.*estimator"):
        engine_of(perception=CameraPerception(tmp_path))
    coffee = random_estimator(tmp_path / "coffee", CoffeeTask)
    with pytest.raises(WeightsError, match="'Coffee'.*'Threading'"):
        engine_of(perception=CameraPerception(coffee))
    for entry, value in (("views", [[0.0] * 13] * 2), ("cameras", ["front"])):
        other = random_estimator(tmp_path / entry, ThreadingTask, **{entry: value})
        with pytest.raises(WeightsError, match=f"made for {entry}"):
            engine_of(perception=CameraPerception(other))
    # What its numbers are parts of.
    other = random_estimator(tmp_path / "joints", CoffeeTask, joint_ranges=[[0.0, 1.0]])
    with pytest.raises(WeightsError, match="made for joint_ranges"):
        engine_of(CoffeeTask, perception=CameraPerception(other))


@pytest.mark.parametrize("mode", [None, "Hybrid", "Residual"])
def test_every_mode_takes_it_by_name(untrained, mode):
    suffix = f"-{mode}" if mode else ""
    kwargs: dict[str, Any] = {"weights": str(untrained)} if mode else {}
    if mode is None and not (SHIPPED / "threading" / "estimator.safetensors").is_file():
        pytest.skip("no estimator is shipped")
    env = gym.make(f"ReinforceGen/D0-Threading{suffix}-v0", perception="camera", **kwargs)
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs)
    perception = env.unwrapped.engine.perception  # type: ignore[attr-defined]
    assert isinstance(perception, CameraPerception) and perception._cameras is not None
    env.close()
    assert perception._cameras is None  # its OpenGL context is freed


def test_what_the_hand_carries_is_what_it_has_closed_on():
    carriers = Carriers(NutAssemblyTask(load_scene(NutAssemblyTask.scene)))
    square, peg, round_, _ = range(4)
    world, hand = fusion.WORLD, fusion.HAND
    assert carriers.of(0, -1.0, 1.0).tolist() == [world] * 4
    assert carriers.of(0, 0.5, 0.9)[square] == hand
    assert carriers.of(1, 1.0, 0.3)[square] == hand and carriers.of(1, 1.0, 0.3)[peg] == world
    assert carriers.of(2, 1.0, 0.3)[round_] == hand and carriers.of(2, 1.0, 0.3)[square] == world
    assert carriers.of(3, -1.0, 0.3).tolist() == [world] * 4
    # Fingers that meet have nothing between them.
    assert carriers.of(0, 1.0, 0.02).tolist() == carriers.of(1, 1.0, 0.02).tolist() == [world] * 4
    # What was brought and let go of is not taken up by closing again; what is to be grasped is, in another try.
    assert carriers.of(1, 1.0, 0.3, opened=True).tolist() == [world] * 4
    assert carriers.of(0, 1.0, 0.3, opened=True)[square] == hand
    assert carriers.brought == [False, True, False, True]


@pytest.mark.parametrize("task", sorted(TASKS))
def test_what_nothing_has_moved_stands_on_the_table(task):
    """The heights are those at which objects come to rest, on whatever reset range."""
    heights = standing_heights(TASKS[task])
    for variant in ("D0", "D2"):
        engine = engine_of(TASKS[task], variant=variant, seed=3)
        for _ in range(12):
            engine.act(np.array([0.0] * 6 + [-1.0]))
        roots = [engine.task.root_pose7(engine.sim, name)[2] for name in engine.task.objects]
        np.testing.assert_allclose(roots, heights, atol=3e-4)


def seen_at(truth, vectors):
    """What a network says, surely, that sees every object's vectors (3, 3), world frame, positions in metres."""
    mean = np.zeros((len(vectors), 2, 3, 3))
    hand, grip = truth.data.site_xmat[truth.grip_site].reshape(3, 3), truth.data.site_xpos[truth.grip_site]
    for n, world in enumerate(vectors):
        mean[n, 0], mean[n, 1] = world, world @ hand
        mean[n, 0, 0] = (world[0] - fusion.CENTRE) / fusion.UNIT
        mean[n, 1, 0] = hand.T @ (world[0] - grip) / fusion.UNIT
    return Estimate(mean, np.full_like(mean, 1e-4), np.zeros(0), np.ones(0))


def test_objects_are_believed_to_stand_until_they_are_moved_or_toppled(tmp_path, monkeypatch):
    perception = CameraPerception(random_estimator(tmp_path / "weights", ThreadingTask))
    engine = engine_of(ThreadingTask, perception=perception)
    lean, up = rotation([0.1, 0.0, 0.3])[:3, :3], 0.004

    def look(truth, task, stage):
        """Every object leans by six degrees, and is seen too high."""
        turned = np.ascontiguousarray(lean)
        return seen_at(truth, [encode(truth.data.xpos[body] + [0.0, 0.0, up], turned, 1) for body in task.bodies])

    monkeypatch.setattr(perception, "look", look)
    perception_anew(engine)
    needle, tripod = (engine.task.object_pose(engine.belief, name) for name in engine.task.objects)
    for pose, height in zip((needle, tripod), standing_heights(ThreadingTask), strict=True):
        assert pose[2, 2] == pytest.approx(1.0, abs=1e-9) and pose[2, 3] == pytest.approx(height, abs=1e-9)
        assert np.arctan2(pose[1, 0], pose[0, 0]) == pytest.approx(0.3, abs=0.02)
    # The hand has closed, but not risen. Its fingers have come to something at once, though nothing is between them.
    monkeypatch.setattr(camera, "CLOSING", 1.0)
    monkeypatch.setattr(camera, "STARTING", 0)
    for _ in range(3):
        engine.act(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    assert perception._carrier[0] == fusion.HAND
    held = engine.task.object_pose(engine.belief, "needle")
    rise = engine.sim.data.site_xpos[engine.sim.grip_site, 2] - perception._taken_at[0]
    assert held[2, 3] == pytest.approx(standing_heights(ThreadingTask)[0] + rise, abs=1e-9) and held[2, 2] > 1 - 1e-9
    # The needle is to be threaded: the tripod may tip from now on, and the needle is lifted.
    engine.enter_stage(1)
    for _ in range(8):
        engine.act(np.array([0, 0, 0.5, 0, 0, 0, 1.0]))
    for name in engine.task.objects:
        assert engine.task.object_pose(engine.belief, name)[2, 2] < 0.999
    # Seen far from where it would stand, an object is believed to be there.
    up = 0.05
    fresh = engine_of(ThreadingTask, perception=perception)
    monkeypatch.setattr(fresh.perception, "look", look)
    perception_anew(fresh)
    assert fresh.task.object_pose(fresh.belief, "tripod")[2, 3] > standing_heights(ThreadingTask)[1] + 0.03


def test_what_slips_out_of_the_hand_before_it_is_carried_off_stands_again(tmp_path, monkeypatch):
    perception = CameraPerception(random_estimator(tmp_path / "weights", ThreadingTask))
    monkeypatch.setattr(camera, "EMPTY", -1.0)
    engine = engine_of(ThreadingTask, perception=perception)
    height = standing_heights(ThreadingTask)[0]

    def look(truth, task, stage):
        """The needle is seen 4 mm too high."""
        return seen_at(truth, [encode(truth.data.xpos[body] + [0.0, 0.0, 0.004], np.eye(3), 1) for body in task.bodies])

    monkeypatch.setattr(perception, "look", look)
    perception_anew(engine)
    believed = lambda: engine.task.object_pose(engine.belief, "needle")[2, 3]  # noqa: E731
    for gripper, lift in ((1.0, 0.0), (1.0, 0.6), (-1.0, 0.0)):
        for _ in range(12):
            engine.act(np.array([0, 0, lift, 0, 0, 0, gripper]))
        if lift:  # and the needle stays behind
            assert believed() > height + 1e-3
    assert believed() == pytest.approx(height, abs=1e-9)


def test_lids_and_drawers_are_as_resets_leave_them_until_a_skill_is_about_them(tmp_path, monkeypatch):
    task = TASKS["CoffeePreparation"]
    perception = CameraPerception(random_estimator(tmp_path / "weights", task))
    engine = engine_of(task, perception=perception)
    blind = np.full((len(task.objects), 2, 3, 3), 1e6)
    monkeypatch.setattr(  # half open, all of them
        perception, "look", lambda *_: Estimate(np.zeros_like(blind), blind, np.full(2, 0.5), np.full(2, 1e-3))
    )
    perception_anew(engine)
    reset = np.array(list(task.joints.values()))
    half = perception._joint_low + 0.5 * perception._joint_span
    for stage, moved in enumerate(([], [0], [0, 1], [0, 1], [0, 1])):  # the lid is opened when the mug is placed
        engine.enter_stage(stage)
        for _ in range(40):
            engine.act(np.array([0, 0, 0, 0, 0, 0, -1.0]))
        wanted = [half[n] if n in moved else reset[n] for n in range(2)]
        np.testing.assert_allclose(engine.belief.data.qpos[engine.task.joint_qpos], wanted, atol=1e-3)


def test_a_held_piece_that_looks_the_same_when_turned_turns_with_the_hand(tmp_path, monkeypatch):
    """Its yaw is kept times the number of turns, which is no direction that stays as it is in a hand that turns."""
    task = TASKS["ThreePieceAssembly"]
    perception = CameraPerception(random_estimator(tmp_path / "weights", task))
    monkeypatch.setattr(camera, "EMPTY", -1.0)  # the hand is far from the piece that it is believed to hold
    engine = engine_of(task, perception=perception)
    piece = engine.task.objects.index("piece_1")
    assert perception._turns[piece] > 1
    blind = np.full((len(task.objects), 2, 3, 3), 1e6)

    def truth_once(truth, task, stage):
        data, bodies = truth.data, zip(task.bodies, perception._turns, strict=True)
        return seen_at(truth, [encode(data.xpos[b], data.xmat[b].reshape(3, 3), turns) for b, turns in bodies])

    monkeypatch.setattr(perception, "look", truth_once)
    engine = perception_anew(engine)
    for _ in range(8):  # closes
        engine.act(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    for _ in range(8):  # and rises: until then the piece stands on the table
        engine.act(np.array([0, 0, 0.5, 0, 0, 0, 1.0]))
    assert perception._carrier[piece] == fusion.HAND
    assert engine.sim.data.site_xpos[engine.sim.grip_site, 2] - perception._taken_at[piece] > camera.LIFTED
    in_hand = np.linalg.inv(engine.belief.eef_pose()) @ engine.task.object_pose(engine.belief, "piece_1")
    monkeypatch.setattr(perception, "look", lambda *_: Estimate(np.zeros_like(blind), blind, np.zeros(0), np.ones(0)))
    before = engine.belief.eef_pose()
    for _ in range(15):
        engine.act(np.array([0, 0, 0, 0, 0, 0.5, 1.0]))
    assert np.trace(before[:3, :3].T @ engine.belief.eef_pose()[:3, :3]) < 2.99
    now = np.linalg.inv(engine.belief.eef_pose()) @ engine.task.object_pose(engine.belief, "piece_1")
    np.testing.assert_allclose(now, in_hand, atol=2e-3)


def test_a_held_object_turns_with_the_hand_though_nobody_sees_its_yaw(tmp_path, monkeypatch):
    """A pod looks the same at every yaw; policies have learned from pods that turn with the hand that holds them."""
    perception = CameraPerception(random_estimator(tmp_path / "weights", CoffeeTask))
    monkeypatch.setattr(camera, "EMPTY", -1.0)  # the hand is far from the pod that it is believed to hold
    engine = engine_of(CoffeeTask, perception=perception)
    pod = engine.task.objects.index("coffee_pod")

    def upright(truth, task, stage):
        """Every object stands upright, wherever it is."""
        seen = np.zeros((2, 2, 3, 3))
        hand = truth.data.site_xmat[truth.grip_site].reshape(3, 3)
        seen[:, 0, 1] = seen[:, 0, 2] = [0.0, 0.0, 1.0]
        seen[:, 1, 1] = seen[:, 1, 2] = hand[2]
        seen[1, :, 1], seen[1, 0, 2], seen[1, 1, 2] = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], hand[1]
        seen[1, 1, 1] = hand[0]
        return Estimate(seen, np.full((2, 2, 3, 3), 1e-4), np.zeros(1), np.ones(1))

    monkeypatch.setattr(perception, "look", upright)
    engine = perception_anew(engine)
    yaw = lambda pose: np.arctan2(pose[1, 0], pose[0, 0])  # noqa: E731
    assert yaw(engine.task.object_pose(engine.belief, "coffee_pod")) == pytest.approx(0.0, abs=1e-6)
    for _ in range(8):  # closes
        engine.act(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    assert perception._carrier[pod] == fusion.HAND
    before = engine.belief.eef_pose()
    held = yaw(engine.task.object_pose(engine.belief, "coffee_pod"))
    for _ in range(15):
        engine.act(np.array([0, 0, 0, 0, 0, 0.5, 1.0]))
    turned = yaw(before[:3, :3].T @ engine.belief.eef_pose()[:3, :3])
    assert abs(turned) > 0.1
    assert yaw(engine.task.object_pose(engine.belief, "coffee_pod")) - held == pytest.approx(-turned, abs=0.02)


def engine_below(env):
    return env.unwrapped.engine


def perception_anew(engine):
    engine.perceive_anew()
    return engine


@pytest.fixture(scope="module", params=sorted(TASKS))
def frames(request):
    task = TASKS[request.param]
    return Frames(task, load_scene(task.scene), SMALL)


def states_of(engine, count=1):
    data = engine.sim.data
    return States(
        np.repeat(data.qpos[None], count, 0), np.repeat(data.mocap_pos[None], count, 0),
        np.repeat(data.mocap_quat[None], count, 0), np.full(count, -1.0), np.zeros(count, int), np.ones(count, bool),
        np.repeat(touching_groups(engine.sim, engine.task)[None], count, 0), np.zeros(count, int),
    )  # fmt: skip


def test_labels_say_where_objects_are(frames):
    """A network that gave its labels would be believed to the last bit, symmetric objects up to their symmetry."""
    engine = engine_of(type(frames.task), seed=3, variant="D2")
    frames.load(states_of(engine), 0)
    labels = frames.labels()
    count = len(frames.task.objects)
    outputs = np.zeros(output_size(frames.task), np.float32)
    for n in range(count):
        outputs[n * 36 : n * 36 + 18] = labels[n * 18 : n * 18 + 18]
    outputs[count * 36 :: 2] = labels[count * 18 :]
    estimate = split(outputs, count)
    hand = frames.cell.eef_pose()
    position, turned = (hand[:3, 3] - fusion.CENTRE) / fusion.UNIT, np.ascontiguousarray(hand[:3, :3])
    belief = copy.deepcopy(frames.cell)
    for n, name in enumerate(frames.task.objects):
        means, _ = fusion.evidence(estimate.mean[n], estimate.variance[n], position, turned, fusion.WORLD)
        vectors = fusion.in_world(means, position, turned, fusion.WORLD)
        symmetry = frames.task.symmetries.get(name)
        turns, lowest = (1, 0.0) if symmetry is None else (symmetry.turns, symmetry.yaw)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = decode(vectors, turns, lowest, np.nan)[0], vectors[0]
        frames.task.write_pose7(belief, name, to_pose7(pose))
    belief.evaluate()
    for metres, radians in errors(engine.sim, belief, frames.task):
        assert metres < 1e-6 and radians < 1e-3


def test_moved_objects_keep_their_height_and_what_they_touch(frames, monkeypatch):
    for name in ("LEANING", "LEANING_AT_WORK", "NEAR_PLACED", "LEANING_PLACED", "JOINTS", "SLIDES_AT_WORK"):
        monkeypatch.setattr(frames_module, name, 0.0)
    engine = engine_of(type(frames.task), variant="D2")
    for _ in range(5):
        engine.act(np.array([0.0, 0, 0, 0, 0, 0, -1]))
    states, rng = states_of(engine), np.random.default_rng(0)
    moved = 0
    for _ in range(20):
        frames.load(states, 0)
        before = [frames.task.object_pose(frames.cell, name) for name in frames.task.objects]
        frames.move(states.groups[0], 0, True, rng)
        after = [frames.task.object_pose(frames.cell, name) for name in frames.task.objects]
        for old, new in zip(before, after, strict=True):
            assert new[2, 3] == pytest.approx(old[2, 3], abs=1e-9)
            np.testing.assert_allclose(new[2, :3], old[2, :3], atol=1e-9)  # leans the same way
            moved += np.abs(new - old).max() > 1e-3
        for group in set(states.groups[0].tolist()):
            together = [n for n, number in enumerate(states.groups[0]) if number == group]
            relative = [[np.linalg.inv(poses[together[0]]) @ poses[n] for n in together] for poses in (before, after)]
            np.testing.assert_allclose(relative[0], relative[1], atol=1e-9)
    assert moved > 10


def test_some_objects_lean_on_the_table(frames, monkeypatch):
    """No deeper in it than their own lowest point, were they balls, and none of those that are fixed."""
    for name in ("LEANING", "LEANING_AT_WORK"):
        monkeypatch.setattr(frames_module, name, 1.0)
    engine, rng, leaning = engine_of(type(frames.task), variant="D2"), np.random.default_rng(0), 0
    states = states_of(engine)
    for _ in range(20):
        frames.load(states, 0)
        frames.move(states.groups[0], 0, True, rng)
        for name in frames.task.objects:
            pose = frames.task.object_pose(frames.cell, name)
            assert pose[2, 2] > np.cos(frames_module.LEAN) - 1e-6
            leaning += pose[2, 2] < 0.99
            if name in frames.task.object_mocap:
                assert pose[2, 2] == pytest.approx(1.0, abs=1e-6)
    assert leaning > 10


def test_what_stands_on_another_object_leans_and_stands_elsewhere_on_it_but_not_what_has_its_seat_there(monkeypatch):
    """A mug that was put down on the machine's plate, and a pod in its holder: of the two the mug is moved on its own."""
    task = TASKS["CoffeePreparation"]
    for name, part in (("NEAR_PLACED", 1.0), ("LEANING_PLACED", 1.0), ("JOINTS", 0.0), ("SLIDES_AT_WORK", 0.0)):
        monkeypatch.setattr(frames_module, name, part)
    frames, engine = Frames(task, load_scene(task.scene), SMALL), engine_of(task, variant="D2")
    states, rng = states_of(engine), np.random.default_rng(0)
    groups = np.array([{"drawer": 2}.get(name, 1) for name in task.objects])
    leaning, shifted = 0, 0
    for _ in range(20):
        frames.load(states, 0)
        before = {name: frames.task.object_pose(frames.cell, name) for name in task.objects}
        frames.move(groups, 2, True, rng)
        after = {name: frames.task.object_pose(frames.cell, name) for name in task.objects}
        in_machine = [np.linalg.inv(poses["coffee_machine"]) @ poses["mug"] for poses in (before, after)]
        pod_in_machine = [np.linalg.inv(poses["coffee_machine"]) @ poses["coffee_pod"] for poses in (before, after)]
        np.testing.assert_allclose(pod_in_machine[1], pod_in_machine[0], atol=1e-9)
        assert after["mug"][2, 2] > np.cos(frames_module.LEAN_PLACED) - 1e-6
        leaning += after["mug"][2, 2] < 0.99
        shifted += np.linalg.norm((in_machine[1] - in_machine[0])[:2, 3]) > 2e-3
    assert leaning > 5 and shifted > 10


def test_a_drawer_is_open_or_shut_wherever_the_hand_is_and_takes_along_what_lies_in_it(monkeypatch):
    task = TASKS["CoffeePreparation"]
    for name, part in (("SLIDES_AT_WORK", 1.0), ("JOINTS", 1.0), ("FAR", 0.0), ("NEAR", 0.0), ("LEANING", 0.0)):
        monkeypatch.setattr(frames_module, name, part)
    frames, engine = Frames(task, load_scene(task.scene), SMALL), engine_of(task, variant="D2")
    for _ in range(20):
        engine.act(np.array([0.0, 0, 0, 0, 0, 0, -1]))
    states, rng, seen = states_of(engine), np.random.default_rng(0), []
    groups = dict(zip(task.objects, states.groups[0].tolist(), strict=True))
    assert groups["drawer"] == groups["coffee_pod"] != ROBOT
    for _ in range(20):
        frames.load(states, 0)
        drawer, pod = (frames.task.object_pose(frames.cell, name) for name in ("drawer", "coffee_pod"))
        frames.move(states.groups[0], 0, True, rng)
        now = frames.cell.data.qpos[frames.task.joint_qpos[1]]
        slid = np.linalg.inv(drawer) @ frames.task.object_pose(frames.cell, "coffee_pod")
        moved = slid[:3, 3] - (np.linalg.inv(drawer) @ pod)[:3, 3]
        np.testing.assert_allclose(np.abs(moved), np.array([0.0, abs(float(now)), 0.0]), atol=1e-6)
        seen.append(now)
    assert -0.2 <= min(seen) < -0.15 and max(seen) > -0.05


def test_joints_stop_where_tasks_say_that_they_do():
    """A drawer whose slide's range is a metre was put a metre out of its cabinet."""
    for task in TASKS.values():
        for name, (low, high) in task.joint_stops.items():
            sim = engine_of(task, variant="D2").sim
            address, dof = sim.model.joint(name).qposadr[0], sim.model.joint(name).dofadr[0]
            for force, stop in ((-60.0, low), (60.0, high)):
                sim.data.qfrc_applied[dof] = force
                for _ in range(40):
                    sim.step(np.zeros(7))
                assert sim.data.qpos[address] == pytest.approx(stop, abs=5e-3)


def test_what_is_held_slides_along_the_fingers_and_hardly_from_one_to_the_other(frames):
    if not frames.task.object_qpos:
        pytest.skip("nothing can be held")
    model, data, name = frames.cell.model, frames.cell.data, next(iter(frames.task.object_qpos))
    frames.load(states_of(engine_of(type(frames.task))), 0)
    hand, rng = frames.cell.eef_pose(), np.random.default_rng(0)
    tips = [data.xpos[model.body(f"gripper0_right_finger_joint{i}_tip").id] for i in (1, 2)]
    closing = np.abs(hand[:3, :3].T @ (tips[0] - tips[1]))
    moves = []
    for _ in range(40):
        frames.task.write_pose7(frames.cell, name, to_pose7(hand))
        frames._slip(name, rng)
        moves.append(np.linalg.inv(hand) @ from_pose7(frames.task.root_pose7(frames.cell, name)))
    deviations = np.std([move[:3, 3] for move in moves], axis=0)
    assert np.argmax(closing) == np.argmin(deviations)
    assert deviations.min() < 0.5 * np.sort(deviations)[1]


def test_frames_are_drawn_from_the_seed_alone(frames):
    engine = engine_of(type(frames.task))
    taken = []
    for _ in range(2):
        rng = np.random.default_rng(7)
        frames.load(states_of(engine), 0)
        frames.move(states_of(engine).groups[0], 0, False, rng)
        taken.append(frames.take(0))
    for one, other in zip(*taken, strict=True):
        np.testing.assert_array_equal(one, other)
    pictures, own, _ = taken[0]
    assert pictures.shape == (2, SMALL, SMALL, 3) and own.shape == (proprio_size(frames.task),)


def test_groups_are_what_touches():
    engine = engine_of(CoffeeTask)
    assert touching_groups(engine.sim, engine.task).tolist() == [1, 2]
    hand = engine.sim.eef_pose()
    engine.task.write_pose7(engine.sim, "coffee_pod", to_pose7(hand))
    engine.sim.refresh()
    groups = touching_groups(engine.sim, engine.task)
    assert groups[0] == ROBOT and groups[1] != ROBOT
    machine = engine.task.object_pose(engine.sim, "coffee_machine")
    engine.task.write_pose7(engine.sim, "coffee_pod", to_pose7(machine))
    engine.sim.refresh()
    groups = touching_groups(engine.sim, engine.task)
    assert groups[0] == groups[1] != ROBOT


def test_states_survive_a_file(tmp_path):
    states = States.joined([states_of(engine_of(), 3), states_of(engine_of(seed=1), 2)])
    states.save(tmp_path / "states.npz")
    loaded = States.load(tmp_path / "states.npz")
    assert len(loaded) == 5
    np.testing.assert_array_equal(loaded.qpos, states.qpos)
    assert len(loaded[np.array([0, 4])]) == 2


def test_errors_do_not_count_turns_that_nobody_can_see():
    engine = engine_of(NutAssemblyTask, variant="D2")
    belief = copy.deepcopy(engine.sim)
    turn = rotation(np.array([0.0, 0.0, np.pi / 2]))
    for name in engine.task.objects:
        pose = from_pose7(engine.task.root_pose7(engine.sim, name)) @ turn
        pose[0, 3] += 0.01
        engine.task.write_pose7(belief, name, to_pose7(pose))
    belief.refresh()
    off = dict(zip(engine.task.objects, errors(engine.sim, belief, engine.task), strict=True))
    for metres, _ in off.values():
        assert metres == pytest.approx(0.01, abs=1e-6)
    assert off["square_peg"][1] < 1e-6 and off["round_peg"][1] < 1e-6
    assert off["square_nut"][1] == pytest.approx(np.pi / 2, abs=1e-6)


def test_errors_are_summed_up_by_phase():
    rows = [Row(0, "skill", 0, 0.001 * k, 0.01 * k) for k in range(1, 6)] + [Row(1, "arrived", 1, 0.002, 0.0)]
    table = summarise(rows, ThreadingTask)
    assert [line["phase"] for line in table] == ["skill", "arrived"]
    assert table[0]["mm"] == 3.0 and table[0]["steps"] == 5 and table[0]["object"] == "needle"
    assert table[1]["stage"] == "insert" and table[1]["mm_p95"] == 2.0


def test_proprioception_holds_no_objects():
    engine = engine_of()
    before = proprio(engine.sim, 2, 1)
    engine.task.write_pose7(engine.sim, "needle", np.array([0.0, 0.0, 0.9, 1.0, 0, 0, 0]))
    engine.sim.refresh()
    np.testing.assert_array_equal(proprio(engine.sim, 2, 1), before)


def test_torch_and_numpy_read_outputs_alike():
    import torch

    rng = np.random.default_rng(0)
    outputs = rng.normal(size=output_size(CoffeeTask)).astype(np.float32)
    mean, log_variance = means_and_log_variances(torch.from_numpy(outputs[None]), 2)
    estimate = split(outputs, 2)
    np.testing.assert_allclose(mean[0, :36].numpy(), estimate.mean.ravel())
    np.testing.assert_allclose(mean[0, 36:].numpy(), estimate.joints)
    np.testing.assert_allclose(log_variance[0, :36].exp().numpy(), estimate.variance.ravel(), rtol=1e-6)
    labels = mean.clone()
    exact, _ = loss_of(torch.from_numpy(outputs[None]), labels, 2)
    off, _ = loss_of(torch.from_numpy(outputs[None]), labels + 1, 2)
    assert exact < off


def test_no_true_pose_is_read_while_a_camera_episode_plays(untrained, monkeypatch):
    """Everything that acts asks for poses of the belief; whoever asks for those of the simulation gets an error."""
    env = gym.make("ReinforceGen/D0-Threading-Residual-v0", perception="camera", weights=str(untrained),
                   termination="predictor", initiation="student")  # fmt: skip
    for name in ("object_pose", "root_pose7"):
        asked = getattr(Task, name)

        def guarded(self, cell, object_name, asked=asked):
            assert not isinstance(cell, Simulation), "asked for the truth"
            return asked(self, cell, object_name)

        monkeypatch.setattr(Task, name, guarded)
    body_pose = Simulation.body_pose

    def guarded_body(self, body):
        raise AssertionError("asked for the truth")

    monkeypatch.setattr(Simulation, "body_pose", guarded_body)
    assert body_pose is not guarded_body
    for seed in range(3):
        _, info = env.reset(seed=seed)
        done = bool(info["failure"])
        for _ in range(20):
            if done:
                break
            _, _, terminated, truncated, info = env.step(np.zeros(7))
            done = terminated or truncated
    env.close()


def test_what_is_believed_is_drawn_into_pictures(untrained):
    plain = gym.make("ReinforceGen/D0-Threading-v0", render_mode="rgb_array", width=96, height=96)
    env = gym.make(
        "ReinforceGen/D0-Threading-v0",
        render_mode="rgb_array",
        width=96,
        height=96,
        perception=CameraPerception(untrained),
    )
    pictures = []
    for one in (plain, env):
        one.reset(seed=0)
        if one is env:  # an estimator that knows nothing says so: the ellipsoids would fill the picture
            env.unwrapped.engine.perception._precisions *= 1e4  # type: ignore[attr-defined]
        frame = one.render()
        assert isinstance(frame, np.ndarray)
        pictures.append(frame.astype(int))
        one.close()
    changed = np.abs(pictures[1] - pictures[0]).max(2) > 8
    assert 10 < changed.sum() < 0.5 * changed.size
    greener = (pictures[1] - pictures[0])[changed]
    assert (greener[:, 1] - greener[:, 0]).max() > 20


def test_the_spread_is_that_of_the_positions(untrained):
    engine = engine_of(perception=CameraPerception(untrained))
    perception = engine.perception
    assert isinstance(perception, CameraPerception)
    first = perception.spread(engine.belief)
    assert first.shape == (2, 3, 3)
    assert (np.linalg.eigvalsh(first) > 0).all()
    for _ in range(30):
        engine.act(np.zeros(7))
    assert np.trace(perception.spread(engine.belief)[0]) < np.trace(first[0])


def test_an_object_is_doubted_as_far_as_it_is_not_known(untrained):
    engine = engine_of(perception=CameraPerception(untrained))
    perception, task, belief = engine.perception, engine.task, engine.belief
    assert isinstance(perception, CameraPerception)
    before = [perception.doubt(belief, task, name) for name in task.objects]
    for (metres, radians), covariance in zip(before, perception.spread(belief), strict=True):
        assert metres == pytest.approx(np.sqrt(np.trace(covariance))) and radians > 0.0
    perception._precisions[0] *= 4.0
    assert perception.doubt(belief, task, task.objects[0]) == pytest.approx(np.array(before[0]) / 2)
    assert perception.doubt(belief, task, task.objects[1]) == before[1]
    perception._precisions[0, 2] /= 100.0  # one direction alone is not known
    assert perception.doubt(belief, task, task.objects[0])[1] > 4 * before[0][1]


@pytest.mark.parametrize(
    "task", [task for name, task in TASKS.items() if (SHIPPED / name.lower() / "estimator.safetensors").is_file()]
)
def test_shipped_estimators_are_exact_enough_to_begin_a_skill(task):
    """Where the hand arrives for a first skill, its reference object is nearly where it is believed to be."""
    env = gym.make(
        f"ReinforceGen/D2-{task.name}-Residual-v0", perception="camera", termination="predictor", initiation="student"
    )
    engine = env.unwrapped.engine  # type: ignore[attr-defined]
    reference = task.objects.index(task.stages[0].reference)
    off = []
    for seed in range(1_000_000, 1_000_006):
        _, info = env.reset(seed=seed)
        if not info["failure"]:
            off.append(errors(engine.sim, engine.belief, engine.task)[reference])
    env.close()
    metres, radians = np.median(off, axis=0)
    assert len(off) >= 4 and metres < 0.01 and radians < 0.15


def test_a_model_takes_up_what_was_saved():
    import torch

    torch.manual_seed(0)
    one = estimator_for(CoffeeTask, SMALL)
    other = estimator_for(CoffeeTask, SMALL)
    load_arrays(other, arrays(one))
    for (name, first), second in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(first, second), name


def test_a_lid_that_fell_shut_is_believed_to_be_shut_soon(tmp_path, monkeypatch):
    perception = CameraPerception(random_estimator(tmp_path / "weights", CoffeeTask))
    engine = engine_of(CoffeeTask, perception=perception)
    lid = [1.0, 1e-4]  # part of its range, variance

    def look(truth, task, stage):
        ones = np.ones((2, 2, 3, 3))
        return Estimate(0.1 * ones, ones, np.array([lid[0]]), np.array([lid[1]]))

    monkeypatch.setattr(perception, "look", look)
    engine.enter_stage(1)  # before that a lid is as resets leave it
    for _ in range(50):
        engine.act(np.zeros(7))
    lid[:] = 0.0, 1e-2  # shut, and hardly to be seen
    believed = []
    for _ in range(30):
        engine.act(np.zeros(7))
        believed.append(float(engine.belief.data.qpos[engine.task.joint_qpos[0]]))
    assert believed[0] > 1.0 and believed[20] < 0.2


def test_a_lid_is_followed_and_rests_at_its_stops(tmp_path, monkeypatch):
    """It was believed 0.1 rad short of its stop, where the hand did not find it; and a third of its range behind on its way."""
    perception = CameraPerception(random_estimator(tmp_path / "weights", CoffeeTask))
    engine = engine_of(CoffeeTask, perception=perception)
    seen = [1.0]

    def look(truth, task, stage):
        ones = np.ones((2, 2, 3, 3))
        return Estimate(0.1 * ones, ones, np.array([seen[0]]), np.array([4e-3]))

    def believed(part):
        seen[0] = part
        engine.act(np.zeros(7))
        place = engine.belief.data.qpos[engine.task.joint_qpos]
        return ((place - perception._joint_low) / perception._joint_span).item()

    monkeypatch.setattr(perception, "look", look)
    engine.enter_stage(1)
    for rest, doubt in ((1.0, 0.85), (0.0, 0.15), (1.0, 0.85)):
        way = np.linspace(1.0 - rest, rest, 21)
        behind = [abs(believed(part) - part) for part in way if camera.LEFT_STOP < part < 1.0 - camera.LEFT_STOP]
        assert max(behind) < 0.12
        for part in (*[rest] * 10, *[doubt] * 20):
            shown = believed(part)
        assert shown == pytest.approx(rest)
    memory = perception.get_memory()
    perception.reset(engine.sim, engine.belief, engine.task, engine.rng)
    perception.set_memory(memory)
    assert perception.get_memory()["joint_rests"] == memory["joint_rests"] == 1.0


def test_what_tips_slowly_after_it_was_put_down_is_believed_to_lean_in_the_end(tmp_path, monkeypatch):
    """A few degrees are the cameras' doubt, and count as upright; but they add up, however slowly."""
    perception = CameraPerception(random_estimator(tmp_path / "weights", ThreadingTask))
    engine = engine_of(ThreadingTask, perception=perception)
    tripod, angle = engine.task.objects.index("tripod"), 0.0

    def look(truth, task, stage):
        """The tripod leans by ``angle``, radians."""
        bodies = truth.data.xpos[list(task.bodies)]
        turned = (np.eye(3), np.ascontiguousarray(rotation([angle, 0.0, 0.0])[:3, :3]))
        return seen_at(truth, [encode(at, turn, 1) for at, turn in zip(bodies, turned, strict=True)])

    def leans():
        perception._grip.put_down[tripod] = True
        engine.act(np.array([0, 0, 0, 0, 0, 0, -1.0]))
        return engine.task.object_pose(engine.belief, "tripod")[2, 2]

    monkeypatch.setattr(perception, "look", look)
    perception_anew(engine)
    perception._moved[tripod] = True  # it was carried there
    angle = np.radians(6.0)
    for _ in range(10):
        assert leans() == pytest.approx(1.0, abs=1e-9)
    for step in range(60):
        angle = np.radians(6.0 + step / 3)
        leans()
    for _ in range(60):
        lean = leans()
    assert lean < np.cos(np.radians(20.0))


def test_what_was_put_down_is_believed_upright_until_it_is_taken_up_again():
    engine = engine_of(NutAssemblyTask)
    grip, square = camera.Grip(engine.task), engine.task.objects.index("square_nut")
    sim = engine.sim

    def step(stage, gripper):
        sim.controller[camera.GRIPPER] = gripper
        return grip.update(sim, stage)

    def closed():
        return [step(0, 1.0) for _ in range(camera.STARTING + 1)][-1]

    assert sim.gripper_opening() > camera.EMPTY  # the fingers stay apart, as round a nut
    assert closed()[square] == fusion.HAND and not grip.put_down.any()
    assert step(0, -1.0)[square] == fusion.WORLD and not grip.put_down.any()  # it was never brought anywhere
    closed()
    assert step(1, 1.0)[square] == fusion.HAND and not grip.released and not grip.put_down.any()
    step(1, -1.0)
    assert grip.released and grip.put_down.tolist() == grip.falling.tolist() == [n == square for n in range(4)]
    for _ in range(camera.FALLING):
        step(1, 1.0)
    assert grip.put_down[square] and not grip.falling.any()
    assert step(2, -1.0)[square] == fusion.WORLD and grip.put_down[square]  # the next nut's turn
    other = camera.Grip(engine.task)
    other.set_memory(grip.get_memory())
    assert other.put_down[square] and other.stage == 2
    assert closed()[square] == fusion.HAND and not grip.put_down.any()


def test_what_fingers_close_on_is_not_carried_before_they_have_come_to_it():
    """A hand that rose while they closed believed that it lifted a mug, and closed on the mug's very rim."""
    engine = engine_of(CoffeePreparationTask)
    grip, mug = camera.Grip(engine.task), engine.task.objects.index("mug")
    sim = engine.sim

    def step(opening, gripper=1.0):
        sim.data.qpos[sim.finger_qpos] = opening * np.array([0.04, -0.04])
        sim.controller[camera.GRIPPER] = gripper
        return grip.update(sim, 0)[mug]

    closing = [0.98, 0.91, 0.84, 0.76, 0.66, 0.57, 0.47, 0.37, 0.27, 0.17]
    assert [step(opening) for opening in closing] == [fusion.WORLD] * len(closing)
    assert step(0.15) == fusion.HAND
    other = camera.Grip(engine.task)
    other.set_memory(grip.get_memory())
    assert step(0.1) == fusion.HAND  # it slips
    assert other.update(sim, 0)[mug] == fusion.HAND
    assert step(0.1, -1.0) == fusion.WORLD
    assert [step(opening) for opening in closing] == [fusion.WORLD] * len(closing)


def test_a_nut_that_was_let_go_of_round_its_peg_stays_there_whatever_is_seen(tmp_path, monkeypatch):
    """It lay round its peg, was seen 6 cm over the table and 4 cm aside for a second, and was looked for in the air."""
    perception = CameraPerception(random_estimator(tmp_path / "weights", NutAssemblyTask))
    engine = engine_of(NutAssemblyTask, perception=perception)
    task, nut, place = engine.task, engine.task.objects.index("square_nut"), [0.0, 0.0, 0.0]

    def look(truth, _, stage):
        vectors = [
            encode(truth.data.xpos[b], np.eye(3), turns)
            for b, turns in zip(task.bodies, perception._turns, strict=True)
        ]
        peg = task.object_pose(truth, "square_peg")
        vectors[nut] = encode(peg[:3, 3] + place, np.eye(3), perception._turns[nut])
        return seen_at(truth, vectors)

    def off(gripper):
        engine.act(np.array([0, 0, 0, 0, 0, 0, gripper]))
        return (invert(task.object_pose(engine.belief, "square_peg")) @ task.object_pose(engine.belief, "square_nut"))[
            :3, 3
        ]

    monkeypatch.setattr(perception, "look", look)
    perception_anew(engine)
    place[2] = 0.12  # upon the peg
    for gripper in (*[1.0] * 6, -1.0):
        engine.enter_stage(1)
        off(gripper)
    for _ in range(12):
        assert off(-1.0)[2] == pytest.approx(0.12, abs=0.01)
    place[2] = 0.06  # on its way, and then wherever the hand lets it be seen
    for _ in range(8):
        off(-1.0)
    seat = task.seats["square_nut"]
    place[:] = 0.04, 0.0, 0.1
    for gripper in (*[-1.0] * 20, *[1.0] * 5):
        fallen = off(gripper)
        assert fallen[2] == pytest.approx(seat.position[2], abs=1e-6) and np.hypot(*fallen[:2]) < 0.01
    memory = perception.get_memory()
    assert np.isfinite(memory["fallen"][nut]).all()
    engine.enter_stage(0)  # it is taken up again
    monkeypatch.setattr(camera, "EMPTY", -1.0)
    for _ in range(15):  # until the fingers have met
        high = off(1.0)
    assert high[2] > 0.05 and np.isnan(perception.get_memory()["fallen"][nut]).all()


def test_what_was_let_go_of_in_its_seat_is_believed_to_lie_there(tmp_path, monkeypatch):
    """Pictures that say that the pod is 12 mm over the holder's floor, and that it is in the machine's frame."""
    perception = CameraPerception(random_estimator(tmp_path / "weights", CoffeeTask))
    engine = engine_of(CoffeeTask, perception=perception)
    task, seat, over = engine.task, CoffeeTask.seats["coffee_pod"], 0.012
    pod, machine = task.objects.index("coffee_pod"), task.objects.index("coffee_machine")

    def look(truth, task, stage):
        frame = task.object_pose(truth, "coffee_machine")
        vectors = [np.zeros((3, 3))] * 2
        vectors[machine] = encode(frame[:3, 3], frame[:3, :3].copy(), 1)
        vectors[pod] = encode((frame @ np.array([*seat.position, 1.0]))[:3] + [0.0, 0.0, over], np.eye(3), 0)
        return Estimate(seen_at(truth, vectors).mean, np.full((2, 2, 3, 3), 1e-4), np.ones(1), np.ones(1))

    def height():
        away = np.linalg.inv(task.object_pose(engine.belief, "coffee_machine")) @ task.object_pose(
            engine.belief, "coffee_pod"
        )
        return away[2, 3] - seat.position[2]

    monkeypatch.setattr(perception, "look", look)
    perception_anew(engine)
    engine.enter_stage(1)
    engine.act(np.array([0.0] * 6 + [1.0]))
    assert height() == pytest.approx(over, abs=1e-6)
    for _ in range(12):
        engine.act(np.array([0.0] * 6 + [-1.0]))
    assert height() == pytest.approx(0.0, abs=1e-9)
    over = 0.06  # somebody has taken it out
    for _ in range(60):
        engine.act(np.array([0.0] * 6 + [-1.0]))
    assert height() > 0.03
