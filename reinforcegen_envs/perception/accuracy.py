"""How far what is believed is from what is true, by phase of the task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from reinforcegen_envs.perception import fusion
from reinforcegen_envs.perception.camera import Carriers, joint_ranges
from reinforcegen_envs.perception.vectors import decode, encode, turns_of
from reinforcegen_envs.poses import matrix_to_rotvec, rotation_angle
from reinforcegen_envs.sim.kernel import GRIPPER
from reinforcegen_envs.sim.simulation import CellState, Simulation
from reinforcegen_envs.tasks.base import Task
from reinforcegen_envs.typing import Array


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


def apart(truth: CellState, belief: CellState, task: Task) -> list[tuple[Array, Array]]:
    """By how much each object's believed pose is off, world frame; poses that look the same count as one.

    Returns:
        an object: (3,) metres that were added to its position, and (3, 3) the rotation that was put before its own.
    """
    out = []
    for name, body in zip(task.objects, task.bodies, strict=True):
        turns, lowest = turns_of(task.symmetries.get(name))
        position, rotation = truth.data.xpos[body], truth.data.xmat[body].reshape(3, 3)
        true, yaw = decode(encode(position, rotation, turns), turns, lowest, np.nan)
        believed_position, believed_rotation = belief.data.xpos[body], belief.data.xmat[body].reshape(3, 3)
        # Of the poses that look like the believed one, the nearest to the true one.
        last_yaw = yaw if turns > 1 else np.nan
        believed, _ = decode(encode(believed_position, believed_rotation, turns), turns, lowest, last_yaw)
        out.append((believed_position - position, believed @ true.T))
    return out


def errors(truth: CellState, belief: CellState, task: Task) -> list[tuple[float, float]]:
    """Metres and radians by which each object's believed pose is off; see `apart`."""
    off = apart(truth, belief, task)
    return [(float(np.linalg.norm(moved)), float(rotation_angle(np.eye(3), turned))) for moved, turned in off]


def offsets(truth: Simulation, belief: CellState, task: Task, stage: int) -> Array:
    """Errors of a belief as `camera_errors` models them: see `Track`."""
    carriers = Carriers(task).of(stage, float(truth.controller[GRIPPER]), truth.gripper_opening())
    hand = truth.data.site_xmat[truth.grip_site].reshape(3, 3)
    _, span = joint_ranges(truth.model, task)
    parts = []
    for carrier, (moved, turned) in zip(carriers, apart(truth, belief, task), strict=True):
        frame = hand if carrier == fusion.HAND else np.eye(3)
        parts += [frame.T @ moved, frame.T @ matrix_to_rotvec(turned)]
    parts.append((belief.data.qpos[task.joint_qpos] - truth.data.qpos[task.joint_qpos]) / span)
    return np.concatenate(parts)


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
