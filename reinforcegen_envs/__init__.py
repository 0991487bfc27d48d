"""Gymnasium environments for long-horizon manipulation: planned connects, learned skills, residual RL.

Importing this package registers the ``ReinforceGen/...`` ids.
"""

from reinforcegen_envs.registration import register_envs

__version__ = "0.1.0"

register_envs()

__all__ = ["__version__", "register_envs"]
