"""The evaluation command, ``python -m reinforcegen_envs.evaluate``; see `reinforcegen_envs.evaluation`."""

from reinforcegen_envs.evaluation import *  # noqa: F403
from reinforcegen_envs.evaluation.command import command

if __name__ == "__main__":
    command()
