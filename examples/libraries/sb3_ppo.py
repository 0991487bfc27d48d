"""Stable-Baselines3's PPO on a residual, its environments in our threads.

    pip install stable-baselines3
    python examples/libraries/sb3_ppo.py

A residual needs an exploration of about its own range: a smaller one turns no failure into a success, and PPO learns from nothing
else.
"""

# pyright: reportMissingImports=false
import gymnasium as gym
import numpy as np
import tyro
from setting import ID, KWARGS, STD, Args, Curve
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecNormalize

from reinforcegen_envs.wrappers.sb3 import ThreadVecEnv


def main(args: Args) -> None:
    """Train, with evaluations on the way."""
    curve = Curve("sb3_ppo", args)
    envs = VecNormalize(
        ThreadVecEnv(gym.make_vec(ID, num_envs=8, **KWARGS)), norm_reward=False
    )  # metres are small numbers
    network = {"log_std_init": np.log(STD), "net_arch": [128, 128]}
    rollout = {"n_steps": 128, "batch_size": 128, "n_epochs": 10, "learning_rate": 5e-4, "gamma": 0.98}
    model = PPO("MlpPolicy", envs, policy_kwargs=network, **rollout, seed=args.seed, device="cpu")

    def policy(obs: np.ndarray) -> np.ndarray:
        return model.predict(envs.normalize_obs(obs), deterministic=True)[0]

    def evaluate(*_: object) -> bool:
        if curve.due(model.num_timesteps):
            curve.measure(model.num_timesteps, policy)
        return True

    model.learn(args.steps, callback=evaluate)


if __name__ == "__main__":
    main(tyro.cli(Args))
