"""What the robot believes: perceptions fill a belief, which everything that acts reads; what judges reads the simulation."""

from reinforcegen_envs.perception.base import Belief, Perception, Truth, as_perception
from reinforcegen_envs.perception.errors import ApproachErrors, PoseErrors

__all__ = ["ApproachErrors", "Belief", "Perception", "PoseErrors", "Truth", "as_perception"]
