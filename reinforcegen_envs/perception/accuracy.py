"""How far what is believed is from what is true, by phase of the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from reinforcegen_envs.perception.vectors import decode, encode, turns_of
from reinforcegen_envs.poses import rotation_angle
from reinforcegen_envs.sim.simulation import CellState
from reinforcegen_envs.tasks.base import Task


class Row(NamedTuple):
    """One control step's errors of one object.

    Args:
        stage: index.
        phase: "connect", "arrived" (the last control step of a connect) or "skill".
        object: index.
        metres, radians: of its believed pose.
    """

    stage: int
    phase: str
    object: int
    metres: float
    radians: float


def errors(truth: CellState, belief: CellState, task: Task) -> list[tuple[float, float]]:
    """Metres and radians by which each object's believed pose is off; poses that look the same count as one."""
    out = []
    for name, body in zip(task.objects, task.bodies, strict=True):
        turns, lowest = turns_of(task.symmetries.get(name))
        position, rotation = truth.data.xpos[body], truth.data.xmat[body].reshape(3, 3)
        true, yaw = decode(encode(position, rotation, turns), turns, lowest, np.nan)
        believed_position, believed_rotation = belief.data.xpos[body], belief.data.xmat[body].reshape(3, 3)
        # Of the poses that look like the believed one, the nearest to the true one.
        last_yaw = yaw if turns > 1 else np.nan
        believed, _ = decode(encode(believed_position, believed_rotation, turns), turns, lowest, last_yaw)
        metres = float(np.linalg.norm(position - believed_position))
        out.append((metres, float(rotation_angle(true, believed))))
    return out


def summarise(rows: Sequence[Row], task: type[Task]) -> list[dict[str, Any]]:
    """Median and 95th percentile by stage, phase and object: millimetres and degrees."""
    out = []
    keys = sorted({(row.stage, row.phase, row.object) for row in rows})
    for stage, phase, number in keys:
        mine = [
            (row.metres, row.radians) for row in rows if (row.stage, row.phase, row.object) == (stage, phase, number)
        ]
        metres, radians = np.array(mine).T
        out.append({
            "stage": task.stages[stage].name,
            "phase": phase,
            "object": task.objects[number],
            "steps": len(mine),
            "mm": round(float(np.median(metres)) * 1e3, 2),
            "mm_p95": round(float(np.percentile(metres, 95)) * 1e3, 2),
            "degrees": round(float(np.degrees(np.median(radians))), 2),
            "degrees_p95": round(float(np.degrees(np.percentile(radians, 95))), 2),
        })  # fmt: skip
    return out
