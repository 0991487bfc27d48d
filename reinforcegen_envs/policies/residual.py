"""Residual policies: what reinforcement learning adds to the base policy, one network a stage."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reinforcegen_envs.observations import ACTION_SIZE, ObservationLayout
from reinforcegen_envs.policies.mlp import MLP, WeightsError, check_networks, load_mlps
from reinforcegen_envs.tasks import Task


def residual_files(folder: Path) -> list[Path]:
    """The residual weights in a folder of weights."""
    return sorted(folder.glob("residual-*.safetensors"))


class ResidualPolicy:
    """Residual networks, one a stage or one for all; zero where there is none, which leaves the base policy as it is.

    Args:
        task: the task class.
        networks: stage name (or "all") -> network over the observation with base action.
    """

    def __init__(self, task: type[Task], networks: dict[str, MLP]):
        self._networks = [networks.get(stage.name, networks.get("all")) for stage in task.stages]
        self._stage = ObservationLayout.of(task).slices["stage"]

    @classmethod
    def load(cls, paths: list[Path], task: type[Task], observation_size: int) -> tuple[ResidualPolicy, float]:
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
        return cls(task, networks), scales.pop()

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        """The residual action (7,) for one observation that ends with stage one-hot and base action."""
        network = self._networks[int(np.argmax(obs[self._stage]))]
        return np.zeros(ACTION_SIZE, np.float32) if network is None else network(obs)
