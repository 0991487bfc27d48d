"""What everything that acts has in common: one contract for a policy, for one environment and for many.

Base policies, earlier stages' policies, residuals, and the predictors of termination and initiation follow it; the last two
return decisions instead of actions. Plain functions and other libraries' objects come in through `as_policy`.
"""

from __future__ import annotations

import copy
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from reinforcegen_envs.arguments import missing_arguments
from reinforcegen_envs.errors import InvalidArgument

ACTION = "7 numbers: position, rotation, gripper"

Memory = dict[str, Any]
"""what a policy remembers of one environment: named arrays, numbers and the like, owned by whoever holds it"""

Indices = Sequence[int] | NDArray[np.integer[Any]]
"""which environment each row of a batch belongs to"""

Frame = Literal["world", "reference"]


class Policy(ABC):
    """Maps observations to actions, remembers every environment apart, and can give and take what it remembers.

    One object may serve many environments. An environment calls ``reset`` at every skill start, when an episode ends, and
    when it begins; ``act`` once a control step; ``get_memory`` and ``set_memory`` for snapshots. What one environment
    does never touches another's memory. Policies without any derive from `MemorylessPolicy` instead.

    Attributes:
        frame: in which an action's position and rotation parts are expressed: "world", or "reference", the frame of the
            current stage's reference object. Decisions have none.
    """

    frame: Frame = "world"

    @abstractmethod
    def reset(self, env_indices: Indices | None = None) -> None:
        """Forget what was seen: a new skill begins in these environments (None: in all)."""

    @abstractmethod
    def act(self, observations: NDArray[np.float32], env_indices: Indices | None = None) -> NDArray[Any]:
        """The next action of each environment.

        Args:
            observations: (n, size), one row an environment.
            env_indices: (n,) whose rows these are; None means the environments 0 to n - 1.

        Returns:
            (n, 7) actions in `frame`, normalised: OSC_POSE deltas and the gripper (+1 closes). A termination returns (n,)
            bools: whether the skill is over; an initiation (n, sources) indices of source demonstrations, best first.
        """

    @abstractmethod
    def get_memory(self, env_index: int = 0) -> Memory:
        """What is remembered of one environment, as a copy."""

    @abstractmethod
    def set_memory(self, memory: Memory, env_index: int = 0) -> None:
        """Go on in one environment from a memory of `get_memory`; the argument is not kept."""


class MemorylessPolicy(Policy):
    """A policy whose action depends on the observation alone; environments may share it, in several threads too."""

    def reset(self, env_indices: Indices | None = None) -> None:
        """Nothing to forget."""

    def get_memory(self, env_index: int = 0) -> Memory:
        """Nothing: {}."""
        return {}

    def set_memory(self, memory: Memory, env_index: int = 0) -> None:
        """Nothing to remember.

        Raises:
            InvalidArgument: the memory holds something: another policy's.
        """
        if memory:
            raise InvalidArgument(
                f"{type(self).__name__} has no memory, but the state holds {sorted(memory)}; restore states with the "
                "policy that they were made with"
            )


def act_one(policy: Policy, observation: NDArray[np.float32], env_index: int = 0) -> Any:
    """A policy's action (7,), or decision, for one observation (size,) of one environment."""
    return policy.act(observation[None], None if env_index == 0 else (env_index,))[0]


def environments(observations: NDArray[Any], env_indices: Indices | None) -> list[int]:
    """Whose rows these are, as a list.

    Raises:
        InvalidArgument: there are not as many indices as rows.
    """
    if env_indices is None:
        return list(range(len(observations)))
    indices = [int(i) for i in env_indices]
    if len(indices) != len(observations):
        raise InvalidArgument(f"{len(observations)} observations for {len(indices)} env_indices; give one index a row")
    return indices


def as_policy(given: object, name: str, load: Callable[[str | os.PathLike[str]], Policy] | None = None) -> Policy:
    """What a user gave as a policy, as a `Policy` for one environment, or for some that are told apart by index.

    - A `Policy` is copied, so that environments that were given the same object do not share its memory; a
      `MemorylessPolicy` is shared.
    - A function, or a callable object without ``reset``, is taken to be without memory and is shared.
    - An object with ``reset()`` that is callable, or that has the contract's ``act``, has memory: every environment gets a
      deep copy, which its own ``reset()`` resets. Its memory is what its own ``get_memory()`` returns and
      ``set_memory(memory)`` takes, if it has both, else everything in its ``__dict__``, networks included.

    A function that makes policies is not told from one that acts: call it, and give what it returns.

    Args:
        given: the user's argument. Callables map an observation (size,) to an action (7,) in the world frame.
        name: what messages call it.
        load: makes a policy of a path, where paths are allowed.

    Raises:
        InvalidArgument: it is none of these, or cannot be copied.
    """
    if load is not None and isinstance(given, (str, os.PathLike)):
        return load(cast("str | os.PathLike[str]", given))
    accepted = f"None, {'a path to base weights, ' if load else ''}a Policy, or a callable: observation -> 7 numbers"
    return _adapt(given, name, accepted, _action)


def as_termination(given: object, name: str = "termination") -> Policy:
    """Like `as_policy` for what ends skills: callables map an observation after a control step to whether it is over.

    Raises:
        InvalidArgument: ``given`` is neither a Policy nor a callable, or cannot be copied.
    """
    accepted = "one of the names, a Policy, or a callable: observation -> whether the skill is over"
    return _adapt(given, name, accepted, _decision)


Check = Callable[[Any, str], Any]


def _adapt(given: Any, name: str, accepted: str, check: Check) -> Policy:
    if inspect.isclass(given):
        kind = given.__name__
        raise InvalidArgument(f"{name} is the class {kind}; give an object: {kind}()")
    if isinstance(given, MemorylessPolicy):
        return given
    if isinstance(given, Policy):
        return _copy(given, name)
    if callable(getattr(given, "reset", None)) and (callable(given) or callable(getattr(given, "act", None))):
        return _Stateful(given, name, check)
    if callable(given):
        return _Stateless(given, name, check)
    raise InvalidArgument(f"{name} {given!r} must be {accepted}")


class _Stateless(MemorylessPolicy):
    """A function as a policy: asked row by row."""

    def __init__(self, function: Callable[[Any], Any], name: str, check: Check):
        self._function, self._name, self._check = function, name, check

    def act(self, observations: NDArray[np.float32], env_indices: Indices | None = None) -> NDArray[Any]:
        """What the function says to each row."""
        return np.array([self._check(self._function(obs), self._name) for obs in observations])


class Copies:
    """A deep copy of an object with memory for every environment; it is reset when it is made.

    Args:
        given: what is copied; it has ``reset()``, and stays as it is.
    """

    def __init__(self, given: Any):
        self._given = given
        self._made: dict[int, Any] = {}

    def of(self, env_index: int) -> Any:
        """An environment's copy."""
        if env_index not in self._made:
            self._made[env_index] = copy.deepcopy(self._given)
            self._made[env_index].reset()
        return self._made[env_index]

    def reset(self, env_indices: Indices | None) -> None:
        """Reset the copies of these environments (None: of all); one that is yet to be made is reset then."""
        for index in list(self._made) if env_indices is None else map(int, env_indices):
            if index in self._made:
                self._made[index].reset()


class _Stateful(Policy):
    """An object with memory as a policy: every environment has a copy of its own, asked row by row.

    Args:
        given: the user's object; it stays as it is.
        name: what messages call it.
        check: what it returns for one observation, and the name -> action or decision.

    Raises:
        InvalidArgument: its ``reset`` needs arguments, or it cannot be copied.
    """

    def __init__(self, given: Any, name: str, check: Check):
        if missing := missing_arguments(given.reset):
            raise InvalidArgument(
                f"{name} {given!r}: its reset must work without arguments ({missing}); wrap it in an object whose does"
            )
        self.frame = getattr(given, "frame", "world")
        self._own = callable(getattr(given, "get_memory", None)) and callable(getattr(given, "set_memory", None))
        if not self._own and not hasattr(given, "__dict__"):
            raise InvalidArgument(
                f"{name} {given!r} has no __dict__ to remember; give it get_memory() and set_memory(m)"
            )
        self._copies, self._name, self._check = Copies(_copy(given, name)), name, check

    def reset(self, env_indices: Indices | None = None) -> None:
        """Reset the environments' copies."""
        self._copies.reset(env_indices)

    def act(self, observations: NDArray[np.float32], env_indices: Indices | None = None) -> NDArray[Any]:
        """What each environment's copy says to its row."""
        indices = environments(observations, env_indices)
        return np.array([self._ask(i, obs) for i, obs in zip(indices, observations, strict=True)])

    def _ask(self, env_index: int, observation: NDArray[np.float32]) -> Any:
        policy = self._copies.of(env_index)
        result = policy(observation) if callable(policy) else policy.act(observation[None])[0]
        return self._check(result, self._name)

    def get_memory(self, env_index: int = 0) -> Memory:
        """The copy's own memory, or all its attributes."""
        policy = self._copies.of(env_index)
        memory = cast(Memory, policy.get_memory() if self._own else policy.__dict__)
        return copy.deepcopy(memory)

    def set_memory(self, memory: Memory, env_index: int = 0) -> None:
        """Give the copy a memory, or all its attributes."""
        policy, memory = self._copies.of(env_index), copy.deepcopy(memory)
        if self._own:
            policy.set_memory(memory)
        else:
            attributes = cast(Memory, policy.__dict__)
            attributes.clear()
            attributes.update(memory)


def _copy(given: Any, name: str) -> Any:
    try:
        return copy.deepcopy(given)
    except Exception as error:  # whatever an attribute that cannot be copied raises
        raise InvalidArgument(
            f"{name} {given!r} has memory and cannot be copied for every environment ({error}); give it __deepcopy__, or "
            "derive it from MemorylessPolicy if it remembers nothing"
        ) from error


def _action(result: Any, name: str) -> NDArray[np.float64]:
    """One action as (7,) float64.

    Raises:
        InvalidArgument: it is anything else.
    """
    what = f"the {name.replace('_', ' ')}'s action"
    try:
        array = np.array(result, np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a torch tensor with gradients
        raise InvalidArgument(f"{what} {result!r} must be {ACTION} ({error})") from error
    if result is None or array.shape != (7,):
        got = f"is {result!r}" if result is None else f"has shape {array.shape}"
        raise InvalidArgument(f"{what} {got}; it must be (7,): position, rotation, gripper")
    return array


def _decision(result: Any, name: str) -> bool:
    """One decision.

    Raises:
        InvalidArgument: it is neither true nor false.
    """
    if isinstance(result, (bool, np.bool_)):
        return bool(result)
    raise InvalidArgument(f"the {name}'s decision {result!r} must be True or False: whether the skill is over")
