"""State observations: everything in the frame of the current stage's reference object, so that D2 looks like D0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np

from reinforcegen_envs.sim.kernel import ARM_DOF, GRIPPER, arm_jacobian
from reinforcegen_envs.sim.simulation import FINGER_STROKE

ROT6D = 6  # first two columns of a rotation matrix, one after the other
ACTION_SIZE = 7


@dataclass(frozen=True)
class Entry:
    """Some consecutive numbers of an observation.

    Args:
        name: "world" or "ref" at its end names the frame; "ref" is the current stage's reference object.
        size: how many numbers.
        unit: of them; "" for numbers without one.
        frame: "world", "reference object", or "" for numbers without a frame.
        text: what they are.
    """

    name: str
    size: int
    unit: str
    frame: str
    text: str


def _pose_entries(name: str, suffix: str, frame: str, text: str) -> list[Entry]:
    return [
        Entry(f"{name}_pos_{suffix}", 3, "m", frame, f"position of {text}"),
        Entry(f"{name}_rot6d_{suffix}", ROT6D, "", frame, f"orientation of {text}: first two columns of the matrix"),
    ]


class ObservationLayout:
    """Names, sizes and slices of a flat observation.

    Args:
        objects: object names, in order.
        stages: number of stages.
        joints: number of observed joints of objects.
        base_action: whether the base policy's action follows at the end.
    """

    def __init__(self, objects: Sequence[str], stages: int, joints: int = 0, base_action: bool = False):
        ref = "reference object"
        self.entries = _pose_entries("eef", "in_ref", ref, "the grip site")
        self.entries.append(Entry("gripper", 2, "", "", "opening (0 closed, 1 open); last command (-1 open, 1 closed)"))
        for name in objects:
            self.entries += _pose_entries(name, "in_ref", ref, name)
        self.entries += _pose_entries("ref", "world", "world", "the reference object")
        self.entries.append(
            Entry("eef_vel_in_ref", 6, "m/s, rad/s", ref, "linear and angular velocity of the grip site")
        )
        if joints:
            self.entries.append(Entry("joints", joints, "rad or m", "", "positions of the objects' joints"))
        self.entries.append(Entry("stage", stages, "", "", "current stage, one-hot"))
        if base_action:
            self.entries.append(Entry("base_action", ACTION_SIZE, "", ref, "the base policy's action"))
        self.objects = tuple(objects)
        self.slices: dict[str, slice] = {}
        position = 0
        for entry in self.entries:
            self.slices[entry.name] = slice(position, position + entry.size)
            position += entry.size
        self.size = position

    @property
    def names(self) -> list[str]:
        """One name a number, for tables and plots."""
        return [f"{name}[{i}]" for name, part in self.slices.items() for i in range(part.stop - part.start)]

    @classmethod
    def of(cls, task, base_action: bool = False) -> ObservationLayout:
        """The layout of a task (class or instance)."""
        return cls(task.objects, len(task.stages), len(task.joints), base_action)

    def indices(self, *names: str) -> np.ndarray:
        """Indices of the numbers of some entries, in the order named."""
        return np.concatenate([np.arange(self.slices[name].start, self.slices[name].stop) for name in names])


@numba.njit(cache=True)
def _relative(out, start, reference, reference_position, rotation, position):
    """Write a pose's position and rot6d in a reference frame; rotations are flat, row-major."""
    for i in range(3):
        value = 0.0
        for k in range(3):
            value += reference[3 * k + i] * (position[k] - reference_position[k])
        out[start + i] = value
    for column in range(2):
        for i in range(3):
            value = 0.0
            for k in range(3):
                value += reference[3 * k + i] * rotation[3 * k + column]
            out[start + 3 + 3 * column + i] = value


@numba.njit(cache=True)
def fill_state(out, views, xpos, xmat, ids, finger_qpos, controller, bodies, reference_body, joint_qpos, stage, stages):
    """Write the observation without base action into ``out`` (float32), in the order of `ObservationLayout`."""
    qpos, qvel = views[0], views[1]
    site_position, site_rotation = views[4][ids[2]], views[5][ids[2]]
    reference, origin = xmat[reference_body], xpos[reference_body]
    _relative(out, 0, reference, origin, site_rotation, site_position)
    out[9] = (qpos[finger_qpos[0]] - qpos[finger_qpos[1]]) / FINGER_STROKE
    out[10] = controller[GRIPPER]
    position = 11
    for body in bodies:
        _relative(out, position, reference, origin, xmat[body], xpos[body])
        position += 9
    for i in range(3):
        out[position + i] = origin[i]
        out[position + 3 + i] = reference[3 * i]
        out[position + 6 + i] = reference[3 * i + 1]
    position += 9
    jacobian = np.empty((6, ARM_DOF))
    arm_jacobian(views[6], views[7], ids[0], site_position, jacobian)
    velocity = np.zeros(6)
    for i in range(6):
        for j in range(ARM_DOF):
            velocity[i] += jacobian[i, j] * qvel[ids[1] + j]
    for part in range(2):
        for i in range(3):
            value = 0.0
            for k in range(3):
                value += reference[3 * k + i] * velocity[3 * part + k]
            out[position + 3 * part + i] = value
    position += 6
    for address in joint_qpos:
        out[position] = qpos[address]
        position += 1
    for i in range(stages):
        out[position + i] = 1.0 if i == stage else 0.0
    return position + stages


@numba.njit(cache=True)
def rotate_action(action, rot6d, inverse):
    """Turn an action's position and rotation parts between reference and world frame.

    Args:
        action: (7,).
        rot6d: (6,) first two columns of the reference frame's rotation in the world.
        inverse: False: from the reference frame to the world; True: back.

    Returns:
        (7,) float64; the gripper part is copied.
    """
    matrix = np.empty((3, 3))
    for i in range(3):
        matrix[i, 0] = rot6d[i]
        matrix[i, 1] = rot6d[3 + i]
    matrix[0, 2] = matrix[1, 0] * matrix[2, 1] - matrix[2, 0] * matrix[1, 1]
    matrix[1, 2] = matrix[2, 0] * matrix[0, 1] - matrix[0, 0] * matrix[2, 1]
    matrix[2, 2] = matrix[0, 0] * matrix[1, 1] - matrix[1, 0] * matrix[0, 1]
    out = np.empty(7)
    for part in range(2):
        for i in range(3):
            value = 0.0
            for k in range(3):
                value += (matrix[k, i] if inverse else matrix[i, k]) * action[3 * part + k]
            out[3 * part + i] = value
    out[6] = action[6]
    return out
