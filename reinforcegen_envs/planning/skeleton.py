"""What deployment needs of the source demonstrations: where their skills start, turn and end."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.planning.ik import ArmKinematics
from reinforcegen_envs.poses import invert
from reinforcegen_envs.sim.simulation import CellState
from reinforcegen_envs.tasks.base import Task, source_run
from reinforcegen_envs.typing import Array, Flags, Integers

UNKNOWN_LENGTH = 10**6  # control steps: longer than any skill's horizon
GOOD_MARGIN = 0.4  # radians to a joint limit beyond which more does not count


@dataclass(frozen=True)
class Skeleton:
    """Key poses of every source demonstration.

    Args:
        tools: (sources, stages, 3, 4, 4) tool poses in the reference object's frame, metres.
        in_hand: (sources, stages, 4, 4) pose in the hand that the object taken in this stage has when the hand closes.
        left: (sources, stages, 4, 4) pose in the reference object's frame in which the stage leaves its tool.
        freed: (sources, stages, 4, 4) tool pose in the reference object's frame when the hand is clear of what it has let go of,
            thought of as still in the hand.
        lengths: (sources, stages) control steps of the skill, without pauses.
    """

    tools: Array
    in_hand: Array
    left: Array
    freed: Array
    lengths: Integers

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Skeleton:
        """Read a file written by `save`.

        Raises:
            InvalidArgument: no such file, or not one of these.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                tools = arrays["tools"]
                # Files of before lack the last two: where a skill ends the hand is clear as well; how long one takes is unknown.
                freed = arrays["freed"] if "freed" in arrays else tools[:, :, 2]
                lengths = arrays["lengths"] if "lengths" in arrays else np.full(tools.shape[:2], UNKNOWN_LENGTH)
                return cls(tools, arrays["in_hand"], arrays["left"], freed, lengths)
        except Exception as error:  # a damaged archive raises a dozen different ones
            raise InvalidArgument(
                f"{path} is not a complete skeleton file ({error}); make it again with python -m reinforcegen_envs.agents.bc"
            ) from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to an ``.npz`` file."""
        with atomic_path(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @cached_property
    def _kinds(self) -> NDArray[np.int64]:
        """(sources, stages): sources that show a stage alike, to the last bit, have the same number there."""
        count, stages = self.tools.shape[:2]
        kinds = np.empty((count, stages), np.int64)
        for stage in range(stages):
            parts = (self.tools[:, stage], self.in_hand[:, stage], self.left[:, stage])
            rows = np.concatenate([part.reshape(count, -1) for part in parts], axis=1)
            numbers: dict[bytes, int] = {}
            kinds[:, stage] = [numbers.setdefault(row.tobytes(), len(numbers)) for row in rows]
        return kinds

    def alike(self, source: int, task: Task, stage: int) -> Flags:
        """(sources,) which sources show what one shows of the stages that led to this one, back to one with ``new_source``.

        What is in the hand after this source's grasp, theirs would have put there too.
        """
        first = source_run(task.stages, stage).start
        return (self._kinds[:, first:stage] == self._kinds[source, first:stage]).all(axis=1)

    def margins(self, cell: CellState, task: Task, kinematics: ArmKinematics, stage: int) -> Array:
        """Least joint-limit margin, radians, of what is copied from each source; -1 where that is out of reach.

        That is the stage and those after it, up to one that may copy another source.
        Objects do not move before they are handled, so later stages are judged from where things are now, and from where
        the source leaves what it has handled by then. What several sources show alike is judged once.
        """
        kinematics.follow(cell)  # else the last bits would depend on what was planned before
        posture = cell.posture.copy()
        in_hand = np.eye(4)
        if (held := task.stages[stage].held) is not None:
            in_hand = invert(cell.eef_pose()) @ task.object_pose(cell, held)
        margins = np.full(len(self.tools), np.inf)
        end = source_run(task.stages, stage).stop
        # What led to a stage -> whether it is within reach, and the margin, what is in the hand and what was moved then.
        judged: dict[tuple[int, ...], tuple[float, Array, dict[str, Array]]] = {(): (np.inf, in_hand, {})}
        for source, kinds in enumerate(self._kinds[:, stage:end].tolist()):
            before = ()
            for index in range(stage, end):
                path = (*before, kinds[index - stage])
                if path not in judged:
                    judged[path] = self._judge(source, index, judged[before], cell, task, kinematics, posture)
                margins[source] = judged[path][0]
                if margins[source] < 0:
                    break
                before = path
        return margins

    def _judge(
        self,
        source: int,
        index: int,
        before: tuple[float, Array, dict[str, Array]],
        cell: CellState,
        task: Task,
        kinematics: ArmKinematics,
        posture: Array,
    ) -> tuple[float, Array, dict[str, Array]]:
        """Margin, object in the hand and moved objects after a stage, given those before it; the margin is -1 out of reach."""
        margin, in_hand, moved = before
        here = task.stages[index]
        reference = moved.get(here.reference)
        if reference is None:
            reference = task.object_pose(cell, here.reference)
        seed = posture  # the connect is free to choose its branch; within a skill the hand stays on it
        to_hand = invert(in_hand) if here.held else np.eye(4)
        for tool in self.tools[source, index]:
            solution = kinematics.solve(reference @ tool @ to_hand, seed, posture)
            if not solution.reached:
                return -1.0, in_hand, moved
            seed = solution.joints
            margin = min(margin, solution.margin)
        if here.held is None:
            return margin, self.in_hand[source, index], moved
        return margin, in_hand, {**moved, here.held: reference @ self.left[source, index]}
