"""Hybrid, Skill and Residual: arithmetic, exact repetition, resets, rewards, pools, planning and failures."""

import gymnasium as gym
import numpy as np
import pytest

import reinforcegen_envs  # noqa: F401 (registers the ids)


def make(mode, weights, variant="D2", **kwargs):
    name = f"ReinforceGen/{variant}-Threading-{mode}-v0"
    return gym.make(name, weights=weights, disable_env_checker=True, **kwargs)


# --- the residual's observation ---


def test_residual_observation_is_the_state_and_the_base_action(weights):
    env = make("Residual", weights)
    core, layout = env.unwrapped, env.unwrapped.layout
    obs, _ = env.reset(seed=0)
    assert obs.shape == env.observation_space.shape == (layout.size,) == (53,)
    for _ in range(30):
        assert env.observation_space.contains(obs)
        state = core.observe()
        assert state.shape == (46,)
        np.testing.assert_array_equal(obs[:46], state)
        obs, _, terminated, truncated, _ = env.step(np.zeros(7, np.float32))
        assert not terminated and not truncated
