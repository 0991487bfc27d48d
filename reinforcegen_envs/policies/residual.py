"""Residual policies: what reinforcement learning adds to the base policy, one network a stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reinforcegen_envs.observations import ACTION_SIZE, ObservationLayout
from reinforcegen_envs.policies.mlp import MLP, WeightsError, check_networks, load_mlps
from reinforcegen_envs.policies.predictors import TerminationPredictor
from reinforcegen_envs.tasks import Task


def residual_files(folder: Path) -> list[Path]:
    """The residual weights in a folder of weights."""
    return sorted(folder.glob("residual-*.safetensors"))


class ResidualPolicy:
    """Residual networks, one a stage or one for all; zero where there is none, which leaves the base policy as it is.

    A residual is trained up to the moment a stage is finished; what it would do after that is arbitrary, and the learned
    termination needs a few calm steps. So it rests where the termination network says that the skill is over.

    Args:
        task: the task class.
        networks: stage name (or "all") -> network over the observation with base action.
        termination: whose networks say where the residual rests; None: nowhere.
    """

    def __init__(self, task: type[Task], networks: dict[str, MLP], termination: TerminationPredictor | None = None):
        self._networks = [networks.get(stage.name, networks.get("all")) for stage in task.stages]
        self._stage = ObservationLayout.of(task).slices["stage"]
        self._termination = termination

    @classmethod
    def load(
        cls, paths: list[Path], task: type[Task], observation_size: int, termination: TerminationPredictor | None = None
    ) -> tuple[ResidualPolicy, float]:
        """Read residual weights; returns the policy and the residual scale they were trained with.

        Raises:
            WeightsError: unusable files, or files of different residual scales.
        """
        networks: dict[str, MLP] = {}
        scales = set()
        for path in paths:
            found, card = load_mlps(path, kind="residual", task=task.name, observation_size=observation_size)
            names = ["all", *(stage.name for stage in task.stages)]
            if unknown := set(found) - set(names):
                raise WeightsError(f"{path} is for stages {sorted(unknown)}; {task.name} has {names[1:]}")
            check_networks(path, found, {name: (observation_size, ACTION_SIZE) for name in found})
            networks |= found
            scales.add(float(card.get("residual_scale", np.nan)))
        if len(scales) != 1:
            raise WeightsError(f"residual weights of different scales {sorted(scales)} cannot be combined")
        return cls(task, networks, termination), scales.pop()

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """The residual action (7,) for one observation that ends with stage one-hot and base action."""
        network = self._networks[int(np.argmax(obs[self._stage]))]
        if network is None or (self._termination is not None and self._termination.positive(obs)):
            return np.zeros(7, np.float32)
        return network(obs)
