"""A vector environment whose sub-environments run in threads: the physics kernel releases the GIL."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar, cast

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import iterate

from reinforcegen_envs.errors import InvalidArgument, is_count
from reinforcegen_envs.typing import Array, Flags
from reinforcegen_envs.workers import usable_cores

Result = TypeVar("Result")


class _Calls(Generic[Result]):
    """``play(i)`` of some sub-environments, which threads make in order; whoever wants a result meanwhile lends a hand.

    Args:
        play: what to call.
        order: the indices.
        pool: where helpers run.
        helpers: how many.
    """

    def __init__(
        self, play: Callable[[int], Result], order: Sequence[int], pool: ThreadPoolExecutor | None, helpers: int
    ):
        self._play = play
        self._todo = iter(order)  # shared by the threads: taking the next item of a list is one atomic step
        self._results: dict[int, Result] = {}
        self._errors: dict[int, Exception] = {}
        self._helpers = [pool.submit(self._work) for _ in range(helpers)] if pool else []

    def _next(self) -> bool:
        """Make the next call; False when all were begun."""
        for i in self._todo:
            try:
                self._results[i] = self._play(i)
            except Exception as error:
                self._errors[i] = error
            return True
        return False

    def _work(self) -> None:
        while self._next():
            pass

    def __getitem__(self, i: int) -> Result:
        """The result of ``play(i)``, or the error that it raised; until it is there, the caller makes other calls."""
        while i not in self._results and i not in self._errors:
            if not self._next():
                self.finish()
        if i in self._errors:
            raise self._errors[i]
        return self._results[i]

    def finish(self) -> None:
        """Return when all calls were made, those of the helpers also if this one is interrupted."""
        try:
            self._work()
        finally:
            wait(self._helpers)
        for helper in self._helpers:
            helper.result()


class _Played:
    """Stands in for a sub-environment whose calls are made by threads, and hands out their results in order."""

    def __init__(self, calls: _Calls[list[tuple[Any, ...]]], i: int):
        self._calls, self._i, self._given = calls, i, 0

    def reset(self, **_: Any) -> tuple[Any, ...]:
        self._given += 1
        return self._calls[self._i][self._given - 1]

    def step(self, _: Any) -> tuple[Any, ...]:
        return self.reset()


class ThreadVectorEnv(SyncVectorEnv):
    """Does what `gymnasium.vector.SyncVectorEnv` does, with the sub-environments running side by side.

    The sub-environments' ``step`` and ``reset`` run in threads, and SyncVectorEnv itself puts the results
    together, so batching, infos and every autoreset mode are its own; it does so with those that are there while
    others run. A thread takes the next sub-environment as soon as it has finished one, so a slow reset holds nobody
    up. Results do not depend on the number of threads as long as sub-environments share no changing state. If some
    raise, the others finish, then the first one's error is raised.

    Args:
        env_fns: functions that make the sub-environments.
        num_threads: threads, the caller's included, at most one a sub-environment; None means one a core.
        copy, observation_mode, autoreset_mode: as in SyncVectorEnv.

    Attributes:
        envs: the sub-environments.
        num_threads: threads in use, the caller's included.
        spec: what `gym.make_vec` made it of, or None; made again from its JSON text, too.

    Raises:
        InvalidArgument: ``num_threads`` is no number of threads.
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
        if num_threads is not None and not is_count(num_threads, 1):
            raise InvalidArgument(f"num_threads is {num_threads!r}; give 1 or more, or None for one a core")
        super().__init__(env_fns, copy, observation_mode, autoreset_mode)  # pyright: ignore[reportUnknownMemberType]
        self.num_threads = min(num_threads or usable_cores(), self.num_envs)
        self._start_threads()

    def _start_threads(self) -> None:
        self._process = os.getpid()
        self._pool = None
        if self.num_threads > 1:
            self._pool = ThreadPoolExecutor(self.num_threads - 1, thread_name_prefix="ThreadVectorEnv")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None, "_process": None}  # a copy has threads of its own

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

        envs = self.envs

        def play(i: int) -> list[tuple[Any, ...]]:
            return [envs[i].reset(seed=None if seeds is None else seeds[i], options=env_options)]

        return self._with_played(
            play, np.flatnonzero(mask).tolist(), lambda: super(ThreadVectorEnv, self).reset(seed=seed, options=options)
        )

    def step(self, actions: Any) -> tuple[Any, Array, Flags, Flags, dict[str, Any]]:
        """Step all sub-environments; reset those that the autoreset mode asks for."""
        space = cast("gym.Space[Any]", self.action_space)  # pyright: ignore[reportUnknownMemberType]
        env_actions = list(iterate(space, actions))
        misuse = self.autoreset_mode == AutoresetMode.DISABLED and self._autoreset_envs.any()
        if misuse or len(env_actions) != self.num_envs:
            return super().step(actions)  # which says what is wrong

        envs = self.envs

        def play(i: int) -> list[tuple[Any, ...]]:
            env = envs[i]
            if self.autoreset_mode == AutoresetMode.NEXT_STEP and self._autoreset_envs[i]:
                return [env.reset()]
            results: list[tuple[Any, ...]] = [env.step(env_actions[i])]
            if self.autoreset_mode == AutoresetMode.SAME_STEP and (results[0][2] or results[0][3]):
                results.append(env.reset())
            return results

        return self._with_played(play, range(self.num_envs), lambda: super(ThreadVectorEnv, self).step(actions))

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
            Exception: what ``play`` raised for the first of them for which it did, after all have finished.
        """
        order = list(indices)
        calls = self._calls(play, order)
        calls.finish()
        return [calls[i] for i in order]

    def _calls(self, play: Callable[[int], Result], order: Sequence[int]) -> _Calls[Result]:
        if (
            self._process != os.getpid() and not self.closed
        ):  # a copy, or a forked process, which has no threads of its parent
            self._start_threads()
        return _Calls(play, order, self._pool, min(self.num_threads, len(order)) - 1)

    def _with_played(
        self, play: Callable[[int], list[tuple[Any, ...]]], indices: Iterable[int], call: Callable[[], Any]
    ) -> Any:
        """``call()`` while stand-ins take the places of the sub-environments that ``play`` is called for."""
        order = list(indices)
        real, calls = self.envs, self._calls(play, order)
        played = set(order)
        try:
            self.envs = [cast(Any, _Played(calls, i)) if i in played else env for i, env in enumerate(real)]
            return call()
        finally:
            self.envs = real
            calls.finish()
