"""Stable-Baselines3's off-policy presets: the actor starts as the base policy, and stays it while the critics learn."""

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("stable_baselines3", reason="stable-baselines3 is optional and not installed")

import offset_reach  # noqa: E402, F401 (registers test/OffsetReach-v3)
import torch  # noqa: E402
from stable_baselines3 import PPO, SAC, TD3  # noqa: E402  # pyright: ignore[reportMissingImports]

from reinforcegen_envs.errors import InvalidArgument  # noqa: E402
from reinforcegen_envs.wrappers.sb3 import ThreadVecEnv  # noqa: E402
from reinforcegen_envs.wrappers.sb3_presets import FromBase, sac_preset, td3_preset  # noqa: E402

KINDS = {"td3": (TD3, td3_preset(2)), "sac": (SAC, sac_preset())}


def make(kind):
    algorithm, preset = KINDS[kind]
    envs = ThreadVecEnv([lambda: gym.make("test/OffsetReach-v3")] * 4)
    return algorithm("MlpPolicy", envs, seed=0, **{**preset, "learning_starts": 40, "batch_size": 16})


@pytest.mark.parametrize("kind", KINDS)
def test_the_actor_is_the_base_policy_until_the_critics_know_it(kind):
    model = make(kind)
    observations = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    assert np.abs(model.predict(observations, deterministic=True)[0]).max() > 0  # the library's own
    critics = [parameter.clone() for parameter in model.critic.parameters()]
    model.learn(200, callback=FromBase(critic_steps=1_000))
    assert not any(torch.equal(a, b) for a, b in zip(critics, model.critic.parameters(), strict=True))
    np.testing.assert_array_equal(model.predict(observations, deterministic=True)[0], np.zeros((20, 2)))
    model.learn(200, callback=FromBase(critic_steps=100), reset_num_timesteps=False)
    moved = model.predict(observations, deterministic=True)[0]
    assert np.abs(moved).max() > 0
    model.learn(4, callback=FromBase(critic_steps=1_000), reset_num_timesteps=False)  # goes on, and is not set back
    np.testing.assert_array_equal(model.predict(observations, deterministic=True)[0], moved)


def test_ppo_has_no_actor_of_its_own():
    model = PPO("MlpPolicy", gym.make("test/OffsetReach-v3"), n_steps=8, batch_size=8)
    with pytest.raises(InvalidArgument, match="PPO has no actor"):
        model.learn(8, callback=FromBase())
