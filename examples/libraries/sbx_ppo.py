"""sbx's PPO, Stable-Baselines3's interface over JAX: `pip install sbx-rl && python examples/libraries/sbx_ppo.py`."""

# pyright: reportMissingImports=false
import gymnasium as gym
import numpy as np
import tyro
from sbx import PPO
from setting import ID, KWARGS, STD, Args, Curve
from stable_baselines3.common.vec_env import VecNormalize

from reinforcegen_envs.wrappers.sb3 import ThreadVecEnv


def main(args: Args) -> None:
    """Train, with evaluations on the way."""
    curve = Curve("sbx_ppo", args)
    envs = VecNormalize(
        ThreadVecEnv(gym.make_vec(ID, num_envs=8, **KWARGS)), norm_reward=False
    )  # metres are small numbers
    network = {"log_std_init": np.log(STD), "net_arch": [128, 128], "ortho_init": True}
    rollout = {"n_steps": 128, "batch_size": 128, "n_epochs": 10, "learning_rate": 5e-4, "gamma": 0.98}
    model = PPO("MlpPolicy", envs, policy_kwargs=network, **rollout, seed=args.seed)

    def policy(obs: np.ndarray) -> np.ndarray:
        return model.predict(envs.normalize_obs(obs), deterministic=True)[0]

    def evaluate(*_: object) -> bool:
        if curve.due(model.num_timesteps):
            curve.measure(model.num_timesteps, policy)
        return True

    model.learn(args.steps, callback=evaluate)


if __name__ == "__main__":
    main(tyro.cli(Args))
