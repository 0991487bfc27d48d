"""Tianshou's PPO on a residual, `pip install tianshou && python examples/libraries/tianshou_ppo.py`."""

# pyright: reportMissingImports=false
import gymnasium as gym
import numpy as np
import torch
import tyro
from setting import ID, KWARGS, STD, Args, Curve
from tianshou.algorithm import PPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, VectorEnvNormObs
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.torch_utils import policy_within_training_step
from torch.distributions import Independent, Normal

ENVS, FRAMES = 8, 1024  # environments, and control steps an iteration


def main(args: Args) -> None:
    """Train, with evaluations on the way."""
    curve = Curve("tianshou_ppo", args)
    torch.manual_seed(args.seed)
    envs = VectorEnvNormObs(DummyVectorEnv([lambda: gym.make(ID, **KWARGS)] * ENVS))  # metres are small numbers
    envs.seed(args.seed)
    env = gym.make(ID, **KWARGS)  # envs' spaces are those within all wrappers, without the base policy's action
    nets = [
        Net(state_shape=env.observation_space.shape, hidden_sizes=[128, 128], activation=torch.nn.Tanh) for _ in "ac"
    ]
    actor = ContinuousActorProbabilistic(preprocess_net=nets[0], action_shape=7, unbounded=True)
    torch.nn.init.constant_(actor.sigma_param, np.log(STD))
    for parameter in actor.mu.parameters():  # the untrained agent is the base policy
        torch.nn.init.zeros_(parameter)
    agent = ProbabilisticActorPolicy(
        actor=actor, dist_fn=lambda d: Independent(Normal(*d), 1), action_space=env.action_space
    )
    critic, adam = ContinuousCritic(preprocess_net=nets[1]), AdamOptimizerFactory(lr=5e-4)
    ppo = {"gamma": 0.98, "gae_lambda": 0.95, "ent_coef": 0.0, "max_grad_norm": 0.5}
    algorithm = PPO(policy=agent, critic=critic, optim=adam, **ppo)
    collector = Collector(algorithm, envs, VectorReplayBuffer(FRAMES, ENVS))
    collector.reset()

    @torch.no_grad()
    def policy(obs: np.ndarray) -> np.ndarray:
        return actor(envs._norm_obs(obs[None]))[0][0][0].numpy()

    for steps in range(FRAMES, args.steps + FRAMES, FRAMES):
        with policy_within_training_step(agent):
            collector.collect(n_step=FRAMES)
            algorithm.update(collector.buffer, batch_size=128, repeat=10)
        collector.reset_buffer(keep_statistics=True)
        if curve.due(steps):
            curve.measure(steps, policy)


if __name__ == "__main__":
    main(tyro.cli(Args))
