"""When a connect is planned anew: the goal is believed to be elsewhere, by more than what is not known of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from reinforcegen_envs.engine import Engine
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.poses import distance
from reinforcegen_envs.typing import Array


class Replanning(NamedTuple):
    """By how much a goal must have moved for a new plan.

    By more than ``metres`` or ``radians``, and by more than ``deviations`` standard deviations of where it is believed to be now:
    a goal that is hardly known moves with every picture. Ours; from 2 deviations on, hands follow pushed objects too late
    (benchmarks/paper/results/replanning_thresholds.csv).
    """

    metres: float = 0.01
    radians: float = 0.1
    deviations: float = 0.5

    def due(self, engine: Engine, planned: Array, goal: Array) -> bool:
        """Whether to plan anew.

        Args:
            engine: whose current stage the goal is of.
            planned: 4x4 grip-site pose, world, that the hand is on its way to.
            goal: 4x4, where it is believed to be now.
        """
        metres, radians = distance(planned, goal)
        if metres <= self.metres and radians <= self.radians:
            return False  # whatever is known of it
        least_metres, least_radians = (self.deviations * doubt for doubt in goal_doubt(engine, goal))
        return metres > max(self.metres, least_metres) or radians > max(self.radians, least_radians)


def goal_doubt(engine: Engine, goal: Array) -> tuple[float, float]:
    """Standard deviations of where a connect's goal is, metres and radians.

    What is not known of the reference object's rotation moves the goal by the lever between them; what is not known of how the
    object lies in the hand, by the lever between the two.
    """
    task, stage = engine.task, engine.task.stages[engine.stage]
    pairs = [(stage.reference, goal)]
    if stage.held is not None:
        pairs.append((stage.held, engine.belief.eef_pose()))
    squares = np.zeros(2)
    for name, end in pairs:
        metres, radians = engine.perception.doubt(engine.belief, task, name)
        lever = distance(task.object_pose(engine.belief, name), end)[0]
        squares += metres**2 + (lever * radians) ** 2, radians**2
    metres, radians = np.sqrt(squares)
    return float(metres), float(radians)


def checked_replan(replan: Any) -> Replanning | None:
    """``replan`` as thresholds; None: never.

    Raises:
        InvalidArgument: it is neither True, False, None nor three finite numbers of at least 0.
    """
    if replan is None or isinstance(replan, bool):
        return Replanning() if replan else None
    try:
        past = [] if isinstance(replan, str) else [float(part) for part in replan]
    except (TypeError, ValueError):
        past = []
    if len(past) == len(Replanning._fields) and all(0.0 <= part < np.inf for part in past):
        return Replanning(*past)
    raise InvalidArgument(
        f"replan {replan!r} must be True, False or (metres, radians, standard deviations), each at least 0"
    )
