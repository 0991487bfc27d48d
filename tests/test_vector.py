"""ThreadVectorEnv against SyncVectorEnv: the same results and infos in every autoreset mode."""

import copy
import subprocess
import sys
import threading
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

MODES = list(AutoresetMode)


class RichInfo(gym.Wrapper):
    """Adds infos of every kind that the vector env batches differently."""

    def _info(self, obs):
        return {
            "success": bool(obs[0] > 0),
            "angle": float(obs[0]),
            "obs": obs.copy(),
            "name": "left" if obs[0] < 0 else "right",
            "predicates": {"upright": bool(obs[0] > 0.9)},
        }

    def reset(self, **kwargs):
        obs, info = self.env.reset(**kwargs)
        return obs, {**info, **self._info(obs), "options": kwargs.get("options")}

    def step(self, action):
        obs, reward, terminated, truncated, info = self.env.step(action)
        if obs[0] < 0:
            info["only_sometimes"] = 1
        return obs, reward, terminated, truncated, {**info, **self._info(obs)}


def make(env_id, length):
    return lambda: RichInfo(gym.make(env_id, max_episode_steps=length))


def pair(env_id, lengths, mode, num_threads=3):
    fns = [make(env_id, length) for length in lengths]
    return SyncVectorEnv(fns, autoreset_mode=mode), ThreadVectorEnv(fns, num_threads, autoreset_mode=mode)


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (tuple, list)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray) and a.dtype == object:
        assert_same(list(a), list(b))
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
@pytest.mark.parametrize("num_threads", [1, 3, 16])
def test_same_as_sync(env_id, mode, num_threads):
    sync, threaded = pair(env_id, [7, 12, 5, 30, 9], mode, num_threads)
    assert_same(sync.reset(seed=3, options={"a": 1}), threaded.reset(seed=3, options={"a": 1}))
    sync.action_space.seed(0)
    for _ in range(60):
        actions = sync.action_space.sample()
        results = sync.step(actions)
        assert_same(results, threaded.step(actions))
        done = results[2] | results[3]
        if mode == AutoresetMode.DISABLED and done.any():
            assert_same(
                sync.reset(options={"reset_mask": done.copy()}),
                threaded.reset(options={"reset_mask": done.copy()}),
            )
    assert_same(sync.reset(seed=[1, None, 2, None, 3]), threaded.reset(seed=[1, None, 2, None, 3]))
    sync.close()
    threaded.close()


def test_misuse_is_reported_as_sync_does():
    for envs in pair("Pendulum-v1", [1, 2], AutoresetMode.DISABLED, 2):
        envs.reset(seed=0)
        with pytest.raises(ValueError, match="num_envs=2"):
            envs.reset(seed=[1])
        with pytest.raises(ValueError, match="reset_mask"):
            envs.reset(options={"reset_mask": np.ones(3, bool)})
        envs.step(np.zeros((2, 1), np.float32))
        with pytest.raises(AssertionError):
            envs.step(np.zeros((2, 1), np.float32))
        envs.close()
    with pytest.raises(ValueError, match="num_threads"):
        ThreadVectorEnv([make("Pendulum-v1", 5)], num_threads=0)


class Slow(gym.Wrapper):
    """Sleeps (without the GIL) in step, and raises when told to."""

    fail = False

    def step(self, action):
        time.sleep(0.02)
        if self.fail:
            raise RuntimeError("broken arm")
        return self.env.step(action)


def test_runs_side_by_side_and_closes():
    before = threading.active_count()
    envs = ThreadVectorEnv([lambda: Slow(gym.make("Pendulum-v1"))] * 8, num_threads=4)
    envs.reset(seed=0)
    start = time.perf_counter()
    envs.step(envs.action_space.sample())
    assert time.perf_counter() - start < 8 * 0.02 * 0.75
    envs.close()
    envs.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("broken", range(3))
def test_an_error_reaches_the_caller_and_leaves_the_envs_usable(broken):
    envs = ThreadVectorEnv([lambda: Slow(gym.make("Pendulum-v1"))] * 3, num_threads=2)
    envs.reset(seed=0)
    envs.envs[broken].fail = True
    with pytest.raises(RuntimeError, match="broken arm"):
        envs.step(envs.action_space.sample())
    envs.envs[broken].fail = False
    obs, *_ = envs.step(envs.action_space.sample())
    assert obs.shape == (3, 3)
    assert all(isinstance(env, Slow) for env in envs.envs)
    envs.close()


def test_a_copy_steps_with_threads_of_its_own():
    envs = ThreadVectorEnv([lambda: gym.make("ReinforceGen/D0-Threading-v0", disable_env_checker=True)] * 2, 2)
    envs.reset(seed=0)
    actions = np.full((2, 7), 0.2, np.float32)
    envs.step(actions)
    other = copy.deepcopy(envs)
    np.testing.assert_array_equal(envs.step(actions)[0], other.step(actions)[0])
    envs.close()
    other.step(actions)
    other.close()


def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have():
    code = """
import os, signal, sys
import gymnasium as gym, numpy as np
from gymnasium.vector import AutoresetMode
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv
envs = ThreadVectorEnv([lambda: gym.make("ReinforceGen/D0-Threading-v0", disable_env_checker=True)] * 2, 2)
envs.reset(seed=0)
envs.step(np.zeros((2, 7), np.float32))
child = os.fork()
if child == 0:
    signal.alarm(60)
    envs.step(np.zeros((2, 7), np.float32))
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", "import reinforcegen_envs\n" + code], capture_output=True, text=True)
    assert done.stdout.strip() == "7", done.stderr
