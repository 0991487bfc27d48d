"""``gym.make_vec`` of our ids: equal to Gymnasium's own vector environment bit for bit, and a spec that is plain data."""

import importlib
import sys
import threading
import types
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from helpers import registrations_undone
from test_vector import assert_same

from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.registration import load_task_module
from reinforcegen_envs.wrappers import Skill, StartPool
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

OWN_TASK = Path(__file__).parents[1] / "examples" / "own_task.py"
PLAIN = "ReinforceGen/D2-Threading-v0"
RESIDUAL = "ReinforceGen/D2-Threading-Residual-v0"
THREADS: dict[str, Any] = {"vectorization_mode": "vector_entry_point"}


@pytest.fixture(scope="module")
def insert_pool(tmp_path_factory):
    """A file of starts of Threading's last stage."""
    from reinforcegen_envs.env import ManipulationEnv

    env, snapshots = Skill(ManipulationEnv("Threading", "D0"), "insert"), []
    for seed in range(3):
        env.reset(seed=seed)
        snapshots.append(env.get_state())
    path = tmp_path_factory.mktemp("pool") / "insert.npz"
    StartPool.of(snapshots, {"task": "Threading", "variant": "D0", "stage": "insert"}).save(path)
    return str(path)


# What is made -> id, its arguments (short episodes: several end), steps.
SETTINGS = {
    "plain": (PLAIN, {"max_episode_steps": 4}, 14),
    "dictionary": (PLAIN, {"max_episode_steps": 3, "obs_mode": "state_dict"}, 7),
    "hybrid": ("ReinforceGen/D0-Threading-Hybrid-v0", {"max_episode_steps": 3}, 8),
    "residual": ("ReinforceGen/D0-Threading-Residual-v0", {"max_episode_steps": 5, "pose_noise": (0.01, 0.05)}, 12),
    "stage": ("ReinforceGen/D0-Threading-Residual-v0", {"stage": "insert"}, 60),
}
NUM_ENVS = 3


def timeless(results):
    """Results without what a clock says."""
    info = results[-1]
    for each in (info, info.get("final_info", {})):
        if "planner" in each:
            for name in ("milliseconds", "_milliseconds"):
                each["planner"].pop(name, None)
    return results


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("setting", SETTINGS)
def test_same_as_sync(setting, mode, insert_pool):
    name, kwargs, steps = SETTINGS[setting]
    if setting == "stage":
        kwargs = {**kwargs, "pool": insert_pool}
    sync = gym.make_vec(name, NUM_ENVS, "sync", {"autoreset_mode": mode}, **kwargs)
    ours = gym.make_vec(name, NUM_ENVS, num_threads=2, autoreset_mode=mode, **THREADS, **kwargs)
    assert isinstance(ours, ThreadVectorEnv) and ours.num_threads == 2
    for attribute in (
        "num_envs", "metadata", "render_mode", "single_observation_space", "single_action_space", "observation_space",
        "action_space", "autoreset_mode",
    ):  # fmt: skip
        assert getattr(ours, attribute) == getattr(sync, attribute), attribute
    assert_same(timeless(sync.reset(seed=7)), timeless(ours.reset(seed=7)))
    sync.action_space.seed(0)
    ended = 0
    for step in range(steps):
        # The insertion succeeds if it is left to the base policy, so episodes are of different lengths.
        actions = sync.action_space.sample() * (0.0 if setting == "stage" else 1.0)
        results = timeless(sync.step(actions))
        assert_same(results, timeless(ours.step(actions)))
        done = results[2] | results[3]
        ended += done.sum()
        if mode == AutoresetMode.DISABLED and done.any():
            options = [{"reset_mask": done.copy()} for _ in range(2)]
            seeds = [100 + step + i for i in range(NUM_ENVS)]
            assert_same(
                timeless(sync.reset(seed=seeds, options=options[0])),  # type: ignore[arg-type]
                timeless(ours.reset(seed=seeds, options=options[1])),  # type: ignore[arg-type]
            )
    assert ended >= 2 * NUM_ENVS or setting == "stage" and ended >= NUM_ENVS
    assert_same(sync.np_random_seed, ours.np_random_seed)
    sync.close()
    ours.close()


def test_it_is_what_make_vec_gives_by_itself():
    env = gym.make_vec(PLAIN, 2)
    assert isinstance(env, ThreadVectorEnv) and env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert type(env.envs[0]) is type(gym.make(PLAIN)) and env.envs[0].spec == gym.make(PLAIN).spec
    assert "ThreadVectorEnv(ReinforceGen/D2-Threading-v0, num_envs=2)" == str(env)
    env.close()


@pytest.mark.parametrize("mode", ["SameStep", AutoresetMode.SAME_STEP])
def test_its_spec_is_plain_data(mode):
    kwargs = {"pose_noise": (0.001, 0.002), "num_threads": 1, "autoreset_mode": mode, "max_episode_steps": 9}
    env = gym.make_vec(RESIDUAL, 2, **THREADS, **kwargs)
    spec = env.spec
    assert spec is not None and spec.kwargs["num_envs"] == 2 and spec.kwargs["pose_noise"] == (0.001, 0.002)
    first, _ = env.reset(seed=3)
    for again in (gym.make_vec(spec), gym.make_vec(EnvSpec.from_json(spec.to_json()))):
        assert isinstance(again, ThreadVectorEnv) and again.num_envs == 2 and again.num_threads == 1
        assert again.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
        assert again.envs[0].spec.max_episode_steps == 9  # type: ignore[union-attr]
        np.testing.assert_array_equal(again.reset(seed=3)[0], first)
        again.close()
    env.close()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_envs": 0}, "num_envs 0 must be a number of environments"),
        ({"autoreset_mode": "Sometimes"}, r"unknown autoreset_mode 'Sometimes'; choose one of \['NextStep'"),
        ({"frameskip": 2}, "got an unexpected keyword argument 'frameskip'"),
    ],
)
def test_what_is_not_allowed_is_one_message(kwargs, message):
    with pytest.raises(InvalidArgument, match=message):
        gym.make_vec(PLAIN, **THREADS, **{"num_envs": 2, **kwargs})


def test_a_task_of_ones_own_has_it(tmp_path):
    with registrations_undone():
        load_task_module(OWN_TASK)
        text = gym.spec("ReinforceGen/D0-Stack-v0").to_json()
        env = gym.make_vec("ReinforceGen/D0-Stack-v0", 2)
        first, _ = env.reset(seed=5)
        assert isinstance(env, ThreadVectorEnv)
        env.close()
    assert "ReinforceGen/D0-Stack-v0" not in gym.registry
    with registrations_undone():  # as in another process, which knows the spec alone
        env = gym.make_vec(EnvSpec.from_json(text), 2)
        np.testing.assert_array_equal(env.reset(seed=5)[0], first)
        env.close()


def test_threads_end_with_it():
    before = threading.active_count()
    env = gym.make_vec(PLAIN, 3, num_threads=3, **THREADS)
    env.reset(seed=0)
    assert before < threading.active_count() <= before + 2
    env.close()
    assert threading.active_count() == before


# --- Stable-Baselines3 ---


class StandIn:
    """What of Stable-Baselines3's ``VecEnv`` ours builds on; it is tested with the real one where that is installed."""

    def __init__(self, num_envs, observation_space, action_space):
        self.num_envs, self.observation_space, self.action_space = num_envs, observation_space, action_space
        self.reset_infos = [{} for _ in range(num_envs)]
        self._reset_seeds()
        self._reset_options()
        self.render_mode = self.get_attr("render_mode")[0]  # type: ignore[attr-defined]

    def _reset_seeds(self):
        self._seeds: list = [None] * self.num_envs

    def _reset_options(self):
        self._options: list = [{} for _ in range(self.num_envs)]

    def seed(self, seed):
        self._seeds = [seed + i for i in range(self.num_envs)]
        return self._seeds

    def set_options(self, options):
        self._options = [dict(options) for _ in range(self.num_envs)]

    def step(self, actions):
        self.step_async(actions)  # type: ignore[attr-defined]
        return self.step_wait()  # type: ignore[attr-defined]

    def _get_indices(self, indices):
        return range(self.num_envs) if indices is None else [indices] if isinstance(indices, int) else indices


MODULE = "reinforcegen_envs.wrappers.sb3"
BASE = "stable_baselines3.common.vec_env.base_vec_env"


@pytest.fixture(params=["stand-in", "stable_baselines3"])
def sb3(request, monkeypatch):
    """Our module, over the real library or over a stand-in for it."""
    if request.param == "stable_baselines3":
        pytest.importorskip("stable_baselines3", reason="stable-baselines3 is optional and not installed")
    else:
        for name in ("stable_baselines3", "stable_baselines3.common", "stable_baselines3.common.vec_env", BASE):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules[BASE].VecEnv = StandIn  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE, None)


def test_without_the_library_one_message_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)  # as if it were not there
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ImportError, match=r"needs it: pip install stable-baselines3$") as info:
        importlib.import_module(MODULE)
    assert isinstance(info.value, ReinforceGenError)


def test_episodes_for_sb3_are_those_of_single_environments(sb3, insert_pool):
    """Autoresets, last observations, the kind of end, and success."""
    kwargs = {"stage": "insert", "pool": insert_pool}
    name = "ReinforceGen/D0-Threading-Residual-v0"
    envs = sb3.ThreadVecEnv(gym.make_vec(name, 2, num_threads=2, **kwargs))
    singles = [gym.make(name, **kwargs) for _ in range(2)]
    assert envs.seed(4) == [4, 5]
    observations = envs.reset()
    np.testing.assert_array_equal(observations, [env.reset(seed=4 + i)[0] for i, env in enumerate(singles)])
    ended = 0
    for _ in range(50):
        observations, rewards, dones, infos = envs.step(np.zeros((2, 7), np.float32))
        assert rewards.dtype == np.float32 and dones.dtype == bool and isinstance(infos, list)
        for i, env in enumerate(singles):
            expected, reward, terminated, truncated, info = env.step(np.zeros(7))
            assert rewards[i] == np.float32(reward) and dones[i] == (terminated or truncated)
            assert infos[i]["TimeLimit.truncated"] is (truncated and not terminated)
            assert infos[i]["is_success"] is info["is_success"]
            if dones[i]:
                np.testing.assert_array_equal(infos[i]["terminal_observation"], expected)
                expected, reset_info = env.reset()
                assert_same(envs.reset_infos[i], reset_info)
                ended += infos[i]["is_success"]
            else:
                assert "terminal_observation" not in infos[i]
            np.testing.assert_array_equal(observations[i], expected)
    assert ended >= 2
    envs.close()


def test_sb3_sees_what_was_cut_short_and_dictionaries(sb3):
    envs = sb3.ThreadVecEnv([lambda: gym.make(PLAIN, obs_mode="state_dict", max_episode_steps=2)] * 2, num_threads=2)
    observations = envs.reset()
    assert observations.keys() == envs.observation_space.spaces.keys()
    envs.step(np.zeros((2, 7)))
    observations, _, dones, infos = envs.step(np.zeros((2, 7)))
    assert dones.all() and all(info["TimeLimit.truncated"] for info in infos)
    for name, space in envs.observation_space.spaces.items():
        assert observations[name].shape == (2, *space.shape)
        assert infos[1]["terminal_observation"][name] in space
    envs.close()


def test_sb3_reaches_into_the_environments(sb3):
    joints = [0.0, 0.5, 0.0, -2.0, 0.0, 2.5, 0.8]
    envs = sb3.ThreadVecEnv(gym.make_vec(PLAIN, 3))
    envs.seed(0)
    envs.set_options({"joints": joints})
    envs.reset()
    for env in envs.envs:
        np.testing.assert_allclose(env.unwrapped.sim.joints, joints)
    seeds, _ = envs.get_attr("np_random_seed"), envs.reset()
    assert seeds == [0, 1, 2]  # and they, like the options, held once
    assert not np.allclose(envs.envs[0].unwrapped.sim.joints, joints)
    assert envs.get_attr("variant", 1) == ["D2"] and len(envs.get_attr("task")) == 3
    assert list(envs.env_method("predicates", indices=[0, 2])[1]) == list(envs.env_method("predicates")[0])
    envs.set_attr("obs_mode", "state_dict", indices=1)
    assert envs.get_attr("obs_mode") == ["state", "state_dict", "state"]
    assert envs.env_is_wrapped(gym.wrappers.TimeLimit) == [True] * 3
    assert envs.env_is_wrapped(gym.wrappers.ClipAction, indices=0) == [False]
    envs.close()


def test_what_sb3_cannot_be_given_is_one_message(sb3):
    threads, single = gym.make_vec(PLAIN, 2), gym.make(PLAIN)
    with pytest.raises(InvalidArgument, match="takes a ThreadVectorEnv itself, not SyncVectorEnv"):
        sb3.ThreadVecEnv(gym.make_vec(PLAIN, 2, "sync"))
    with pytest.raises(InvalidArgument, match="num_threads 2 has no effect"):
        sb3.ThreadVecEnv(threads, num_threads=2)
    with pytest.raises(ValueError, match="one environment several times"):
        sb3.ThreadVecEnv([lambda: single] * 2)
    with pytest.raises(InvalidArgument, match="1 actions for 2 environments"):
        sb3.ThreadVecEnv(threads).step(np.zeros((1, 7)))


def test_sb3_trains_on_it():
    pytest.importorskip("stable_baselines3", reason="stable-baselines3 is optional and not installed")
    from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]
    from stable_baselines3.common.vec_env import VecMonitor  # pyright: ignore[reportMissingImports]

    sb3 = importlib.import_module(MODULE)
    envs: Any = VecMonitor(sb3.ThreadVecEnv(gym.make_vec(PLAIN, 2, max_episode_steps=6)), info_keywords=("is_success",))
    model: Any = PPO("MlpPolicy", envs, n_steps=16, batch_size=16, n_epochs=1, device="cpu").learn(64)
    assert [episode["l"] for episode in model.ep_info_buffer] == [6] * 10 and not any(model.ep_success_buffer)
    envs.close()
    envs = make_vec_env(PLAIN, 2, seed=1, vec_env_cls=sb3.ThreadVecEnv, vec_env_kwargs={"num_threads": 2})
    assert envs.reset().shape == (2, *envs.observation_space.shape)
    envs.close()
