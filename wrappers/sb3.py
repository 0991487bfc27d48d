# pyright: basic
# (Stable-Baselines3 is optional: where it is not installed, the base class is unknown.)
"""Our threads for Stable-Baselines3: a ``VecEnv`` whose sub-environments run side by side in one process.

    envs = ThreadVecEnv(gym.make_vec("ReinforceGen/D2-Threading-Residual-Insert-v0", num_envs=8))
    model = PPO("MlpPolicy", VecMonitor(envs)).learn(100_000)

It also takes the place of ``DummyVecEnv``: ``make_vec_env(ID, n_envs=8, vec_env_cls=ThreadVecEnv)``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array

from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv


class MissingStableBaselines3(ReinforceGenError, ImportError):
    """Stable-Baselines3, which this module is for, is not installed."""


try:
    from stable_baselines3.common.vec_env.base_vec_env import VecEnv  # pyright: ignore[reportMissingImports]
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] != "stable_baselines3":
        raise  # it is there, and misses something itself
    raise MissingStableBaselines3(
        "stable_baselines3 is not installed, and reinforcegen_envs.wrappers.sb3 needs it: pip install stable-baselines3"
    ) from missing


class ThreadVecEnv(VecEnv):
    """Does what Stable-Baselines3's ``DummyVecEnv`` does, with the sub-environments running side by side.

    An episode's end and the next one's start are one step: observations are the new episode's, and the last of the old one is
    ``infos[i]["terminal_observation"]``. ``infos[i]["TimeLimit.truncated"]`` says whether it was cut short, as opposed to over,
    and ``infos[i]["is_success"]`` whether it succeeded.

    Args:
        envs: a `ThreadVectorEnv`, as ``gym.make_vec`` gives it for an id of ours, or functions that make the sub-environments.
            The former's autoreset mode has no effect, and it is closed with this one.
        num_threads: threads, with functions; see `ThreadVectorEnv`.

    Attributes:
        vector: the `ThreadVectorEnv`.

    Raises:
        InvalidArgument: another vector environment, or a number of threads for one that has its own.
        ValueError: two functions returned the same environment, or ``num_threads`` is below 1.
    """

    def __init__(
        self, envs: VectorEnv[Any, Any, Any] | Sequence[Callable[[], gym.Env[Any, Any]]], num_threads: int | None = None
    ):
        if isinstance(envs, VectorEnv):
            if not isinstance(envs, ThreadVectorEnv):
                raise InvalidArgument(
                    f"ThreadVecEnv takes a ThreadVectorEnv itself, not {envs}; wrap what it is given (gym.make_vec with an id of "
                    "ours and vectorization_mode='vector_entry_point'), or this one, in wrappers of Stable-Baselines3"
                )
            if num_threads is not None:
                raise InvalidArgument(f"num_threads {num_threads} has no effect on {envs}, which has its own")
            self.vector = envs
        else:
            self.vector = ThreadVectorEnv(list(envs), num_threads)
        if len({id(env.unwrapped) for env in self.envs}) < len(self.envs):
            raise ValueError("the functions returned one environment several times; every call must make a new one")
        self._actions: Any = None
        super().__init__(len(self.envs), self.vector.single_observation_space, self.vector.single_action_space)

    @property
    def envs(self) -> Sequence[gym.Env[Any, Any]]:
        """The sub-environments."""
        return self.vector.envs

    def reset(self) -> Any:
        """Reset all sub-environments, with the seeds of `seed` and the options of ``set_options``, which hold once."""

        def play(i: int) -> tuple[Any, dict[str, Any]]:
            return self.envs[i].reset(seed=self._seeds[i], options=self._options[i] or None)

        results = self.vector.run(play, range(self.num_envs))
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [info for _, info in results]
        return self._stacked([observation for observation, _ in results])

    def step_async(self, actions: Any) -> None:
        """Take the actions (num_envs, ...), one a sub-environment."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all sub-environments with the actions taken, and reset those whose episode ends.

        Returns:
            observations, rewards (num_envs,) float32, whether episodes ended (num_envs,), infos.
        """
        actions = self._actions
        if len(actions) != self.num_envs:
            raise InvalidArgument(f"{len(actions)} actions for {self.num_envs} environments; give one each")

        def play(i: int) -> tuple[Any, float, bool, dict[str, Any], dict[str, Any] | None]:
            env = self.envs[i]
            observation, reward, terminated, truncated, info = env.step(actions[i])
            info = {**info, "TimeLimit.truncated": bool(truncated and not terminated)}
            if not (terminated or truncated):
                return observation, float(reward), False, info, None
            info["terminal_observation"] = observation
            observation, reset_info = env.reset()
            return observation, float(reward), True, info, reset_info

        observations, rewards, dones, infos, reset_infos = zip(
            *self.vector.run(play, range(self.num_envs)), strict=True
        )
        for i, reset_info in enumerate(reset_infos):
            if reset_info is not None:
                self.reset_infos[i] = reset_info
        return self._stacked(observations), np.array(rewards, np.float32), np.array(dones), list(infos)

    def _stacked(self, observations: Sequence[Any]) -> Any:
        """One array, or one dictionary of arrays, of all sub-environments' observations."""
        space = self.vector.single_observation_space
        return concatenate(space, observations, create_empty_array(space, self.num_envs))

    def close(self) -> None:
        """Close the sub-environments and end the threads."""
        self.vector.close()

    def get_images(self) -> Sequence[Any]:
        """What the sub-environments draw, in turn."""
        return [env.render() for env in self.envs]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of sub-environments, wherever under their wrappers it is."""
        return [env.get_wrapper_attr(attr_name) for env in self._chosen(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of sub-environments, wherever under their wrappers it is; of the outermost if it is nowhere."""
        for env in self._chosen(indices):
            env.set_wrapper_attr(attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of sub-environments, one after the other."""
        return [env.get_wrapper_attr(method_name)(*method_args, **method_kwargs) for env in self._chosen(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Whether sub-environments have a wrapper of this class."""
        return [_is_wrapped(env, wrapper_class) for env in self._chosen(indices)]

    def _chosen(self, indices: Any) -> list[gym.Env[Any, Any]]:
        """The sub-environments of an index, of some, or (None) all."""
        return [self.envs[i] for i in self._get_indices(indices)]


def _is_wrapped(env: gym.Env[Any, Any], wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]]) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False
