"""How far what is believed is from what is true, by phase of the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from reinforcegen_envs.engine import Engine
from reinforcegen_envs.perception.vectors import decode, encode, turns_of
from reinforcegen_envs.poses import matrix_from, rotation_angle
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


def errors(engine: Engine) -> list[tuple[float, float]]:
    """Metres and radians by which each object's believed pose is off; poses that look the same count as one."""
    out = []
    task = engine.task
    for name, body in zip(task.objects, task.bodies, strict=True):
        turns, lowest = turns_of(task.symmetries.get(name))
        poses = []
        for cell in (engine.sim, engine.belief):
            position, rotation = cell.data.xpos[body], cell.data.xmat[body].reshape(3, 3)
            vectors = encode(position, rotation, turns)
            # The believed yaw goes the same way, so both are taken from where yaws begin: the nearest of those that look alike.
            poses.append((position, decode(vectors, turns, lowest, np.nan)[0], vectors))
        (true_position, true_rotation, _), (position, _, vectors) = poses
        yaw = float(np.arctan2(true_rotation[1, 0], true_rotation[0, 0])) if turns > 1 else np.nan
        believed = decode(vectors, turns, lowest, yaw)[0]
        angle = rotation_angle(matrix_from(true_rotation, position), matrix_from(believed, position))
        out.append((float(np.linalg.norm(true_position - position)), angle))
    return out


class Accuracy:
    """Keeps the errors of an engine's belief at every control step, until they are `taken`.

    Args:
        engine: what is played in.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self._rows: list[Row] = []
        self._connecting = False
        engine.events.subscribe("connect_begun", lambda *_: self._set(True))
        engine.events.subscribe("connect_ended", lambda *_: self._arrived())
        engine.events.subscribe("control_step", lambda: self._keep("connect" if self._connecting else "skill"))

    def _set(self, connecting: bool) -> None:
        self._connecting = connecting

    def _arrived(self) -> None:
        self._set(False)
        self._keep("arrived")

    def _keep(self, phase: str) -> None:
        self._rows += [Row(self._engine.stage, phase, n, *error) for n, error in enumerate(errors(self._engine))]

    def taken(self) -> list[Row]:
        """What was kept, which is then forgotten."""
        rows, self._rows = self._rows, []
        return rows


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
