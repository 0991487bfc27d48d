"""A vector environment whose sub-environments run in threads: the physics kernel releases the GIL."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar, cast

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate

from reinforcegen_envs.typing import Array, Flags
from reinforcegen_envs.workers import usable_cores

Result = TypeVar("Result")


class _Played:
    """Stands in for a sub-environment whose calls were already made, and hands out their results in order."""

    def __init__(self, results: Sequence[tuple[Any, ...]]):
        self._results = iter(results)

    def reset(self, **_: Any) -> tuple[Any, ...]:
        return next(self._results)

    def step(self, _: Any) -> tuple[Any, ...]:
        return next(self._results)


class ThreadVectorEnv(SyncVectorEnv):
    """Does what `gymnasium.vector.SyncVectorEnv` does, with the sub-environments running side by side.

    The sub-environments' ``step`` and ``reset`` run first, in threads; then SyncVectorEnv itself puts the
    results together, so batching, infos and every autoreset mode are its own. A thread takes the next sub-
    environment as soon as it has finished one, so a slow reset holds nobody up. Results do not depend on the
    number of threads as long as sub-environments share no changing state. If one raises, the others finish,
    then the error is raised.

    Args:
        env_fns: functions that make the sub-environments.
        num_threads: threads, the caller's included, at most one a sub-environment; None means one a core.
        copy, observation_mode, autoreset_mode: as in SyncVectorEnv.

    Attributes:
        envs: the sub-environments.
        num_threads: threads in use, the caller's included.
        spec: what `gym.make_vec` made it of, or None; made again from its JSON text, too.

    Raises:
        ValueError: ``num_threads`` is below 1.
    """

    _spec: EnvSpec | None = None

    def __init__(
        self,
        env_fns: Sequence[Callable[[], gym.Env]],
        num_threads: int | None = None,
        copy: bool = True,
        observation_mode: Any = "same",
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    ):
        if num_threads is not None and num_threads < 1:
            raise ValueError(f"num_threads is {num_threads}; give 1 or more, or None for one a core")
        super().__init__(env_fns, copy, observation_mode, autoreset_mode)  # pyright: ignore[reportUnknownMemberType]
        self.num_threads = min(num_threads or usable_cores(), self.num_envs)
        self._pool = None
        if self.num_threads > 1:
            self._pool = ThreadPoolExecutor(self.num_threads - 1, thread_name_prefix="ThreadVectorEnv")

    @property
    def spec(self) -> EnvSpec | None:
        """What `gym.make_vec` made it of."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        # gym.make_vec writes its arguments here, and an enum among them would keep the spec from becoming JSON.
        if spec is not None and isinstance(mode := spec.kwargs.get("autoreset_mode"), AutoresetMode):
            spec = copy.copy(spec)
            spec.kwargs = {**spec.kwargs, "autoreset_mode": mode.value}
        self._spec = spec

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset all sub-environments, or those in ``options["reset_mask"]``, as SyncVectorEnv does."""
        seeds = [seed + i for i in range(self.num_envs)] if isinstance(seed, int) else seed
        mask: Any = np.ones(self.num_envs, np.bool_)
        env_options = options
        if options is not None and "reset_mask" in options:
            mask = options["reset_mask"]
            env_options = {key: value for key, value in options.items() if key != "reset_mask"}
        shape, dtype = getattr(mask, "shape", None), getattr(mask, "dtype", None)
        good_mask = shape == (self.num_envs,) and dtype == np.bool_
        if not good_mask or (seeds is not None and len(seeds) != self.num_envs):
            return super().reset(seed=seed, options=options)  # which says what is wrong

        def play(i: int) -> list[tuple[Any, ...]]:
            return [self.envs[i].reset(seed=None if seeds is None else seeds[i], options=env_options)]

        played = self._play(play, np.flatnonzero(mask).tolist())
        return self._with_envs(played, lambda: super(ThreadVectorEnv, self).reset(seed=seed, options=options))

    def step(self, actions: Any) -> tuple[Any, Array, Flags, Flags, dict[str, Any]]:
        """Step all sub-environments; reset those that the autoreset mode asks for."""
        space = cast("gym.Space[Any]", self.action_space)  # pyright: ignore[reportUnknownMemberType]
        env_actions = list(iterate(space, actions))
        misuse = self.autoreset_mode == AutoresetMode.DISABLED and self._autoreset_envs.any()
        if misuse or len(env_actions) != self.num_envs:
            return super().step(actions)  # which says what is wrong

        def play(i: int) -> list[tuple[Any, ...]]:
            env = self.envs[i]
            if self.autoreset_mode == AutoresetMode.NEXT_STEP and self._autoreset_envs[i]:
                return [env.reset()]
            results: list[tuple[Any, ...]] = [env.step(env_actions[i])]
            if self.autoreset_mode == AutoresetMode.SAME_STEP and (results[0][2] or results[0][3]):
                results.append(env.reset())
            return results

        played = self._play(play, range(self.num_envs))
        return self._with_envs(played, lambda: super(ThreadVectorEnv, self).step(actions))

    def close_extras(self, **kwargs: Any) -> None:
        """Close the sub-environments and end the threads."""
        if getattr(self, "_pool", None) is not None:
            cast(ThreadPoolExecutor, self._pool).shutdown(wait=True)
            self._pool = None
        super().close_extras(**kwargs)

    def run(self, play: Callable[[int], Result], indices: Iterable[int]) -> list[Result]:
        """``play(i)`` for the indices of some sub-environments, side by side.

        Returns:
            the results, in the order of ``indices``.

        Raises:
            Exception: what ``play`` raised for one of them, after all have finished.
        """
        order = list(indices)
        results: dict[int, Result] = {}
        todo = iter(order)  # shared by the threads: taking the next item of a list is one atomic step

        def work() -> None:
            for i in todo:
                results[i] = play(i)

        helpers = [self._pool.submit(work) for _ in range(min(self.num_threads, len(order)) - 1)] if self._pool else []
        try:
            work()
        finally:
            wait(helpers)
        for helper in helpers:
            helper.result()
        return [results[i] for i in order]

    def _play(self, play: Callable[[int], list[tuple[Any, ...]]], indices: Iterable[int]) -> list[Any]:
        """Run ``play`` for every index, in threads; return stand-ins with the results, others as they are."""
        order = list(indices)
        played: list[Any] = list(self.envs)
        for i, results in zip(order, self.run(play, order), strict=True):
            played[i] = _Played(results)
        return played

    def _with_envs(self, envs: list[Any], call: Callable[[], Any]) -> Any:
        """``call()`` while ``envs`` take the sub-environments' places."""
        real, self.envs = self.envs, envs
        try:
            return call()
        finally:
            self.envs = real
