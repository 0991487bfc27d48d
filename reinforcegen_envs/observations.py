"""What agents are given: the state, in the frame of the current stage's reference object, so that D2 looks like D0; beside
pictures, what the robot knows of itself, in the world frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium as gym
import numba
import numpy as np

from reinforcegen_envs.sim.kernel import ARM_DOF, GRIPPER, arm_jacobian
from reinforcegen_envs.sim.simulation import FINGER_STROKE
from reinforcegen_envs.sim.views import Indices, Views
from reinforcegen_envs.tasks.base import Task
from reinforcegen_envs.typing import Array, Integers, Observations

ROT6D = 6  # first two columns of a rotation matrix, one after the other
ACTION_SIZE = 7
# Bounds of the observation space (ours). Numbers are cut to them, so they leave room for whatever happens in the cell;
# wrappers that scale by them (RescaleObservation) need finite ones.
REACH = 5.0  # metres
UNIT = 1.001  # rounding may carry the numbers of a unit vector past 1
OPENING = 1.5
SPEED = 20.0  # m/s, rad/s
JOINT = 10.0  # rad or m
ROTATED = 2.0  # a unit cube's corner, in any frame, is nearer than this


@dataclass(frozen=True)
class Term:
    """Some consecutive numbers of an observation.

    Args:
        name: "world" or "ref" at its end names the frame; "ref" is the current stage's reference object.
        size: how many numbers; the term's shape is (size,), its type float32.
        unit: of them; "" for numbers without one.
        frame: "world", "reference object", or "" for numbers without a frame.
        text: what they are.
        low, high: bounds of every number.
    """

    name: str
    size: int
    unit: str
    frame: str
    text: str
    low: float
    high: float

    @property
    def space(self) -> gym.spaces.Box:
        """The term as a space of its own."""
        return gym.spaces.Box(self.low, self.high, (self.size,), np.float32)


def _pose_terms(name: str, suffix: str, frame: str, text: str) -> list[Term]:
    columns = f"orientation of {text}: first two columns of the matrix"
    return [
        Term(f"{name}_pos_{suffix}", 3, "m", frame, f"position of {text}", -REACH, REACH),
        Term(f"{name}_rot6d_{suffix}", ROT6D, "", frame, columns, -UNIT, UNIT),
    ]


class Offsets(NamedTuple):
    """Where `fill_state` writes: index of the first number of a term."""

    eef_pos: int
    eef_rot6d: int
    gripper: int
    ref_pos: int
    ref_rot6d: int
    velocity: int
    joints: int
    stage: int


def _gripper_term() -> Term:
    text = "opening (0 closed, 1 open); last command (-1 open, 1 closed)"
    return Term("gripper", 2, "", "", text, -OPENING, OPENING)


def _velocity_term(name: str, frame: str) -> Term:
    return Term(name, 6, "m/s, rad/s", frame, "linear and angular velocity of the grip site", -SPEED, SPEED)


def _stage_term(stages: int) -> Term:
    return Term("stage", stages, "", "", "current stage, one-hot", 0.0, 1.0)


def base_action_term(frame: str) -> Term:
    """The base policy's action, in the frame "reference object" or "world", where it is cut to [-1, 1]."""
    limit = 1.0 if frame == "world" else ROTATED
    return Term("base_action", ACTION_SIZE, "", frame, "the base policy's action", -limit, limit)


class Layout:
    """Names, bounds and places of terms that make one flat vector.

    Args:
        terms: in order.

    Attributes:
        slices: term name -> where in the vector its numbers are.
        size: how many numbers there are.
        bounds: (size, 2) lowest and highest of each, float32.
    """

    def __init__(self, terms: Sequence[Term]):
        self.terms = list(terms)
        self.slices: dict[str, slice] = {}
        position = 0
        for term in self.terms:
            self.slices[term.name] = slice(position, position + term.size)
            position += term.size
        self.size = position
        self.bounds = np.array([[term.low, term.high] for term in self.terms for _ in range(term.size)], np.float32)

    def __repr__(self) -> str:
        terms = ", ".join(f"{term.name}[{term.size}]" for term in self.terms)
        return f"<{type(self).__name__} of {self.size} numbers: {terms}; see names, slices and bounds>"

    @property
    def names(self) -> list[str]:
        """One name a number, for tables and plots."""
        return [f"{term.name}[{i}]" for term in self.terms for i in range(term.size)]

    def indices(self, *names: str) -> Integers:
        """Indices of the numbers of some terms, in the order named."""
        return np.concatenate([np.arange(self.slices[name].start, self.slices[name].stop) for name in names])

    @property
    def flat_space(self) -> gym.spaces.Box:
        """The space of flat observations, (size,) float32."""
        return gym.spaces.Box(self.bounds[:, 0], self.bounds[:, 1], dtype=np.float32)

    @property
    def dict_space(self) -> gym.spaces.Dict:
        """The space of observations as a dictionary, one entry a term."""
        return gym.spaces.Dict({term.name: term.space for term in self.terms})

    def split(self, observation: Observations) -> dict[str, Observations]:
        """A flat observation as a dictionary, one copy a term."""
        return {name: observation[part].copy() for name, part in self.slices.items()}


class ProprioLayout(Layout):
    """What the robot knows of itself, and nothing of objects: beside pictures.

    Args:
        stages: number of stages.
    """

    def __init__(self, stages: int):
        super().__init__(
            [
                Term("joint_pos", ARM_DOF, "rad", "", "positions of the arm's joints", -JOINT, JOINT),
                Term("joint_vel", ARM_DOF, "rad/s", "", "velocities of the arm's joints", -SPEED, SPEED),
                *_pose_terms("eef", "world", "world", "the grip site"),
                _velocity_term("eef_vel_world", "world"),
                _gripper_term(),
                _stage_term(stages),
            ]
        )


class ObservationLayout(Layout):
    """Names, bounds and places of the terms of a flat observation of the state.

    Args:
        objects: object names, in order.
        stages: number of stages.
        joints: number of observed joints of objects.
        base_action: whether the base policy's action follows at the end.
        base_frame: its frame, "reference object" or "world".
    """

    def __init__(
        self,
        objects: Sequence[str],
        stages: int,
        joints: int = 0,
        base_action: bool = False,
        base_frame: str = "reference object",
    ):
        ref = "reference object"
        terms = _pose_terms("eef", "in_ref", ref, "the grip site")
        terms.append(_gripper_term())
        for name in objects:
            terms += _pose_terms(name, "in_ref", ref, name)
        terms += _pose_terms("ref", "world", "world", "the reference object")
        terms.append(_velocity_term("eef_vel_in_ref", ref))
        if joints:
            text = "positions of the objects' joints"
            terms.append(Term("joints", joints, "rad or m", "", text, -JOINT, JOINT))
        terms.append(_stage_term(stages))
        if base_action:
            terms.append(base_action_term(base_frame))
        super().__init__(terms)
        self.objects = tuple(objects)

        def begin(name: str) -> int:
            return self.slices[name].start if name in self.slices else 0

        self.offsets = Offsets(
            eef_pos=begin("eef_pos_in_ref"),
            eef_rot6d=begin("eef_rot6d_in_ref"),
            gripper=begin("gripper"),
            ref_pos=begin("ref_pos_world"),
            ref_rot6d=begin("ref_rot6d_world"),
            velocity=begin("eef_vel_in_ref"),
            joints=begin("joints"),
            stage=begin("stage"),
        )
        # (objects, 2): the same for the position and the orientation of every object.
        self.object_offsets = np.array(
            [[begin(f"{name}_{part}_in_ref") for part in ("pos", "rot6d")] for name in objects], np.int64
        )

    @classmethod
    def of(
        cls, task: Task | type[Task], base_action: bool = False, base_frame: str = "reference object"
    ) -> ObservationLayout:
        """The layout of a task (class or instance)."""
        return cls(task.objects, len(task.stages), len(task.joints), base_action, base_frame)


@numba.njit(cache=True)
def _relative(out, pos, rot6d, reference, reference_position, rotation, position):
    """Write a pose's position and rot6d in a reference frame; rotations are flat, row-major."""
    for i in range(3):
        value = 0.0
        for k in range(3):
            value += reference[3 * k + i] * (position[k] - reference_position[k])
        out[pos + i] = value
    for column in range(2):
        for i in range(3):
            value = 0.0
            for k in range(3):
                value += reference[3 * k + i] * rotation[3 * k + column]
            out[rot6d + 3 * column + i] = value


@numba.njit(cache=True)
def fill_state(
    out: Observations,
    offsets: tuple[Any, ...],
    objects: Integers,
    bounds: Observations,
    arrays: tuple[Any, ...],
    indices: tuple[Any, ...],
    xpos: Array,
    xmat: Array,
    finger_qpos: Integers,
    controller: Array,
    bodies: Integers,
    reference: int,
    joints: Integers,
    stage: int,
) -> None:
    """Write the observation without base action into ``out``, (layout.size,) float32 zeros.

    Args:
        out: the observation.
        offsets, objects, bounds: `Offsets` of the layout as a plain tuple, its object_offsets, its bounds.
        arrays, indices: `Views` and `Indices` of what is believed of the cell, as plain tuples.
        xpos, xmat: (bodies, 3) and (bodies, 9), world frame.
        finger_qpos: (2,) addresses of the fingers in qpos.
        controller: controller state.
        bodies: (objects,) body indices.
        reference: body index of the reference object.
        joints: (joints,) addresses of the objects' joints in qpos.
        stage: index of the current stage.
    """
    at, views, ids = Offsets(*offsets), Views(*arrays), Indices(*indices)
    qpos, qvel = views.qpos, views.qvel
    site_position = views.site_xpos[ids.grip_site]
    frame, origin = xmat[reference], xpos[reference]
    _relative(out, at.eef_pos, at.eef_rot6d, frame, origin, views.site_xmat[ids.grip_site], site_position)
    out[at.gripper] = (qpos[finger_qpos[0]] - qpos[finger_qpos[1]]) / FINGER_STROKE
    out[at.gripper + 1] = controller[GRIPPER]
    for n in range(bodies.shape[0]):
        _relative(out, objects[n, 0], objects[n, 1], frame, origin, xmat[bodies[n]], xpos[bodies[n]])
    for i in range(3):
        out[at.ref_pos + i] = origin[i]
        out[at.ref_rot6d + i] = frame[3 * i]
        out[at.ref_rot6d + 3 + i] = frame[3 * i + 1]
    jacobian = np.empty((6, ARM_DOF))
    arm_jacobian(views.xaxis, views.xanchor, ids.joint, site_position, jacobian)
    velocity = np.zeros(6)
    for i in range(6):
        for j in range(ARM_DOF):
            velocity[i] += jacobian[i, j] * qvel[ids.dof + j]
    for part in range(2):
        for i in range(3):
            value = 0.0
            for k in range(3):
                value += frame[3 * k + i] * velocity[3 * part + k]
            out[at.velocity + 3 * part + i] = value
    for n in range(joints.shape[0]):
        out[at.joints + n] = qpos[joints[n]]
    out[at.stage + stage] = 1.0
    for i in range(out.shape[0]):
        out[i] = min(max(out[i], bounds[i, 0]), bounds[i, 1])


@numba.njit(cache=True)
def fill_proprio(
    out: Observations,
    bounds: Observations,
    arrays: tuple[Any, ...],
    indices: tuple[Any, ...],
    finger_qpos: Integers,
    controller: Array,
    stage: int,
) -> None:
    """Write what the robot knows of itself into ``out``, (`ProprioLayout`.size,) float32 zeros, in that layout's order.

    Args:
        out, bounds: the vector, and its layout's bounds.
        arrays, indices: `Views` and `Indices` of the simulation, as plain tuples.
        finger_qpos: (2,) addresses of the fingers in qpos.
        controller: controller state.
        stage: index of the current stage.
    """
    views, ids = Views(*arrays), Indices(*indices)
    qpos, qvel = views.qpos, views.qvel
    position, frame = views.site_xpos[ids.grip_site], views.site_xmat[ids.grip_site]
    jacobian = np.empty((6, ARM_DOF))
    arm_jacobian(views.xaxis, views.xanchor, ids.joint, position, jacobian)
    at = 2 * ARM_DOF
    for j in range(ARM_DOF):
        out[j] = qpos[ids.qpos + j]
        out[ARM_DOF + j] = qvel[ids.dof + j]
    for i in range(3):
        out[at + i] = position[i]
        out[at + 3 + i] = frame[3 * i]
        out[at + 6 + i] = frame[3 * i + 1]
    at += 3 + ROT6D
    for i in range(6):
        for j in range(ARM_DOF):
            out[at + i] += jacobian[i, j] * qvel[ids.dof + j]
    at += 6
    out[at] = (qpos[finger_qpos[0]] - qpos[finger_qpos[1]]) / FINGER_STROKE
    out[at + 1] = controller[GRIPPER]
    out[at + 2 + stage] = 1.0
    for i in range(out.shape[0]):
        out[i] = min(max(out[i], bounds[i, 0]), bounds[i, 1])


@numba.njit(cache=True)
def to_world(action: Array, rot6d: Array) -> Array:
    """Turn an action's position and rotation parts from a reference frame to the world.

    Args:
        action: (7,).
        rot6d: (6,) first two columns of the reference frame's rotation in the world.

    Returns:
        (7,) float64; the gripper part is copied.
    """
    return _rotate(action, _matrix(rot6d))


@numba.njit(cache=True)
def to_reference(action: Array, rot6d: Array) -> Array:
    """Turn an action's position and rotation parts from the world to a reference frame; see `to_world`."""
    return _rotate(action, _matrix(rot6d).T)


@numba.njit(cache=True)
def _matrix(rot6d: Array) -> Array:
    """The rotation matrix (3, 3) whose first two columns these are."""
    matrix = np.empty((3, 3))
    for i in range(3):
        matrix[i, 0] = rot6d[i]
        matrix[i, 1] = rot6d[3 + i]
    matrix[0, 2] = matrix[1, 0] * matrix[2, 1] - matrix[2, 0] * matrix[1, 1]
    matrix[1, 2] = matrix[2, 0] * matrix[0, 1] - matrix[0, 0] * matrix[2, 1]
    matrix[2, 2] = matrix[0, 0] * matrix[1, 1] - matrix[1, 0] * matrix[0, 1]
    return matrix


@numba.njit(cache=True)
def _rotate(action: Array, matrix: Array) -> Array:
    out = np.empty(7)
    for part in range(2):
        for i in range(3):
            value = 0.0
            for k in range(3):
                value += matrix[i, k] * action[3 * part + k]
            out[3 * part + i] = value
    out[6] = action[6]
    return out
