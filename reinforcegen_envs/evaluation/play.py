"""One episode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import gymnasium as gym
import numpy as np

Agent = Callable[[np.ndarray], np.ndarray]
"""observation -> action (7,)"""


@dataclass
class Episode:
    """What happened in one episode.

    Args:
        seed: it was reset with.
        success, reference_success: strict, and as the literature has it.
        entered, finished: one a stage: whether its skill began, and whether it was finished.
        failure: "stage: reason", or "" after a success or a truncation.
        control_steps: of the episode, connects included.
        connect_steps: of the connects.
        retries: how often a skill was begun again.
    """

    seed: int
    success: bool
    reference_success: bool
    entered: list[bool] = field(default_factory=list)
    finished: list[bool] = field(default_factory=list)
    failure: str = ""
    control_steps: int = 0
    connect_steps: int = 0
    retries: int = 0


class RandomPolicy:
    """Uniform actions, drawn anew for every episode from its seed: which process plays it does not matter."""

    def reset(self, seed: int) -> None:
        """Begin the episode of ``seed``."""
        self._rng = np.random.default_rng(seed)

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """The next action (7,); the observation does not matter."""
        return self._rng.uniform(-1.0, 1.0, 7)


def play(env: gym.Env, policy: Agent, seed: int) -> Episode:
    """Play one episode of a hybrid mode to its end."""
    stages = len(env.unwrapped.task.stages)  # type: ignore[attr-defined]
    if isinstance(policy, RandomPolicy):
        policy.reset(seed)
    obs, info = env.reset(seed=seed)
    episode = Episode(seed, False, False, [False] * stages, [False] * stages)
    episode.connect_steps = episode.control_steps = info["sim_steps"]
    done = bool(info["failure"])  # the first connect failed
    while not done:
        stage = info["stage"]
        episode.entered[stage] = True
        obs, reward, terminated, truncated, info = env.step(policy(obs))
        episode.control_steps += info["sim_steps"]
        episode.connect_steps += max(info["sim_steps"] - 1, 0)
        episode.finished[stage] |= float(reward) > 0
        episode.reference_success |= info["reference_success"]
        done = terminated or truncated
    episode.success = bool(info["success"])
    episode.retries = info.get("retries", 0)
    episode.reference_success |= episode.success
    if info["failure"] and not episode.success:
        episode.failure = f"{info['failure_stage']}: {info['failure']}"
    return episode
