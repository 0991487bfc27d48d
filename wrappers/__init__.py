"""The hybrid decomposition as Gymnasium wrappers."""

from reinforcegen_envs.wrappers.hybrid import Hybrid
from reinforcegen_envs.wrappers.pool import PoolError, StartPool
from reinforcegen_envs.wrappers.replanning import Replanning
from reinforcegen_envs.wrappers.residual import Residual, combine
from reinforcegen_envs.wrappers.skill import Skill, SkillResetError

__all__ = ["Hybrid", "PoolError", "Replanning", "Residual", "Skill", "SkillResetError", "StartPool", "combine"]
