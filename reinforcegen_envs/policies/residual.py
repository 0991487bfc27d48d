"""Residual policies: what reinforcement learning adds to the base policy, one network a stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reinforcegen_envs.observations import ACTION_SIZE, ObservationLayout, to_reference, to_world
from reinforcegen_envs.policies.mlp import CARD_VERSION, MLP, StageMLPs, WeightsError, check_networks, load_mlps
from reinforcegen_envs.policies.policy import Indices, MemorylessPolicy
from reinforcegen_envs.policies.skill import SkillPolicy
from reinforcegen_envs.tasks import Task


def combine(base: NDArray[Any], residual: NDArray[Any], scale: float, ref_rot6d: NDArray[Any]) -> NDArray[Any]:
    """The executed action: ``clip(base + scale * residual)`` with the residual turned from the reference frame to the world.

    Args:
        base: (7,) base action, world frame.
        residual: (7,) the agent's action, in [-1, 1], reference object's frame.
        scale: size of the residual.
        ref_rot6d: (6,) first two columns of the reference frame's rotation in the world.

    Returns:
        (7,) in [-1, 1], world frame. A zero residual gives the base action bit for bit.
    """
    return np.clip(base + scale * to_world(residual, ref_rot6d), -1.0, 1.0)


class ResidualPolicy(MemorylessPolicy):
    """Residual networks, one a stage or one for all; zero where there is none, which leaves the base policy as it is.

    Args:
        task: the task class.
        networks: stage name (or "all") -> network over the observation with base action.
    """

    frame = "reference"

    def __init__(self, task: type[Task], networks: dict[str, MLP]):
        layout = ObservationLayout.of(task, base_action=True)
        in_order = [networks.get(stage.name, networks.get("all")) for stage in task.stages]
        features = [np.arange(layout.size)] * len(task.stages)
        self._networks = StageMLPs(in_order, features, layout.size, layout.slices["stage"])

    @classmethod
    def load(cls, paths: Sequence[Path], task: type[Task], observation_size: int) -> tuple[ResidualPolicy, float]:
        """Read residual weights; returns the policy and the residual scale they were trained with.

        Raises:
            WeightsError: unusable files, or files of different residual scales.
        """
        networks: dict[str, MLP] = {}
        scales: set[float] = set()
        for path in paths:
            expected = {"task": task.name, "version": CARD_VERSION, "observation_size": observation_size}
            found, card = load_mlps(path, kind="residual", **expected)
            names = ["all", *(stage.name for stage in task.stages)]
            if unknown := set(found) - set(names):
                raise WeightsError(f"{path} is for stages {sorted(unknown)}; {task.name} has {names[1:]}")
            check_networks(path, found, {name: (observation_size, ACTION_SIZE) for name in found})
            networks |= found
            scales.add(float(card.get("residual_scale", np.nan)))
        if len(scales) != 1:
            raise WeightsError(f"residual weights of different scales {sorted(scales)} cannot be combined")
        return cls(task, networks), scales.pop()

    def act(self, observations: NDArray[Any], env_indices: Indices | None = None) -> NDArray[Any]:
        """Residual actions (n, 7) for observations (n, size) that end with stage one-hot and base action."""
        outputs = self._networks(observations)
        return outputs.astype(np.float64) if outputs.shape[1] else np.zeros((len(outputs), ACTION_SIZE))


class TunedPolicy(MemorylessPolicy):
    """Base and residual policies as one, over observations without base action.

    Args:
        task: the task class.
        base: the base policy.
        residual: what is added to it.
        scale: the residual scale that it was trained with.
    """

    frame = "world"

    def __init__(self, task: type[Task], base: SkillPolicy, residual: ResidualPolicy, scale: float):
        self._base, self._residual, self._scale = base, residual, scale
        self._rotation = ObservationLayout.of(task).slices["ref_rot6d_world"]

    def act(self, observations: NDArray[Any], env_indices: Indices | None = None) -> NDArray[Any]:
        """The actions (n, 7), in [-1, 1], for observations (n, size)."""
        frames = observations[:, self._rotation].astype(np.float64)
        turned = [to_world(a, f) for a, f in zip(self._base.act(observations), frames, strict=True)]
        base = np.clip(np.reshape(turned, (-1, ACTION_SIZE)), -1.0, 1.0)
        seen = [to_reference(a, f) for a, f in zip(base, frames, strict=True)]
        extended = np.concatenate([observations, np.reshape(seen, (-1, ACTION_SIZE)).astype(np.float32)], axis=1)
        residual = self._residual.act(extended)
        parts = zip(base, residual, frames, strict=True)
        return np.reshape([combine(b, r, self._scale, f) for b, r, f in parts], (-1, ACTION_SIZE))
