"""Base policies with memory in environments: a copy each, cleared where skills and episodes begin, kept in snapshots."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from helpers import assert_each_plays_as_alone

import reinforcegen_envs  # noqa: F401 (registers the ids)
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.policy import Policy
from reinforcegen_envs.tasks import ThreadingTask
from reinforcegen_envs.wrappers import Residual, fill_pool

RESIDUAL = "ReinforceGen/D2-Threading-Residual-v0"
ZERO = np.zeros(7, np.float32)
STAGE = ObservationLayout.of(ThreadingTask).slices["stage"]


class Chunk(Policy):
    """Asks the shipped base policy now and then, and repeats its answer: a chunk of 4 equal actions."""

    frame = "reference"
    length = 4

    def __init__(self):
        self._base = Bundle.open(ThreadingTask).base()
        self._queues = {}
        self.log = []  # stages in which a chunk was planned, and used

    def reset(self, env_indices=None):
        for index in self._queues if env_indices is None else env_indices:
            self._queues[index] = []

    def act(self, observations, env_indices=None):
        rows = range(len(observations)) if env_indices is None else env_indices
        return np.stack([self._next(index, obs) for index, obs in zip(rows, observations, strict=True)])

    def _next(self, index, obs):
        queue = self._queues.setdefault(index, [])
        stage = int(np.argmax(obs[STAGE]))
        if not queue:
            queue += [(stage, self._base.act(obs[None])[0])] * self.length
        planned, action = queue.pop(0)
        self.log.append((planned, stage))
        return action

    def get_memory(self, env_index=0):
        queue = self._queues.get(env_index, [])
        return {"stages": [stage for stage, _ in queue], "actions": np.array([a for _, a in queue]).reshape(-1, 7)}

    def set_memory(self, memory, env_index=0):
        self._queues[env_index] = list(zip(memory["stages"], memory["actions"], strict=True))


class PlainChunk:
    """The same as users bring it: callable, with ``reset``, and nothing else; actions in the world frame."""

    def __init__(self):
        self.queue = []

    def reset(self):
        self.queue.clear()

    def __call__(self, obs):
        if not self.queue:
            self.queue += [np.clip(obs[:7] * 3.0, -0.3, 0.3).astype(np.float64)] * 4
        return self.queue.pop(0)


def base_of(env: Any) -> Any:
    while not isinstance(env, Residual):
        env = env.env
    return env._base


@pytest.mark.parametrize("kind", [Chunk, PlainChunk])
@pytest.mark.parametrize("vector", ["sync", "threads", "processes"])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_one_policy_object_in_many_environments(kind, vector, mode):
    """Every environment goes on as it would alone, though all were given the same object."""
    policy = kind()
    assert_each_plays_as_alone(
        lambda: gym.make(RESIDUAL, base_policy=policy, disable_env_checker=True), vector, mode, steps=150
    )


def test_a_chunk_ends_with_its_skill_and_with_its_episode():
    env = gym.make(RESIDUAL, base_policy=Chunk())
    for seed in range(3):
        env.reset(seed=seed)
        done, steps = False, 0
        while not done and steps < 150:
            _, _, terminated, truncated, _ = env.step(ZERO)
            done, steps = terminated or truncated, steps + 1
    log = base_of(env).log
    assert {stage for _, stage in log} == {0, 1}
    assert all(planned == used for planned, used in log)


@pytest.mark.parametrize("kind", [Chunk, PlainChunk])
def test_memory_belongs_to_snapshots_and_restoring_asks_nobody(kind):
    env = gym.make(RESIDUAL, base_policy=kind())
    env.reset(seed=3)
    for _ in range(6):  # in the middle of a chunk
        env.step(ZERO)
    state = env.unwrapped.get_state()  # type: ignore[attr-defined]
    asked = len(getattr(base_of(env), "log", ()))
    expected = [env.step(ZERO)[0] for _ in range(12)]
    other = gym.make(RESIDUAL, base_policy=kind())
    other.reset(seed=9)
    asked_there = len(getattr(base_of(other), "log", ()))
    other.unwrapped.set_state(state)  # type: ignore[attr-defined]
    assert len(getattr(base_of(other), "log", ())) == asked_there and asked > 0 or kind is PlainChunk
    for obs in expected:
        np.testing.assert_array_equal(other.step(ZERO)[0], obs)


@pytest.mark.parametrize("bad, message", [(np.zeros(6), r"earlier policy's.*\(6,\)"), (np.full(7, np.nan), "NaN")])
def test_an_earlier_policys_action_is_checked(bad, message):
    """It goes to compiled code that checks no bounds."""
    env = gym.make("ReinforceGen/D2-Threading-Skill-v0", stage="insert", earlier_policy=lambda obs: bad)
    with pytest.raises(InvalidArgument, match=message):
        env.reset(seed=0)


def test_pose_noise_with_a_pool_is_refused(tmp_path):
    path = tmp_path / "pool.npz"
    fill_pool.fill(fill_pool.Args(stage="insert", count=1, seed=20, out=path, workers=1))
    with pytest.raises(InvalidArgument, match="pose_noise.*pool"):
        gym.make(RESIDUAL, stage="insert", pool=str(path), pose_noise=(0.01, 0.0))
    gym.make(RESIDUAL, stage="insert", pool=path).reset(seed=0)  # a Path does, too
