"""Success of a policy over episodes that all run to their end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gymnasium as gym
import numpy as np

from reinforcegen_envs.agents.arguments import RunArgs
from reinforcegen_envs.agents.common import env_factory, num_threads
from reinforcegen_envs.statistics import EVALUATION_SEED, wilson_interval

METRICS = (
    "eval/success",
    "eval/success_low",
    "eval/success_high",
    "eval/return",
    "eval/length",
)  # of `Evaluation.metrics`


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate_agent`: seeds first_seed, first_seed + 1, ...; the interval is Wilson's, 95%."""

    episodes: int
    successes: int
    first_seed: int
    success: float
    interval: tuple[float, float]
    mean_return: float
    mean_length: float

    def metrics(self) -> dict[str, float]:
        """Values for the logs."""
        low, high = self.interval
        return dict(zip(METRICS, (self.success, low, high, self.mean_return, self.mean_length), strict=True))


def run_episode(env: gym.Env, policy: Callable[[Any], np.ndarray], seed: int) -> tuple[bool, float, int]:
    """Play one episode; return success, undiscounted return and number of steps."""
    obs, info = env.reset(seed=seed)
    total, length, done = 0.0, 0, False
    while not done:
        obs, reward, terminated, truncated, info = env.step(policy(obs))
        total, length, done = total + float(reward), length + 1, terminated or truncated
    return bool(info.get("success", total > 0)), total, length


def evaluate_agent(
    make_env: Callable[[], gym.Env],
    policy: Callable[[Any], np.ndarray],
    episodes: int,
    first_seed: int = EVALUATION_SEED,
    num_threads: int = 1,
) -> Evaluation:
    """Play one episode a seed, every one to its end, so that short episodes count no more than long ones.

    Args:
        make_env: makes an environment whose episodes end; called once a thread.
        policy: maps one observation, an array or a dictionary of arrays, to one action and keeps no memory (an `MLP` releases the
            GIL).
        episodes: number of episodes; with a pool of starts, no more than it has: a start that is played again by a policy that
            draws nothing is the same episode, and tells nothing new.
        first_seed: episode k is reset with ``first_seed + k``; the other episodes do not matter to it.
        num_threads: episodes played side by side.
    """
    envs = [make_env()]
    if envs[0].has_wrapper_attr("starts") and (starts := envs[0].get_wrapper_attr("starts")) is not None:
        episodes = min(episodes, starts)
    envs += [make_env() for _ in range(min(num_threads, episodes) - 1)]
    seeds = iter(range(first_seed, first_seed + episodes))  # shared: a thread takes the next seed when it is free
    try:
        with ThreadPoolExecutor(len(envs)) as pool:
            parts = pool.map(lambda env: [run_episode(env, policy, seed) for seed in seeds], envs)
            results = [result for part in parts for result in part]
    finally:
        for env in envs:
            env.close()
    successes = sum(success for success, _, _ in results)
    return Evaluation(
        episodes,
        successes,
        first_seed,
        successes / max(episodes, 1),
        wilson_interval(successes, episodes),
        sum(total for _, total, _ in results) / max(episodes, 1),
        sum(length for _, _, length in results) / max(episodes, 1),
    )


def evaluate(args: RunArgs, policy: Callable[[Any], np.ndarray], episodes: int) -> Evaluation:
    """`evaluate_agent` in the environment that a trainer's arguments describe."""
    return evaluate_agent(env_factory(args, evaluation=True), policy, episodes, num_threads=num_threads(args))
