"""Any library's agent runs unchanged: Stable-Baselines3's TD3 on one skill's residual.

pip install stable-baselines3
python examples/plug_in_sb3.py
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from stable_baselines3 import TD3  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.noise import NormalActionNoise  # pyright: ignore[reportMissingImports]

import reinforcegen_envs
from reinforcegen_envs.statistics import EVALUATION_SEED

gym.register_envs(reinforcegen_envs)


def main(steps: int = 20_000) -> None:
    """Train, then play ten episodes on seeds that training does not use."""
    env = gym.make("ReinforceGen/D2-Threading-Residual-v0", stage="grasp", pose_noise=(0.01, 0.05))
    noise = NormalActionNoise(np.zeros(7), 0.3 * np.ones(7))
    model = TD3("MlpPolicy", env, action_noise=noise, learning_starts=2_000, gamma=0.99, verbose=1, seed=1)
    model.learn(total_timesteps=steps, progress_bar=False)
    successes = 0
    for seed in range(EVALUATION_SEED, EVALUATION_SEED + 10):
        obs, _ = env.reset(seed=seed)
        done = False
        info = {}
        while not done:
            action, _ = model.predict(obs, deterministic=True)
            obs, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
        successes += bool(info["is_success"])
    print(f"{successes} of 10 episodes succeeded")


if __name__ == "__main__":
    main()
