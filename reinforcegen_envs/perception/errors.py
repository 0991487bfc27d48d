"""Truth with errors: how exactly must objects be known?"""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.perception.base import Belief, Perception
from reinforcegen_envs.policies.policy import Memory
from reinforcegen_envs.poses import from_pose7, rotvec_to_matrix, to_pose7
from reinforcegen_envs.sim.simulation import CellState, Simulation
from reinforcegen_envs.tasks.base import Task
from reinforcegen_envs.typing import Array


def write_off(truth: CellState, belief: CellState, task: Task, name: str, metres: Array, radians: Array) -> None:
    """Put an object into a belief where it is, and (3,) metres and a rotation vector (3,) off, world frame."""
    pose = from_pose7(task.root_pose7(truth, name))
    pose[:3, :3] = rotvec_to_matrix(radians) @ pose[:3, :3]
    pose[:3, 3] += metres
    task.write_pose7(belief, name, to_pose7(pose))


class PoseErrors(Perception):
    """Every object's true pose with an error that is constant in an episode and one that is drawn anew every control step.

    Errors are normal and independent an axis: of the position in the world frame, and of the orientation as a rotation
    vector in the world frame. Positions of objects' joints (lid, drawer) are true.

    Args:
        metres, radians: standard deviation, an axis, of the error that is constant in an episode.
        step_metres, step_radians: of the error that every control step has anew.

    Raises:
        InvalidArgument: a number that is negative or not finite.
    """

    name = "pose_errors"

    def __init__(self, metres: float = 0.0, radians: float = 0.0, step_metres: float = 0.0, step_radians: float = 0.0):
        numbers = {"metres": metres, "radians": radians, "step_metres": step_metres, "step_radians": step_radians}
        for name, number in numbers.items():
            if not (np.isfinite(number) and number >= 0.0):
                raise InvalidArgument(f"PoseErrors {name} is {number!r}; it must be a finite number of at least 0")
        self._constant = (float(metres), float(radians))
        self._step = (float(step_metres), float(step_radians))
        self._rng = np.random.default_rng(0)
        self._errors = np.zeros((0, 6))  # an object: metres, rotation vector

    def reset(self, truth: Simulation, belief: CellState, task: Task, rng: np.random.Generator) -> None:
        """Draw the episode's errors."""
        self._rng = rng
        self._errors = self._draw(self._constant, len(task.objects))
        self.update(truth, belief, task)

    def update(self, truth: Simulation, belief: CellState, task: Task, stage: int = 0) -> None:
        """Put every object where it is, and the errors on top."""
        assert isinstance(belief, Belief)
        belief.follow(truth)
        errors = self._errors
        if any(self._step):
            errors = errors + self._draw(self._step, len(errors))
        for name, error in zip(task.objects, errors, strict=True):
            error = error * self._part(truth, task, name)
            if error.any():  # else the pose stays as it is, bit for bit
                write_off(truth, belief, task, name, error[:3], error[3:])

    def _part(self, truth: Simulation, task: Task, name: str) -> float:
        """Which part of an object's error there is now."""
        return 1.0

    def reseed(self, rng: np.random.Generator) -> None:
        """Draw the errors to come from another generator."""
        self._rng = rng

    def get_memory(self) -> Memory:
        """The episode's errors, and the generator of those to come."""
        return {"errors": self._errors.copy(), "rng": self._rng.bit_generator.state}

    def set_memory(self, memory: Memory) -> None:
        """Go on with the errors of `get_memory`."""
        rng = np.random.default_rng(0)
        rng.bit_generator.state = memory["rng"]
        self._rng = rng
        self._errors = np.array(memory["errors"], np.float64)

    def _draw(self, deviations: tuple[float, float], objects: int) -> Array:
        return self._rng.normal(size=(objects, 6)) * np.repeat(deviations, 3)


class ApproachErrors(PoseErrors):
    """Errors that shrink as the hand comes nearer, as those of a camera in the hand do.

    What counts is how far the nearest of an object's geoms has its centre from the grip site. At ``far`` and beyond the object
    has the whole error of `PoseErrors`, at ``near`` and below none, and between them a part that grows with the distance.

    Args:
        metres, radians, step_metres, step_radians: see `PoseErrors`.
        near, far: metres.

    Raises:
        InvalidArgument: a number that is negative or not finite, or ``far`` is not beyond ``near``.
    """

    name = "approach_errors"

    def __init__(
        self,
        metres: float = 0.0,
        radians: float = 0.0,
        step_metres: float = 0.0,
        step_radians: float = 0.0,
        near: float = 0.2,
        far: float = 0.35,
    ):
        super().__init__(metres, radians, step_metres, step_radians)
        if not (0.0 <= near < far < np.inf):
            raise InvalidArgument(f"near {near!r} and far {far!r} must be finite, at least 0, and far beyond near")
        self._near, self._far = float(near), float(far)

    def _part(self, truth: Simulation, task: Task, name: str) -> float:
        centres = truth.data.geom_xpos[task.object_geoms[name]]
        metres = float(np.linalg.norm(centres - truth.data.site_xpos[truth.grip_site], axis=1).min())
        return min(max((metres - self._near) / (self._far - self._near), 0.0), 1.0)
