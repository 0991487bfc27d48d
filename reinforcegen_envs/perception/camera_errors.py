"""A camera's errors without pictures: a model of them, fitted to those of episodes that were played from cameras.

Policies learn under it what they will meet with the estimator, at the speed of plain physics. Per stage and object an error has
a *lasting* part, drawn anew when a stage begins, and a *passing* part that wanders about it, both normal; errors are kept
in the frame of what carries the object, world or hand (see `fusion`). And what is pushed is believed to be where it was, until
enough pictures have said otherwise: policies must not feel their way by how an object gives.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.perception import fusion
from reinforcegen_envs.perception.base import Belief, Perception
from reinforcegen_envs.perception.camera import FALLING, Grip, joint_ranges
from reinforcegen_envs.perception.errors import write_off
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.policy import Memory
from reinforcegen_envs.policies.weights_file import WeightsError
from reinforcegen_envs.poses import from_pose7, matrix_to_rotvec, rotvec_to_matrix
from reinforcegen_envs.sim.simulation import CellState, Simulation
from reinforcegen_envs.tasks.base import Task
from reinforcegen_envs.typing import Array

FORMAT = "reinforcegen-camera-errors-1"
# Part of the skills, those with the smallest errors, that the model is of: gross mistakes, and objects that slide in the fingers
# because of one, are no noise, and nothing is learned under them (with 0.95, Nut Assembly's insertion went from 0.84 to 0.63).
KEPT = 0.8
# Metres and radians, ours, that an object has moved away from where it is believed to be beyond which that is surprising.
SURPRISING = (0.015, 0.1)
PER_OBJECT = 6  # numbers of an object's error: metres along, and radians about, its carrier's axes


class Track(NamedTuple):
    """The errors of one skill, as it was played.

    Args:
        stage: index.
        errors: (steps, numbers): `PER_OBJECT` an object, then one a joint, as a part of its range.
    """

    stage: int
    errors: Array


class ErrorModel(NamedTuple):
    """How wrong beliefs are.

    Args:
        lasting, passing: (stages, numbers) standard deviations of both parts; numbers as in `Track`.
        memory: correlation of the passing part with itself one control step later.
    """

    lasting: Array
    passing: Array
    memory: float


def fit(tracks: Sequence[Track], stages: int, kept: float = KEPT) -> ErrorModel:
    """The model of some skills' errors.

    Args:
        tracks: of many episodes, each of at least two control steps.
        stages: of the task. One that no track is of has the largest errors of the others.
        kept: of every stage and object, the part of the tracks with the smallest errors that counts.

    Raises:
        InvalidArgument: there are no tracks.
    """
    if not tracks:
        raise InvalidArgument("there are no errors to fit a model to: in no episode a skill was reached")
    numbers = tracks[0].errors.shape[1]
    lasting, passing = np.full((stages, numbers), np.nan), np.full((stages, numbers), np.nan)
    now, after = 0.0, 0.0
    for stage in range(stages):
        mine = [track.errors for track in tracks if track.stage == stage]
        if not mine:
            continue
        means = np.array([errors.mean(axis=0) for errors in mine])
        within = np.array([errors.var(axis=0) for errors in mine])
        for number in range(numbers):
            size = means[:, number] ** 2 + within[:, number]
            used = size <= np.quantile(size, kept)
            lasting[stage, number] = np.sqrt(np.mean(means[used, number] ** 2))
            passing[stage, number] = np.sqrt(np.mean(within[used, number]))
        for errors, mean, variance in zip(mine, means, within, strict=True):
            away = (errors - mean) / np.sqrt(np.maximum(variance, 1e-12))
            now += float(np.sum(away[:-1] ** 2))
            after += float(np.sum(away[:-1] * away[1:]))
    unknown = np.isnan(lasting[:, 0])
    for part in (lasting, passing):
        part[unknown] = np.nanmax(part, axis=0)
    return ErrorModel(lasting, passing, float(np.clip(after / max(now, 1e-12), 0.0, 0.999)))


def save_model(path: str | os.PathLike[str], model: ErrorModel, task: type[Task], card: dict[str, Any]) -> None:
    """Write a model as JSON, with what is known of where it comes from."""
    document = {
        **card, "format": FORMAT, "task": task.name, "objects": list(task.objects), "joints": list(task.joints),
        "memory": round(model.memory, 4),
        "lasting": {stage.name: _rounded(row) for stage, row in zip(task.stages, model.lasting, strict=True)},
        "passing": {stage.name: _rounded(row) for stage, row in zip(task.stages, model.passing, strict=True)},
    }  # fmt: skip
    with atomic_path(Path(path)) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")


def _rounded(row: Array) -> list[float]:
    return [round(float(x), 6) for x in row]


def load_model(path: str | os.PathLike[str], task: type[Task] | Task) -> ErrorModel:
    """Read what `save_model` wrote.

    Raises:
        WeightsError: no such file, damaged, or of another task.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"no model of camera errors {path}; measure one (reinforcegen measure --task {task.name} --weights FOLDER)"
        )
    numbers = len(task.objects) * PER_OBJECT + len(task.joints)
    try:
        document = json.loads(path.read_text())
        made_for = {name: document[name] for name in ("format", "task", "objects", "joints")}
        parts = [
            np.array([document[part][stage.name] for stage in task.stages], np.float64)
            for part in ("lasting", "passing")
        ]
        memory = float(document["memory"])
    except (ValueError, TypeError, KeyError) as error:
        raise WeightsError(f"{path} is not a complete model of camera errors ({error!r}); measure again") from error
    wanted = {"format": FORMAT, "task": task.name, "objects": list(task.objects), "joints": list(task.joints)}
    if made_for != wanted:
        raise WeightsError(f"{path} is made for {made_for}; {wanted} is needed: measure again")
    sound = all(part.shape == (len(task.stages), numbers) and np.all(part >= 0.0) for part in parts)
    if not (sound and np.isfinite(parts).all() and 0.0 <= memory < 1.0):
        raise WeightsError(
            f"{path} holds impossible errors: ({len(task.stages)}, {numbers}) standard deviations of at least 0, and a memory "
            "from 0 to below 1 are needed; measure again"
        )
    return ErrorModel(parts[0], parts[1], memory)


class CameraErrors(Perception):
    """Objects are where they are, and as far off as an estimator's beliefs would be.

    It needs no OpenGL. Residuals and termination predictors that are trained under it are put where the camera's are, and it acts
    with the camera's.

    Args:
        weights: folder with ``camera_errors.json``; None means the shipped one.

    Raises:
        WeightsError: when it is put to use: no model, or one of another task.
    """

    name = "camera_errors"

    def __init__(self, weights: str | os.PathLike[str] | None = None):
        self._weights = weights

    def believe(self, truth: Simulation, task: Task) -> CellState:
        """Load the model of a task."""
        self._model = load_model(Bundle.open(type(task), self._weights, self.name).path("camera_errors"), task)
        self._grip = Grip(task)
        self._low, self._span = joint_ranges(truth.model, task)
        self._rng = np.random.default_rng(0)
        self._lasting = np.zeros(self._model.lasting.shape[1])
        self._passing = np.zeros_like(self._lasting)
        # By object: where it would be believed to be if that had no other errors; control steps since it was carried.
        self._followed = np.tile(np.eye(4), (len(task.objects), 1, 1))
        self._free = np.zeros(len(task.objects), np.int64)
        return Belief(truth.model)

    def reset(self, truth: Simulation, belief: CellState, task: Task, rng: np.random.Generator) -> None:
        """Draw a new scene's errors."""
        self._rng = rng
        self._free[:] = 0
        self._grip.reset()
        self._passing, self._lasting = rng.normal(size=(2, len(self._passing)))
        self.update(truth, belief, task, 0)

    def update(self, truth: Simulation, belief: CellState, task: Task, stage: int = 0) -> None:
        """Put every object where it is, and the errors on top."""
        assert isinstance(belief, Belief)
        belief.follow_robot(truth)
        if stage != self._grip.stage:
            self._lasting = self._rng.normal(size=len(self._lasting))
        rho = self._model.memory
        self._passing = rho * self._passing + np.sqrt(1.0 - rho**2) * self._rng.normal(size=len(self._passing))
        errors = self._model.lasting[stage] * self._lasting + self._model.passing[stage] * self._passing
        carriers = self._grip.update(truth, stage)
        hand = truth.data.site_xmat[truth.grip_site].reshape(3, 3)
        for n, name in enumerate(task.objects):
            error = errors[n * PER_OBJECT : (n + 1) * PER_OBJECT]
            if self._grip.put_down[n]:
                error[3:5] = 0.0  # it is believed to stand upright
            frame = hand if carriers[n] == fusion.HAND else np.eye(3)
            metres, radians = self._behind(n, from_pose7(task.root_pose7(truth, name)), int(carriers[n]))
            write_off(truth, belief, task, name, frame @ error[:3] + metres, frame @ error[3:] + radians)
        joints = (truth.data.qpos[task.joint_qpos] - self._low) / self._span + errors[len(task.objects) * PER_OBJECT :]
        belief.data.qpos[task.joint_qpos] = self._low + self._span * np.clip(joints, 0.0, 1.0)

    def _behind(self, n: int, pose: Array, carrier: int) -> tuple[Array, Array]:
        """(3,) metres and a rotation vector (3,), world frame, by which belief is behind an object that is at ``pose`` (4x4).

        It follows as slowly as what was known fades (see `fusion`), but for what is carried, or falls.
        """
        followed = self._followed[n]
        self._free[n] = 0 if carrier == fusion.HAND else self._free[n] + 1
        if self._free[n] <= FALLING:
            followed[:] = pose
            return np.zeros(3), np.zeros(3)
        metres, radians = followed[:3, 3] - pose[:3, 3], matrix_to_rotvec(followed[:3, :3] @ pose[:3, :3].T)
        left = fusion.FADING[fusion.WORLD].copy()
        if np.linalg.norm(metres) > SURPRISING[0]:
            left *= fusion.SURPRISED[fusion.WORLD, :2]
        if np.linalg.norm(radians) > SURPRISING[1]:
            left[1] *= fusion.SURPRISED[fusion.WORLD, 2]
        metres, radians = left[0] * metres, left[1] * radians
        followed[:3, 3], followed[:3, :3] = pose[:3, 3] + metres, rotvec_to_matrix(radians) @ pose[:3, :3]
        return metres, radians

    def reseed(self, rng: np.random.Generator) -> None:
        """Draw the errors to come from another generator."""
        self._rng = rng

    def get_memory(self) -> Memory:
        """The errors, and the generator of those to come."""
        return {
            **self._grip.get_memory(), "rng": self._rng.bit_generator.state,
            "lasting": self._lasting.copy(), "passing": self._passing.copy(),
            "followed": self._followed.copy(), "free": self._free.copy(),
        }  # fmt: skip

    def set_memory(self, memory: Memory) -> None:
        """Go on with the errors of `get_memory`."""
        self._rng = np.random.default_rng(0)
        self._rng.bit_generator.state = memory["rng"]
        self._grip.set_memory(memory)
        self._lasting, self._passing = np.array(memory["lasting"]), np.array(memory["passing"])
        self._followed, self._free = np.array(memory["followed"]), np.array(memory["free"])
