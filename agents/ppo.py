"""Full reinforcement learning, the comparison for residuals: PPO on the whole action of a skill, without a base policy.

The agent sees what imitation sees and acts in the same frame, that of the stage's reference object. It starts from nothing, or
with ``--from-base`` as the imitation policy, whose network it goes on training. That takes small steps and a trained critic:
PPO's usual ones undo imitation within a few iterations. So ``--from-base`` has defaults of its own, `FROM_BASE`.

    python -m reinforcegen_envs.agents.ppo --env-id ReinforceGen/D2-Threading-Skill-v0 --stage grasp --from-base
"""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from reinforcegen_envs import cli
from reinforcegen_envs.agents import ppo_residual
from reinforcegen_envs.agents.arguments import checked
from reinforcegen_envs.agents.common import env_spec, space_sizes
from reinforcegen_envs.arguments import Finite
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import MLP, Array, load_mlps
from reinforcegen_envs.policies.skill import CLOSE_ABOVE, OPEN_BELOW, stage_features
from reinforcegen_envs.registration import NAMESPACE
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.wrappers.reference import ReferenceActions
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

# What --from-base puts in the place of arguments that are not given.
FROM_BASE: dict[str, Any] = {
    "critic_only_iterations": 4, "actor_lr": 3e-5, "clip": 0.1, "target_kl": 0.01, "initial_log_std": -3.0,
}  # fmt: skip


@dataclasses.dataclass
class Args(ppo_residual.Args):
    """Arguments of this trainer, after those of every trainer (agents/common.py)."""

    env_id: str = "ReinforceGen/D2-Threading-Skill-v0"
    """environment id; any id with one flat observation and a continuous action works"""
    initial_log_std: Finite = -0.7
    """log of the std of the agent's action before training"""
    from_base: bool = False
    """start as the imitation policy that `weights` holds for `stage`"""

    def wrapped(self, env: gym.Env) -> gym.Env:
        """The environment with actions in the reference frame, if it is one of ours."""
        spec = env.unwrapped.spec
        ours = spec is not None and spec.namespace == NAMESPACE
        return ReferenceActions(env) if ours else env

    def completed(self) -> Args:
        """These arguments, with `FROM_BASE` where they start from imitation and are the default."""
        if not self.from_base:
            return self
        default = {field.name: field.default for field in dataclasses.fields(self)}
        left = {name: value for name, value in FROM_BASE.items() if getattr(self, name) == default[name]}
        return dataclasses.replace(self, **left)


class Imitator(ppo_residual.Agent):
    """An agent whose mean action is the imitation policy's until it is trained.

    Args:
        args: arguments of the trainer.
        obs_size, action_size: of the environment.
        base: imitation's network: action in the reference frame, and the logit of closing the gripper.
        features: indices of the numbers of an observation that ``base`` sees.
        command: index of the gripper's last command (-1 or 1), one of ``features``.
    """

    activation = "relu"

    def __init__(self, args: Args, obs_size: int, action_size: int, base: MLP, features: Array, command: int):
        super().__init__(args, obs_size, action_size)
        self.input_clip = base.clip
        self.obs_mean[features] = torch.from_numpy(base.mean).double()
        self.obs_var[features] = torch.from_numpy(base.std).double().square()
        weights, biases = gripper_decided(base, int(np.flatnonzero(features == command)[0]))
        first = np.zeros((len(weights[0]), obs_size), np.float32)
        first[:, features] = weights[0]
        modules: list[nn.Module] = []
        for weight, bias in zip([first, *weights[1:]], biases, strict=True):
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight.data.copy_(torch.from_numpy(weight))
            layer.bias.data.copy_(torch.from_numpy(bias))
            modules += [layer, nn.ReLU()]
        self.actor = nn.Sequential(*modules[:-1])

    def update_statistics(self, obs: torch.Tensor) -> None:
        """Nothing: they are imitation's, and another scale would be another policy."""


def gripper_decided(base: MLP, command: int) -> tuple[list[Array], list[Array]]:
    """Weights and biases of ``base``, whose last output becomes positive where the imitation policy closes, negative where not.

    What it takes to close depends on the last command. One more unit a hidden layer, never below zero, carries that through.

    Args:
        base: a network with relu units.
        command: which of its inputs is the command, -1 or 1.
    """
    weights, biases = [w.astype(np.float32) for w in base.weights], [b.astype(np.float32) for b in base.biases]
    for i in range(len(weights) - 1):
        rows, columns = weights[i].shape
        carried = command if i == 0 else columns  # the previous layer's additional unit
        weights[i] = np.pad(weights[i], ((0, 1), (0, 0 if i == 0 else 1)))
        weights[i][rows, carried] = 1.0
        biases[i] = np.append(biases[i], np.float32(base.clip if i == 0 else 0.0))
    # The unit holds (command - mean) / std + clip.
    slope, middle = (OPEN_BELOW - CLOSE_ABOVE) / 2.0, (OPEN_BELOW + CLOSE_ABOVE) / 2.0
    mean, std = float(np.asarray(base.mean)[command]), float(np.asarray(base.std)[command])
    weights[-1] = np.pad(weights[-1], ((0, 0), (0, 1)))
    weights[-1][-1, -1] = -slope * std
    biases[-1][-1] += slope * (base.clip * std - mean) - middle
    return weights, biases


def make_agent(args: Args, envs: ThreadVectorEnv) -> ppo_residual.Agent:
    """The untrained agent.

    Raises:
        InvalidArgument: it is to start from imitation, and the environment is none of a task's stage.
        WeightsError: unusable weights.
    """
    sizes = space_sizes(envs)
    if not args.from_base:
        return ppo_residual.Agent(args, *sizes)
    spec = env_spec(envs)
    if spec.namespace != NAMESPACE or args.stage is None:
        raise InvalidArgument(f"from_base needs a {NAMESPACE} id and a stage; there is no imitation policy for others")
    task = TASKS[str(spec.kwargs["task"])]
    file = Bundle.open(task, args.weights).path("base")
    networks, _ = load_mlps(file, kind="base", task=task.name)
    layout, stage = ObservationLayout.of(task), task.stage_index(args.stage)
    features, command = stage_features(layout, task, stage), layout.slices["gripper"].start + 1
    return Imitator(args, *sizes, networks[args.stage], features, command)


def main(args: Args) -> dict[str, Any]:
    """Train; return what result.json holds.

    Raises:
        InvalidArgument: arguments that are not allowed, or not those of the run that is to be resumed.
        RunError: the run's folder holds another run, or no checkpoint that it can go on from.
    """
    args = checked(args).completed()
    return ppo_residual.train(args, "ppo", "policy", lambda _, envs: make_agent(args, envs))


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--task Threading --mode Skill --stage grasp --pool grasp.npz --from-base")


if __name__ == "__main__":
    command()
