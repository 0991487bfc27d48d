"""Base policies from other libraries: TorchScript, Stable-Baselines3, LeRobot's interface; chunked and recurrent ones too."""

import copy
import pickle
from collections import deque

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from helpers import assert_each_plays_as_alone

torch = pytest.importorskip("torch")

import reinforcegen_envs  # noqa: E402, F401 (registers the ids)
from reinforcegen_envs.errors import InvalidArgument  # noqa: E402
from reinforcegen_envs.observations import ObservationLayout  # noqa: E402
from reinforcegen_envs.policies.foreign import LeRobotPolicy, SB3Policy, torchscript  # noqa: E402
from reinforcegen_envs.policies.policy import MemorylessPolicy  # noqa: E402
from reinforcegen_envs.tasks import ThreadingTask  # noqa: E402

ID = "ReinforceGen/D2-Threading-Residual-v0"
torch.set_num_threads(1)  # a forked process must not wait for threads that it does not have


class Linear(torch.nn.Module):
    """Actions that depend on the observation alone."""

    def __init__(self, size: int):
        super().__init__()
        self.layer = torch.nn.Linear(size, 7)

    def forward(self, obs):
        return 0.3 * torch.tanh(self.layer(obs))


class Recurrent(torch.nn.Module):
    """Actions that depend on all observations since the skill's start."""

    def __init__(self, size: int):
        super().__init__()
        self.cell, self.layer = torch.nn.GRUCell(size, 8), torch.nn.Linear(8, 7)

    @torch.jit.export
    def initial_state(self):
        return torch.zeros(1, 8)

    def forward(self, obs, state):
        state = self.cell(obs, state)
        return 0.3 * torch.tanh(self.layer(state)), state


class Chunked(torch.nn.Module):
    """LeRobot's interface: a chunk of four actions, used up one by one."""

    def __init__(self, size: int):
        super().__init__()
        self.layer = torch.nn.Linear(size, 28)
        self.reset()

    def reset(self):
        self._action_queue = deque(maxlen=4)

    def select_action(self, batch):
        if not self._action_queue:
            self._action_queue.extend(0.3 * torch.tanh(self.layer(batch["observation.state"])).reshape(4, 1, 7))
        return self._action_queue.popleft()


class Predicting:
    """Stable-Baselines3's interface, with a state."""

    def predict(self, observation, state, episode_start, deterministic):
        assert deterministic and episode_start.tolist() == [state is None]
        count = 0 if state is None else state + 1
        return 0.1 * np.tanh(observation[:, :7] + 0.1 * count), count


@pytest.fixture(scope="module")
def size():
    return ObservationLayout.of(ThreadingTask).size


@pytest.fixture(scope="module", params=["script", "recurrent script", "chunked", "predicting"])
def policy(request, size, tmp_path_factory):
    torch.manual_seed(0)
    if request.param == "chunked":
        return LeRobotPolicy(Chunked(size), postprocess=lambda action: action.clamp(-0.2, 0.2))
    if request.param == "predicting":
        return SB3Policy(Predicting())
    path = tmp_path_factory.mktemp("script") / "policy.pt"
    module = Linear(size) if request.param == "script" else Recurrent(size)
    torch.jit.script(module).save(str(path))
    policy = torchscript(path)
    path.unlink()  # it is read once
    return policy


@pytest.mark.parametrize("vector", ["sync", "threads", "processes"])
def test_every_vector_mode_plays_what_one_environment_plays(policy, vector):
    make = lambda: gym.make(ID, base_policy=policy, disable_env_checker=True)  # noqa: E731
    assert_each_plays_as_alone(make, vector, AutoresetMode.SAME_STEP, steps=110)


def test_memory_belongs_to_snapshots_and_copies(policy):
    env = gym.make(ID, base_policy=policy)
    env.reset(seed=3)
    zero = np.zeros(7, np.float32)
    for _ in range(6):  # in the middle of a chunk
        env.step(zero)
    state, twin = env.unwrapped.get_state(), copy.deepcopy(env)  # type: ignore[attr-defined]
    expected = [env.step(zero)[0] for _ in range(8)]
    other = gym.make(ID, base_policy=policy)
    other.reset(seed=9)
    other.unwrapped.set_state(state)  # type: ignore[attr-defined]
    for obs in expected:
        np.testing.assert_array_equal(other.step(zero)[0], obs)
        np.testing.assert_array_equal(twin.step(zero)[0], obs)


def test_scripts_survive_a_pickle(size, tmp_path):
    path = tmp_path / "policy.pt"
    torch.jit.script(Recurrent(size)).save(str(path))
    policy = torchscript(path, frame="reference")
    observations = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32)
    policy.act(observations)
    again = pickle.loads(pickle.dumps(policy))
    assert again.frame == "reference"
    np.testing.assert_array_equal(again.act(observations), policy.act(observations))


def test_a_row_of_a_batch_is_the_single_query(policy, size):
    observations = np.random.default_rng(0).normal(size=(5, size)).astype(np.float32)
    policy = policy if isinstance(policy, MemorylessPolicy) else copy.deepcopy(policy)
    policy.reset()
    together = policy.act(observations)
    for i in range(5):
        policy.reset([i])
        np.testing.assert_array_equal(policy.act(observations[i : i + 1], [i])[0], together[i])


def test_what_is_no_policy_is_one_message(tmp_path, size):
    path = tmp_path / "policy.pt"
    with pytest.raises(InvalidArgument, match="cannot be read"):
        torchscript(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidArgument, match="not TorchScript"):
        torchscript(path)
    with pytest.raises(InvalidArgument, match="unknown frame"):
        torchscript(path, frame="camera")  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="no predict"):
        SB3Policy(object())
    with pytest.raises(InvalidArgument, match="select_action"):
        LeRobotPolicy(object())
    torch.jit.script(torch.nn.Linear(size, 6)).save(str(path))
    with pytest.raises(InvalidArgument, match=r"shape \(1, 6\)"):
        torchscript(path).act(np.zeros((1, size), np.float32))


def test_a_model_of_sb3(size):
    """Its own predict on what its VecNormalize says, by a copy without environments."""
    sb3 = pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.vec_env import VecNormalize  # pyright: ignore[reportMissingImports]

    from reinforcegen_envs.wrappers.sb3 import ThreadVecEnv

    envs = VecNormalize(ThreadVecEnv(gym.make_vec("ReinforceGen/D2-Threading-Skill-v0", num_envs=2)))
    model = sb3.PPO("MlpPolicy", envs, n_steps=8, batch_size=8, device="cpu", seed=0).learn(16)
    policy = pickle.loads(pickle.dumps(SB3Policy(model, envs)))
    observations = envs.get_original_obs()
    expected = model.predict(envs.normalize_obs(observations), deterministic=True)[0]
    np.testing.assert_allclose(policy.act(observations), expected, atol=1e-6)
    env = gym.make(ID, base_policy=policy)
    env.reset(seed=0)
    env.step(np.zeros(7, np.float32))
