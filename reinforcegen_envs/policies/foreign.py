# pyright: basic
# (The libraries are optional, and what they return is unknown.)
"""Policies that other libraries made, as base or earlier policies: TorchScript files, Stable-Baselines3, LeRobot.

    gym.make(ID, base_policy=torchscript("policy.pt", frame="reference"))
    gym.make(ID, base_policy=SB3Policy(model, normalise))
    gym.make(ID, base_policy=LeRobotPolicy(policy, preprocess, postprocess))

They see the flat observation without base action, as an agent of the modes Skill and Hybrid does, and are asked for
one environment at a time, so that what they say does not depend, in its last bits, on what else is in a batch. They
can be copied and pickled, as they must be for vector environments in threads and processes. None of the libraries is
imported here but torch, when it is needed.
"""

from __future__ import annotations

import copy
import io
import os
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reinforcegen_envs.errors import InvalidArgument, MissingPackage
from reinforcegen_envs.policies.policy import Copies, Frame, Indices, Memory, MemorylessPolicy, Policy, environments

FRAMES = ("world", "reference")


def torchscript(path: str | os.PathLike[str], frame: Frame = "world") -> Policy:
    """A policy of a TorchScript file, which ``torch.jit.save`` writes; it runs on the CPU.

    Its ``forward`` maps observations (1, size) float32 to actions (1, 7). A recurrent one exports
    ``initial_state()``, and its ``forward`` maps observations and a state to actions and the next state, tensors in
    whatever tuples, lists and dictionaries.

    Args:
        path: the file; it is read once, and need not stay.
        frame: the one that its actions are in: "world", or "reference", the frame of the stage's reference object.

    Raises:
        InvalidArgument: there is no such file, it is not TorchScript, or an unknown frame.
        MissingPackage: torch is not installed.
    """
    if frame not in FRAMES:
        raise InvalidArgument(f"unknown frame {frame!r}; choose one of {FRAMES}")
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InvalidArgument(
            f"{path} cannot be read ({error.strerror}); give a file that torch.jit.save wrote"
        ) from error
    script = _Script(content, str(path))
    recurrent = hasattr(script.module, "initial_state")
    return RecurrentScriptPolicy(script, frame) if recurrent else ScriptPolicy(script, frame)


class _Script:
    """A TorchScript module that can be copied (it is frozen, so copies share it) and pickled (as the bytes of its
    file)."""

    def __init__(self, content: bytes, name: str):
        try:
            import torch
        except ModuleNotFoundError as error:
            raise MissingPackage("TorchScript needs torch, which is not installed; pip install torch") from error
        try:
            self.module: Any = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0]
            raise InvalidArgument(
                f"{name} is not TorchScript ({reason}); write it with torch.jit.script(module).save(path)"
            ) from error
        self._content, self._name = content, name

    def __call__(self, *arguments: Any) -> Any:
        import torch

        with torch.no_grad():
            return self.module(*arguments)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Script:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _Script, (self._content, self._name)


def _tensor(observation: NDArray[Any]) -> Any:
    """(1, size) float32 tensor of an observation (size,)."""
    import torch

    return torch.from_numpy(np.array(observation, np.float32)[None])


def _row(action: Any) -> NDArray[np.float64]:
    """(7,) of what a model says: a tensor or an array, (7,) or (1, 7).

    Raises:
        InvalidArgument: it has another shape.
    """
    array = np.asarray(action.detach().cpu() if hasattr(action, "detach") else action, np.float64)
    if array.shape not in ((7,), (1, 7)):
        raise InvalidArgument(
            f"the policy's action has shape {array.shape}; it must be (7,) or (1, 7): position, rotation, gripper"
        )
    return array.reshape(7)


class ScriptPolicy(MemorylessPolicy):
    """A TorchScript module whose action depends on the observation alone; see `torchscript`."""

    def __init__(self, script: Callable[..., Any], frame: Frame):
        self._script, self.frame = script, frame

    def act(self, observations: NDArray[np.float32], env_indices: Indices | None = None) -> NDArray[Any]:
        """What the module says to each row."""
        return np.array([_row(self._script(_tensor(obs))) for obs in observations])


class Recurrent(Policy):
    """A policy that carries a state from step to step, each environment its own; None is where a skill starts."""

    def __init__(self) -> None:
        self._states: dict[int, Any] = {}

    @abstractmethod
    def step(self, observation: NDArray[np.float32], state: Any) -> tuple[Any, Any]:
        """One observation (size,) and the state, None at first, to an action (7,) or (1, 7) and the next state, a new
        object."""

    def reset(self, env_indices: Indices | None = None) -> None:
        """Start anew."""
        for index in list(self._states) if env_indices is None else map(int, env_indices):
            self._states.pop(index, None)

    def act(self, observations: NDArray[np.float32], env_indices: Indices | None = None) -> NDArray[Any]:
        """One step of each environment."""
        actions: list[NDArray[np.float64]] = []
        for index, obs in zip(environments(observations, env_indices), observations, strict=True):
            action, self._states[index] = self.step(obs, self._states.get(index))
            actions.append(_row(action))
        return np.array(actions)

    def get_memory(self, env_index: int = 0) -> Memory:
        """The state."""
        return {"state": copy.deepcopy(self._states.get(env_index))}

    def set_memory(self, memory: Memory, env_index: int = 0) -> None:
        """Go on from a state of `get_memory`."""
        self._states[env_index] = copy.deepcopy(memory["state"])


class RecurrentScriptPolicy(Recurrent):
    """A TorchScript module with a state; see `torchscript`."""

    def __init__(self, script: Any, frame: Frame):
        super().__init__()
        self._script, self.frame = script, frame

    def step(self, observation: NDArray[np.float32], state: Any) -> tuple[Any, Any]:
        """The module's action, and its state."""
        return self._script(_tensor(observation), self._script.module.initial_state() if state is None else state)


class SB3Policy(Recurrent):
    """A policy that Stable-Baselines3 (or its contrib, recurrent ones included) trained, deterministic.

    Args:
        model: the algorithm, e.g. ``PPO.load(path, device="cpu")``, or its ``policy``. Neither environments nor
            replay buffer are kept.
        normalise: the ``VecNormalize`` that it was trained in, if it was.
        frame: the one that its actions are in; those of an agent of the modes Skill and Hybrid are in the world's.

    Raises:
        InvalidArgument: it has no ``predict``.
    """

    def __init__(self, model: Any, normalise: Any = None, frame: Frame = "world"):
        super().__init__()
        policy = getattr(model, "policy", model)
        if not callable(getattr(policy, "predict", None)):
            raise InvalidArgument(f"{model!r} has no predict; give a model of Stable-Baselines3, or its policy")
        # Of its own: predict leaves its distribution in the policy, where another thread could find it.
        self._policy = _policy_like(policy)
        self.frame = frame
        self._statistics: tuple[NDArray[Any], NDArray[Any], float] | None = None
        if normalise is not None and normalise.norm_obs:
            rms, epsilon = normalise.obs_rms, normalise.epsilon
            self._statistics = np.array(rms.mean), np.sqrt(np.array(rms.var) + epsilon), float(normalise.clip_obs)

    def step(self, observation: NDArray[np.float32], state: Any) -> tuple[Any, Any]:
        """The most likely action, and the state of a recurrent policy (None otherwise)."""
        if self._statistics is not None:
            mean, std, clip = self._statistics
            observation = np.clip((observation - mean) / std, -clip, clip).astype(np.float32)
        start = np.array([state is None])
        return self._policy.predict(observation[None], state=state, episode_start=start, deterministic=True)


def _policy_like(policy: Any) -> Any:
    """A copy; Stable-Baselines3's own file format makes it, since what is left of training cannot be copied."""
    if not hasattr(policy, "save") or not hasattr(type(policy), "load"):
        return copy.deepcopy(policy)
    buffer = io.BytesIO()
    policy.save(buffer)
    buffer.seek(0)
    return type(policy).load(buffer, device="cpu")


class LeRobotPolicy(Policy):
    """A policy with LeRobot's interface: ``reset()``, and ``select_action(batch)``, which answers from its chunk.

    Every environment has a copy of its own, since what is left of a chunk is within the policy. Pictures are not
    passed on.

    Args:
        policy: the policy, on the CPU.
        preprocess, postprocess: what goes before and after it, e.g. LeRobot's processor pipelines: a dictionary ->
            a dictionary, and an action -> an action.
        key: what the observation is called in the batch.
        frame: the one that its actions are in.

    Raises:
        InvalidArgument: it lacks one of the two methods.
    """

    def __init__(
        self,
        policy: Any,
        preprocess: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
        postprocess: Callable[[Any], Any] | None = None,
        key: str = "observation.state",
        frame: Frame = "world",
    ):
        if missing := [name for name in ("reset", "select_action") if not callable(getattr(policy, name, None))]:
            raise InvalidArgument(f"{policy!r} has no {missing}; give a policy with LeRobot's interface")
        self._copies, self._preprocess, self._postprocess = Copies(policy), preprocess, postprocess
        self._key, self.frame = key, frame

    def reset(self, env_indices: Indices | None = None) -> None:
        """Forget what is left of chunks."""
        self._copies.reset(env_indices)

    def act(self, observations: NDArray[np.float32], env_indices: Indices | None = None) -> NDArray[Any]:
        """The next action of each environment's chunk."""
        import torch

        actions: list[NDArray[np.float64]] = []
        for index, obs in zip(environments(observations, env_indices), observations, strict=True):
            batch = {self._key: _tensor(obs)}
            with torch.no_grad():
                action = self._copies.of(index).select_action(self._preprocess(batch) if self._preprocess else batch)
            actions.append(_row(self._postprocess(action) if self._postprocess else action))
        return np.array(actions)

    def get_memory(self, env_index: int = 0) -> Memory:
        """What the copy holds beside its networks and settings: queues of actions and observations."""
        return {"queues": copy.deepcopy(_queues(self._copies.of(env_index)))}

    def set_memory(self, memory: Memory, env_index: int = 0) -> None:
        """Go on with these queues."""
        vars(self._copies.of(env_index)).update(copy.deepcopy(memory["queues"]))


def _queues(policy: Any) -> dict[str, Any]:
    """A module's own attributes, without torch's tables of parameters and networks, and its configuration."""
    torch_own = {"_parameters", "_buffers", "_modules", "_backward_hooks", "_forward_hooks", "training", "config"}
    return {name: value for name, value in vars(policy).items() if name not in torch_own and "hook" not in name}
