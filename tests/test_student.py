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
from reinforcegen_envs.agents.student import Notes  # noqa: E402
from reinforcegen_envs.observations import ACTION_SIZE  # noqa: E402
from reinforcegen_envs.policies.bundle import Bundle  # noqa: E402
from reinforcegen_envs.policies.mlp import load_mlps  # noqa: E402
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


def test_a_learner_comes_to_say_what_the_labels_say_with_torch_and_without():
    torch.manual_seed(0)
    space = gym.spaces.Box(-1, 1, (3,), np.float32)
    envs: Any = SimpleNamespace(single_observation_space=space, single_action_space=gym.spaces.Box(-1, 1, (2,)))
    learner = NotesLearner(SimpleNamespace(hidden=32, learning_rate=1e-2, buffer_size=100), envs)
    rng = np.random.default_rng(0)
    seen = rng.normal(3.0, 2.0, (60, 3)).astype(np.float32)
    label = np.tanh(seen[:, :2] - 3.0)
    for i in range(0, 60, 4):
        step: Any = SimpleNamespace(obs=seen[i : i + 4])
        learner.add(step, label[i : i + 4])
    assert learner.size == 60
    learner.begin()
    np.testing.assert_allclose(learner.student.mean, seen.mean(0), rtol=1e-5)
    losses = [learner.update(rng, 32, 1e-2) for _ in range(300)]
    assert losses[-1] < 0.2 * losses[0]
    acted = learner.act(seen)
    np.testing.assert_allclose([learner.policy(each) for each in seen], acted, atol=1e-5)


@does_not_draw
def test_what_draws():
    """The tests below, where this process has no back-end."""
    run_what_draws(__file__, "whole_task")


@draws
def test_a_whole_task_through_the_estimator(tmp_path):
    args = dagger.Args(
        env_id="ReinforceGen/D2-Threading-v0", through_estimator=True, hidden=16, num_envs=2, total_steps=200, warmup_steps=60,
        mix_steps=60, batch_size=8, eval_every=0, final_episodes=1, runs_dir=tmp_path, run_name="run", quiet=True,
    )  # fmt: skip
    assert dagger.main(args)["steps"] == 200
    networks, card = load_mlps(tmp_path / "run" / "actor.safetensors")
    assert card["kind"] == "student" and networks["all"].sizes[-1] == ACTION_SIZE + 4 + 10
