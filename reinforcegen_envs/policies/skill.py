"""The base policy: one imitation-learned network a stage, in the frame of the stage's reference object."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numba
import numpy as np

from reinforcegen_envs.observations import ACTION_SIZE, ObservationLayout
from reinforcegen_envs.policies.mlp import (
    CARD_VERSION,
    MLP,
    Array,
    StageMLPs,
    check_networks,
    forward_stages,
    load_mlps,
)
from reinforcegen_envs.policies.policy import Indices, MemorylessPolicy
from reinforcegen_envs.tasks import Task

# The networks' last output is the logit of closing. Memoryless imitation stalls where demonstrations dwelt, so little
# evidence closes the hand (probability 0.3), and a closing hand needs much to open again (0.05; ours).
CLOSE_ABOVE, OPEN_BELOW = float(np.log(0.3 / 0.7)), float(np.log(0.05 / 0.95))


def stage_features(layout: ObservationLayout, task: type[Task], stage: int) -> Array:
    """Indices of the numbers of an observation that a stage's networks see.

    Hand and held object in the reference frame, gripper, lids and drawers, and the reference object's height: nothing that
    tells where on the table the scene is, so that one policy serves every variant.
    """
    names = ["eef_pos_in_ref", "eef_rot6d_in_ref", "gripper"]
    held = task.stages[stage].held
    if held is not None:
        names += [f"{held}_pos_in_ref", f"{held}_rot6d_in_ref"]
    if "joints" in layout.slices:
        names.append("joints")
    height = layout.slices["ref_pos_world"].start + 2
    return np.concatenate([layout.indices(*names), [height]])


@numba.njit(cache=True, nogil=True)
def _act(
    observations: Array,
    parameters: Array,
    table: Array,
    features: Array,
    stage_start: int,
    command: int,
) -> Array:
    """Actions (n, 7) float64: `forward_stages` with the gripper decided; ``command`` is where its last command is."""
    outputs = forward_stages(observations, parameters, table, features, stage_start)
    actions = outputs.astype(np.float64)
    for row in range(len(actions)):
        threshold = OPEN_BELOW if observations[row, command] > 0.0 else CLOSE_ABOVE
        actions[row, 6] = 1.0 if actions[row, 6] > threshold else -1.0
    return actions


class SkillPolicy(MemorylessPolicy):
    """Maps an observation to the base action.

    Args:
        task: the task class.
        networks: stage name -> network over `stage_features`, with 7 outputs: action in the reference frame, closing logit.
    """

    frame = "reference"

    def __init__(self, task: type[Task], networks: Mapping[str, MLP]):
        self.task = task
        layout = ObservationLayout.of(task)
        features = [stage_features(layout, task, i) for i in range(len(task.stages))]
        in_order = [networks[stage.name] for stage in task.stages]
        self._networks = StageMLPs(in_order, features, layout.size, layout.slices["stage"])
        self._command = layout.slices["gripper"].start + 1

    @classmethod
    def load(cls, path: str | os.PathLike[str], task: type[Task]) -> SkillPolicy:
        """Read weights written by ``agents/bc.py``.

        Raises:
            WeightsError: the file is missing or damaged, or was made for another task, version or observation.
        """
        layout = ObservationLayout.of(task)
        networks, _ = load_mlps(path, kind="base", task=task.name, version=CARD_VERSION, observation_size=layout.size)
        inputs = {stage.name: len(stage_features(layout, task, i)) for i, stage in enumerate(task.stages)}
        check_networks(path, networks, {name: (size, ACTION_SIZE) for name, size in inputs.items()})
        return cls(task, networks)

    def act(self, observations: Array, env_indices: Indices | None = None) -> Array:
        """The base actions (n, 7), reference frame, not cut to [-1, 1], with the gripper -1 or +1, for (n, size)."""
        return _act(self._networks.checked(observations), *self._networks.packed, self._command)
