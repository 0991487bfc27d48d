"""A whole task's student that sees through the estimator: what it is shown, what it notes, what it learns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from blind import Blind  # noqa: E402
from drawing import does_not_draw, draws, run_what_draws  # noqa: E402

from reinforcegen_envs.agents import dagger  # noqa: E402
from reinforcegen_envs.agents.guide import Guide, Unaided  # noqa: E402
from reinforcegen_envs.agents.learners import NotesLearner  # noqa: E402
from reinforcegen_envs.agents.student import Notes, Recall, StudentPolicy  # noqa: E402
from reinforcegen_envs.observations import ACTION_SIZE  # noqa: E402
from reinforcegen_envs.perception.fusion import CENTRE, UNIT  # noqa: E402
from reinforcegen_envs.policies.bundle import Bundle  # noqa: E402
from reinforcegen_envs.policies.mlp import MLP, WeightsError, load_mlps, save_mlps  # noqa: E402
from reinforcegen_envs.poses import rotvec_to_matrix  # noqa: E402
from reinforcegen_envs.registration import make_env  # noqa: E402
from reinforcegen_envs.tasks import TASKS  # noqa: E402


@pytest.fixture
def env() -> Notes:
    """Threading, pictures black."""
    return Notes(Unaided(Blind(make_env("Threading", "D0"))))


def test_what_an_action_ends_with_is_shown_next(env):
    seen, _ = env.reset(seed=1)
    assert seen in env.observation_space and (env.phases, env.sources) == (4, 10)
    assert np.flatnonzero(seen[-14:]).tolist() == [0, 4]
    assert np.flatnonzero(seen[env.noted_phase]).tolist() == [0]
    action = np.zeros(env.action_space.shape, np.float32)
    action[[ACTION_SIZE + 3, ACTION_SIZE + 4 + 7]] = 0.1, 0.2
    seen, *_ = env.step(action)
    assert seen in env.observation_space and np.flatnonzero(seen[-14:]).tolist() == [3, 4 + 7]
    seen, _ = env.reset(seed=1)
    assert np.flatnonzero(seen[-14:]).tolist() == [0, 4]  # a new episode is not told of the last one


def test_where_objects_are_is_not_shown(env):
    first, _ = env.reset(seed=1)
    core: Any = env.unwrapped
    pose = core.object_poses()["tripod"]
    core.task.write_pose7(core.sim, "tripod", pose + np.array([0.05, 0, 0, 0, 0, 0, 0]))
    core.refresh()
    np.testing.assert_array_equal(env._seen(env.env.env.seen()), first)  # pyright: ignore[reportAttributeAccessIssue]


def test_a_guide_s_label_does_what_the_guide_says(env):
    plain: Any = make_env("Threading", "D0").unwrapped
    plain.reset(seed=2)
    env.reset(seed=2)
    core: Any = env.unwrapped
    guides = [Guide(each.engine, Bundle.open(TASKS["Threading"])) for each in (plain, core)]
    phases = set()
    for _ in range(80):
        plain.step(guides[0]().astype(np.float32))
        label = env.label(guides[1])
        assert label.shape == env.action_space.shape and np.abs(label).max() <= 1.0
        phases.add(int(np.argmax(label[ACTION_SIZE : ACTION_SIZE + 4])))
        assert np.argmax(label[ACTION_SIZE + 4 :]) == guides[1].source
        env.step(label)
        np.testing.assert_allclose(core.sim.joints, plain.sim.joints, atol=1e-5)
    assert {0, 1} <= phases


def test_a_learner_comes_to_say_what_the_labels_say_with_torch_and_without(tmp_path):
    torch.manual_seed(0)
    space = gym.spaces.Box(-1, 1, (6,), np.float32)
    envs: Any = SimpleNamespace(
        single_observation_space=space,
        single_action_space=gym.spaces.Box(-1, 1, (2,)),
        get_attr=lambda name: [{"noted_phase": slice(3, 5)}[name]],
    )
    learner = NotesLearner(SimpleNamespace(hidden=32, learning_rate=1e-2, buffer_size=1000), envs)
    rng = np.random.default_rng(0)
    seen = rng.normal(3.0, 2.0, (600, 6)).astype(np.float32)
    phase = np.arange(600) % 2
    seen[:, 3:5] = np.eye(2)[phase]
    seen[:, 0] *= 0.01**phase  # a hundredth as far matters as much in the other phase
    label = np.tanh(seen[:, :2] * 100.0 ** phase[:, None] - 3.0)
    for i in range(0, 600, 4):
        step: Any = SimpleNamespace(obs=seen[i : i + 4])
        learner.add(step, label[i : i + 4])
    assert learner.size == 600
    learner.begin()
    for i in range(2):
        np.testing.assert_allclose(learner.student.mean[i], seen[phase == i].mean(0), rtol=1e-4, atol=1e-6)
    losses = [learner.update(rng, 32, 1e-2) for _ in range(300)]
    assert losses[-1] < 0.2 * losses[0]
    acted = learner.act(seen)
    assert np.abs(acted - label)[:, 0].mean(where=phase == 1) < 0.1
    learner.policy.save(tmp_path / "student.safetensors", {"kind": "student"})
    for policy in (learner.policy, StudentPolicy.load(tmp_path / "student.safetensors", kind="student")):
        np.testing.assert_allclose([policy(each) for each in seen], acted, atol=1e-5)


def test_what_is_no_student_is_refused(tmp_path):
    save_mlps(tmp_path / "other.safetensors", {"all": MLP([np.zeros((1, 2))], [np.zeros(1)])}, {"kind": "student"})
    with pytest.raises(WeightsError, match="not a student that takes notes"):
        StudentPolicy.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("frame", [0, 1])
def test_a_mean_is_nearer_than_what_was_seen_in_the_frame_where_the_object_rests(frame):
    rng, recall = np.random.default_rng(0), Recall(1)
    truth, errors = rng.normal(size=(3, 3)), []
    hand = np.eye(4)
    for _ in range(100):
        hand[:3, :3] = rotvec_to_matrix(0.1 * rng.normal(size=3)) @ hand[:3, :3]
        hand[:3, 3] += 0.01 * rng.normal(size=3)
        position, rotation = (hand[:3, 3] - CENTRE) / UNIT, hand[:3, :3]
        in_hand = truth.copy()
        if frame == 0:
            in_hand = (truth - [position, 0 * position, 0 * position]) @ rotation
        outputs = np.zeros((1, 2, 2, 3, 3))
        outputs[0, 0, 0] = in_hand @ rotation.T + [position, 0 * position, 0 * position]
        outputs[0, 0, 1] = in_hand
        outputs[0, 0] += 0.1 * rng.normal(size=(2, 3, 3))
        shown = recall(outputs.ravel().astype(np.float32), hand).reshape(2, 2, 3, 3)[:, frame]
        errors.append([np.abs(outputs[0, 0, 1] - in_hand).mean(), *np.abs(shown - in_hand).mean((1, 2))])
    seen, lately, long = np.mean(errors[30:], 0)
    assert lately < 0.4 * seen and long < 0.8 * lately
    recall.reset()
    assert not recall._precisions.any()


@does_not_draw
def test_what_draws():
    """The tests below, where this process has no back-end."""
    run_what_draws(__file__, "whole_task")


@draws
@pytest.mark.parametrize("perception", [None, "camera"])
def test_a_whole_task_through_the_estimator(perception, tmp_path):
    args = dagger.Args(
        env_id="ReinforceGen/D2-Threading-v0", through_estimator=True, hidden=16, num_envs=2, total_steps=200, warmup_steps=60,
        mix_steps=60, batch_size=8, eval_every=0, final_episodes=1, runs_dir=tmp_path, run_name="run", quiet=True,
        perception=perception,
    )  # fmt: skip
    assert dagger.main(args)["steps"] == 200
    networks, card = load_mlps(tmp_path / "run" / "actor.safetensors")
    assert card["kind"] == "student" and networks["3"].sizes[-1] == ACTION_SIZE + 4 + 10
