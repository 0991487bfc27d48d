"""Initiation, termination and foresight: where a skill starts, when it is over, and what comes of how it ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import as_path
from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.policies.mlp import CARD_VERSION, MLP, StageMLPs, WeightsError, check_networks, load_mlps
from reinforcegen_envs.policies.policy import Indices, Memory, MemorylessPolicy, Policy, environments
from reinforcegen_envs.policies.skill import stage_features
from reinforcegen_envs.tasks import Task

CONSECUTIVE = 5  # positive outputs in a row that end a skill (SkillGen)


class TerminationPredictor(Policy):
    """Says that a skill is over when a learned classifier has said so five times in a row; remembers how often it has.

    Args:
        task: the task class.
        networks: stage name -> network over `termination_features`, with one output, the logit of being over.
        threshold: probability above which an output counts as positive.
    """

    def __init__(self, task: type[Task], networks: Mapping[str, MLP], threshold: float = 0.5):
        layout = ObservationLayout.of(task)
        features = [termination_features(layout, task, i) for i in range(len(task.stages))]
        in_order = [networks[stage.name] for stage in task.stages]
        self._networks = StageMLPs(in_order, features, layout.size, layout.slices["stage"])
        self._logit = float(np.log(threshold / (1.0 - threshold)))
        self._counts: dict[int, int] = {}

    @classmethod
    def load(cls, path: str | os.PathLike[str], task: type[Task]) -> TerminationPredictor:
        """Read weights written by ``agents/bc.py``.

        Raises:
            WeightsError: the file is missing or damaged, or was made for another task, version or observation.
        """
        layout = ObservationLayout.of(task)
        expected = {"task": task.name, "version": CARD_VERSION, "observation_size": layout.size}
        networks, card = load_mlps(path, kind="termination", **expected)
        inputs = {stage.name: len(termination_features(layout, task, i)) for i, stage in enumerate(task.stages)}
        check_networks(path, networks, {name: (size, 1) for name, size in inputs.items()})
        return cls(task, networks, card.get("threshold", 0.5))

    def reset(self, env_indices: Indices | None = None) -> None:
        """Forget what was seen: a new skill begins."""
        for index in list(self._counts) if env_indices is None else map(int, env_indices):
            self._counts[index] = 0

    def positive(self, observations: NDArray[Any]) -> NDArray[Any]:
        """Which observations (n, size) look as if the skill were over, each by itself; (n,) bool."""
        return self._networks(observations)[:, 0].astype(np.float64) > self._logit

    def act(self, observations: NDArray[Any], env_indices: Indices | None = None) -> NDArray[Any]:
        """Whether the skills are over (n,), given the observations (n, size) after one more control step of them."""
        indices = environments(observations, env_indices)
        for index, positive in zip(indices, self.positive(observations), strict=True):
            self._counts[index] = self._counts.get(index, 0) + 1 if positive else 0
        return np.array([self._counts[index] >= CONSECUTIVE for index in indices])

    def get_memory(self, env_index: int = 0) -> Memory:
        """{"count": positive outputs in a row}."""
        return {"count": self._counts.get(env_index, 0)}

    def set_memory(self, memory: Memory, env_index: int = 0) -> None:
        """Go on from a memory of `get_memory`.

        Raises:
            InvalidArgument: it is not one.
        """
        if set(memory) != {"count"}:
            raise InvalidArgument(f"a termination predictor's memory is {{'count': int}}, not of {sorted(memory)}")
        self._counts[env_index] = int(memory["count"])


class InitiationPredictor(MemorylessPolicy):
    """Ranks the source demonstrations by how well their skill would start here, from the observation alone.

    Copying the best-ranked source's start pose with its reference object gives the initiation pose (HSP-Class in SkillGen).

    Args:
        task: the task class.
        networks: stage name -> network over `initiation_features`, with one logit a source demonstration.

    Attributes:
        sources: how many source demonstrations are ranked.
    """

    def __init__(self, task: type[Task], networks: Mapping[str, MLP]):
        layout = ObservationLayout.of(task)
        features = [initiation_features(layout)] * len(task.stages)
        in_order = [networks[stage.name] for stage in task.stages]
        self._networks = StageMLPs(in_order, features, layout.size, layout.slices["stage"])
        self.sources = in_order[0].output_size

    @classmethod
    def load(cls, path: str | os.PathLike[str], task: type[Task]) -> InitiationPredictor:
        """Read weights written by ``agents/bc.py``.

        Raises:
            WeightsError: the file is missing or damaged, or was made for another task, version or observation.
        """
        layout = ObservationLayout.of(task)
        expected = {"task": task.name, "version": CARD_VERSION, "observation_size": layout.size}
        networks, _ = load_mlps(path, kind="initiation", **expected)
        sources = max((int(network.sizes[-1]) for network in networks.values()), default=0)
        size = (len(initiation_features(layout)), sources)
        check_networks(path, networks, {stage.name: size for stage in task.stages})
        return cls(task, networks)

    def act(self, observations: NDArray[Any], env_indices: Indices | None = None) -> NDArray[Any]:
        """Indices of the source demonstrations (n, sources), best first, for observations (n, size)."""
        return np.argsort(-self._networks(observations), axis=1, kind="stable")


class ForesightPredictor(MemorylessPolicy):
    """How likely all later stages succeed from the state in which a skill ends, from the observation at its end alone.

    Args:
        task: the task class.
        networks: name of each stage but the last -> network over `foresight_features`, with one output, the logit.
    """

    def __init__(self, task: type[Task], networks: Mapping[str, MLP]):
        layout = ObservationLayout.of(task)
        features = [foresight_features(layout)] * len(task.stages)
        in_order = [networks[stage.name] for stage in task.stages[:-1]]
        self._networks = StageMLPs([*in_order, None], features, layout.size, layout.slices["stage"])
        self._last = layout.slices["stage"].stop - 1

    @classmethod
    def load(cls, path: str | os.PathLike[str], task: type[Task]) -> ForesightPredictor:
        """Read weights written by ``agents/foresight.py``.

        Raises:
            WeightsError: the file is missing or damaged, or was made for another task, version or observation.
        """
        path = as_path(path, "foresight")
        if not path.is_file():
            raise WeightsError(
                f"no foresight weights {path}; train them with python -m reinforcegen_envs.agents.foresight "
                f"--task {task.name} --weights {path.parent}, or leave foresight out"
            )
        layout = ObservationLayout.of(task)
        expected = {"task": task.name, "version": CARD_VERSION, "observation_size": layout.size}
        networks, _ = load_mlps(path, kind="foresight", **expected)
        size = (len(foresight_features(layout)), 1)
        check_networks(path, networks, {stage.name: size for stage in task.stages[:-1]})
        return cls(task, networks)

    def act(self, observations: NDArray[Any], env_indices: Indices | None = None) -> NDArray[Any]:
        """Probabilities (n,), float64, that the later stages succeed, given the observations (n, size) at the ends of skills.

        After the last stage nothing is left to do: 1.
        """
        logits = self._networks(observations)[:, :1].astype(np.float64)
        probabilities = np.reshape(1.0 / (1.0 + np.exp(-logits)), -1)
        return np.where(np.asarray(observations)[:, self._last] > 0.5, 1.0, probabilities)


def termination_features(layout: ObservationLayout, task: type[Task], stage: int) -> NDArray[Any]:
    """Indices of what tells that a skill is over: what its policy sees, and how fast the hand moves.

    Success has to be held still; poses alone cannot tell a needle that rests in the ring from one on its way through.
    """
    return np.concatenate([stage_features(layout, task, stage), layout.indices("eef_vel_in_ref")])


def foresight_features(layout: ObservationLayout) -> NDArray[Any]:
    """Indices of what tells whether later stages will succeed: hand, gripper, all objects, and where on the table they are.

    All as they are seen when the skill ends, in the frame of its own reference object.
    """
    names = ["eef_pos_in_ref", "eef_rot6d_in_ref", "gripper"]
    if "joints" in layout.slices:
        names.append("joints")
    return np.concatenate([layout.indices(*names), initiation_features(layout)])


def initiation_features(layout: ObservationLayout) -> NDArray[Any]:
    """Indices of what tells where a skill may start: where the objects are, on the table and to one another."""
    names = [f"{name}_{part}_in_ref" for name in layout.objects for part in ("pos", "rot6d")]
    return layout.indices(*names, "ref_pos_world", "ref_rot6d_world")
