"""What the robot believes: perceptions fill a belief, which everything that acts reads; what judges reads the simulation."""

from reinforcegen_envs.perception.base import Belief, Perception, Truth
from reinforcegen_envs.perception.camera import CameraPerception
from reinforcegen_envs.perception.camera_errors import CameraErrors
from reinforcegen_envs.perception.choice import as_perception
from reinforcegen_envs.perception.errors import ApproachErrors, PoseErrors

__all__ = [
    "ApproachErrors", "Belief", "CameraErrors", "CameraPerception", "Perception", "PoseErrors", "Truth", "as_perception",
]  # fmt: skip
