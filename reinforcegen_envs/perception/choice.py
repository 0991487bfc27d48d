"""A perception by name, or of one's own."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable

from reinforcegen_envs.arguments import missing_arguments
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.perception.base import Perception, Truth
from reinforcegen_envs.perception.camera import CameraPerception
from reinforcegen_envs.perception.camera_errors import CameraErrors

# Those that are known by name, and whose networks or numbers are in the folder of all other weights.
OF_WEIGHTS: dict[str, type[CameraPerception] | type[CameraErrors]] = {
    known.name: known for known in (CameraPerception, CameraErrors)
}


def as_perception(
    perception: str | Perception | Callable[[], Perception], weights: str | os.PathLike[str] | None = None
) -> Perception:
    """A perception for one environment.

    Args:
        perception: "truth", "camera", "camera_errors", a perception (copied: environments share no memory), or a function or
            class that makes one.
        weights: folder with what "camera" and "camera_errors" need; None means the shipped one.

    Raises:
        InvalidArgument: it is none of these.
    """
    if isinstance(perception, Perception):
        return copy.deepcopy(perception)
    if isinstance(perception, str):
        if perception == Truth.name:
            return Truth()
        if perception in OF_WEIGHTS:
            return OF_WEIGHTS[perception](weights)
    made = perception() if callable(perception) and not missing_arguments(perception) else None
    if not isinstance(made, Perception):
        raise InvalidArgument(
            f"unknown perception {perception!r}; give 'truth', 'camera', 'camera_errors', a Perception such as "
            "PoseErrors(metres=0.002), or a function that makes one"
        )
    return made
