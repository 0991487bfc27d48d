"""What deployment needs of the source demonstrations: where their skills start, turn and end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.planning.ik import ArmKinematics
from reinforcegen_envs.poses import invert
from reinforcegen_envs.sim.simulation import CellState
from reinforcegen_envs.tasks.base import Task

GOOD_MARGIN = 0.4  # radians to a joint limit beyond which more does not count


@dataclass(frozen=True)
class Skeleton:
    """Key poses of every source demonstration.

    Args:
        tools: (sources, stages, 3, 4, 4) tool poses in the reference object's frame, metres.
        in_hand: (sources, stages, 4, 4) pose in the hand that the object taken in this stage has when the hand closes.
        left: (sources, stages, 4, 4) pose in the reference object's frame in which the stage leaves its tool.
    """

    tools: np.ndarray
    in_hand: np.ndarray
    left: np.ndarray

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Skeleton:
        """Read a file written by `save`.

        Raises:
            InvalidArgument: no such file, or not one of these.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["tools"], arrays["in_hand"], arrays["left"])
        except Exception as error:  # a damaged archive raises a dozen different ones
            raise InvalidArgument(
                f"{path} is not a complete skeleton file ({error}); make it again with python -m reinforcegen_envs.agents.bc"
            ) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to an ``.npz`` file."""
        with atomic_path(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, tools=self.tools, in_hand=self.in_hand, left=self.left)

    def margins(self, cell: CellState, task: Task, kinematics: ArmKinematics, stage: int) -> np.ndarray:
        """Least joint-limit margin, radians, of what is copied from each source; -1 where that is out of reach.

        That is the stage and those after it, up to one that may copy another source.
        Objects do not move before they are handled, so later stages are judged from where things are now, and from where
        the source leaves what it has handled by then.
        """
        posture = cell.posture.copy()
        margins = np.full(len(self.tools), np.inf)
        for source in range(len(self.tools)):
            in_hand = np.eye(4)
            moved: dict[str, np.ndarray] = {}
            if (held := task.stages[stage].held) is not None:
                in_hand = invert(cell.eef_pose()) @ task.object_pose(cell, held)
            for index in range(stage, len(task.stages)):
                here = task.stages[index]
                if index > stage and here.new_source:
                    break
                reference = moved.get(here.reference)
                if reference is None:
                    reference = task.object_pose(cell, here.reference)
                seed = posture  # the connect is free to choose its branch; within a skill the hand stays on it
                for tool in self.tools[source, index]:
                    goal = reference @ tool @ (invert(in_hand) if here.held else np.eye(4))
                    solution = kinematics.solve(goal, seed, posture)
                    seed = solution.joints
                    margins[source] = min(margins[source], solution.margin if solution.reached else -1.0)
                if margins[source] < 0:
                    break
                if here.held is None:
                    in_hand = self.in_hand[source, index]
                else:
                    moved[here.held] = reference @ self.left[source, index]
        return margins
