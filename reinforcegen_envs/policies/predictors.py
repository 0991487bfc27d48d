"""Initiation and termination: where a skill starts, and when it is over."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.policies.mlp import MLP, check_networks, load_mlps
from reinforcegen_envs.policies.skill import VERSION, stage_features
from reinforcegen_envs.tasks import Task

CONSECUTIVE = 5  # positive outputs in a row that end a skill (SkillGen)


class TerminationPredictor:
    """Says that a skill is over when a learned classifier has said so five times in a row.

    Args:
        task: the task class.
        networks: stage name -> network over `termination_features`, with one output, the logit of being over.
        threshold: probability above which an output counts as positive.
    """

    def __init__(self, task: type[Task], networks: Mapping[str, MLP], threshold: float = 0.5):
        layout = ObservationLayout.of(task)
        self._networks = [networks[stage.name] for stage in task.stages]
        self._features = [termination_features(layout, task, i) for i in range(len(task.stages))]
        self._stage = layout.slices["stage"]
        self._logit = float(np.log(threshold / (1.0 - threshold)))
        self.count = 0

    @classmethod
    def load(cls, path: str | os.PathLike[str], task: type[Task]) -> TerminationPredictor:
        """Read weights written by ``agents/bc.py``.

        Raises:
            WeightsError: the file is missing or damaged, or was made for another task, version or observation.
        """
        layout = ObservationLayout.of(task)
        expected = {"task": task.name, "version": VERSION, "observation_size": layout.size}
        networks, card = load_mlps(path, kind="termination", **expected)
        inputs = {stage.name: len(termination_features(layout, task, i)) for i, stage in enumerate(task.stages)}
        check_networks(path, networks, {name: (size, 1) for name, size in inputs.items()})
        return cls(task, networks, card.get("threshold", 0.5))

    def reset(self) -> None:
        """Forget what was seen: a new skill begins."""
        self.count = 0

    def positive(self, obs: np.ndarray) -> bool:
        """Whether this one observation looks as if the skill were over."""
        stage = int(np.argmax(obs[self._stage]))
        return float(self._networks[stage](obs[self._features[stage]])[0]) > self._logit

    def __call__(self, obs: np.ndarray) -> bool:
        """Whether the skill is over, given the observation after one more control step of it."""
        self.count = self.count + 1 if self.positive(obs) else 0
        return self.count >= CONSECUTIVE


class InitiationPredictor:
    """Ranks the source demonstrations by how well their skill would start here, from the observation alone.

    Copying the best-ranked source's start pose with its reference object gives the initiation pose (HSP-Class in SkillGen).

    Args:
        task: the task class.
        networks: stage name -> network over the whole observation, with one logit a source demonstration.
    """

    def __init__(self, task: type[Task], networks: Mapping[str, MLP]):
        self._networks = [networks[stage.name] for stage in task.stages]
        layout = ObservationLayout.of(task)
        self._stage = layout.slices["stage"]
        self._features = initiation_features(layout)

    @classmethod
    def load(cls, path: str | os.PathLike[str], task: type[Task]) -> InitiationPredictor:
        """Read weights written by ``agents/bc.py``.

        Raises:
            WeightsError: the file is missing or damaged, or was made for another task, version or observation.
        """
        layout = ObservationLayout.of(task)
        expected = {"task": task.name, "version": VERSION, "observation_size": layout.size}
        networks, _ = load_mlps(path, kind="initiation", **expected)
        sources = max((int(network.sizes[-1]) for network in networks.values()), default=0)
        size = (len(initiation_features(layout)), sources)
        check_networks(path, networks, {stage.name: size for stage in task.stages})
        return cls(task, networks)

    def rank(self, obs: np.ndarray) -> np.ndarray:
        """Indices of the source demonstrations, best first."""
        stage = int(np.argmax(obs[self._stage]))
        return np.argsort(-self._networks[stage](obs[self._features]), kind="stable")


def termination_features(layout: ObservationLayout, task: type[Task], stage: int) -> np.ndarray:
    """Indices of what tells that a skill is over: what its policy sees, and how fast the hand moves.

    Success has to be held still; poses alone cannot tell a needle that rests in the ring from one on its way through.
    """
    return np.concatenate([stage_features(layout, task, stage), layout.indices("eef_vel_in_ref")])


def initiation_features(layout: ObservationLayout) -> np.ndarray:
    """Indices of what tells where a skill may start: where the objects are, on the table and to one another."""
    names = [f"{name}_{part}_in_ref" for name in layout.objects for part in ("pos", "rot6d")]
    return layout.indices(*names, "ref_pos_world", "ref_rot6d_world")
