"""A small task whose base policy leaves something to learn, and what tests of the trainers do with it."""

import csv

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from reinforcegen_envs.agents import dagger, drqv2_residual, ppo, ppo_residual, td3_residual  # noqa: E402

TRAINERS = {"td3_residual": td3_residual, "ppo_residual": ppo_residual, "ppo": ppo}
EVERY_TRAINER = {
    **TRAINERS,
    "drqv2_residual": drqv2_residual,
    "dagger": dagger,
}  # those of pixels cannot see OffsetReach


class OffsetReach(gym.Env):
    """A point in the plane; the base policy goes to a place beside the goal, which the residual must mend.

    Observation: position 2, goal - position 2, base action 2. Reward 1 and the end within 0.1 of the goal.
    """

    residual_scale = 0.3

    def __init__(self, stage=None):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (6,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def _base(self):
        return np.clip(2 * (self.goal + self.offset - self.position), -1, 1)

    def _obs(self):
        return np.concatenate([self.position, self.goal - self.position, self._base()], dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.goal = self.np_random.uniform(-1, 1, (2, 2))
        angle = self.np_random.uniform(0, 2 * np.pi)
        self.offset = self.np_random.uniform(0.08, 0.2) * np.array([np.cos(angle), np.sin(angle)])
        return self._obs(), {"success": False}

    def step(self, action):
        self.position = self.position + 0.1 * np.clip(self._base() + self.residual_scale * action, -1, 1)
        success = bool(np.linalg.norm(self.goal - self.position) < 0.1)
        return self._obs(), float(success), success, False, {"success": success}


gym.register("test/OffsetReach-v3", lambda **kwargs: OffsetReach(**kwargs), max_episode_steps=30)


def small(module, folder, **kwargs):
    """Arguments of a quick run on OffsetReach."""
    sizes = {
        "td3_residual": {"warmup_steps": 200, "critic_only_updates": 20, "batch_size": 32, "num_envs": 4},
        "ppo_residual": {"num_steps": 32, "num_envs": 4, "epochs": 2},
        "ppo": {"num_steps": 32, "num_envs": 4, "epochs": 2},
    }[module.__name__.rsplit(".")[-1]]
    defaults = {
        "env_id": "test/OffsetReach-v3",
        "stage": "reach",
        "total_steps": 384,
        "eval_episodes": 5,
        "final_episodes": 10,
        "log_every": 100,
        "runs_dir": folder,
        "run_name": "run",
    }
    return module.Args(**{**defaults, **sizes, **kwargs})


def read_csv(folder):
    with open(folder / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def assert_equal(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b
