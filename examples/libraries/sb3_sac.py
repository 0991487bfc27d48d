"""Stable-Baselines3's SAC on a residual, with a preset that does not unlearn the base policy on the way.

pip install stable-baselines3
python examples/libraries/sb3_sac.py
"""

# pyright: reportMissingImports=false
import dataclasses

import gymnasium as gym
import numpy as np
import tyro
from setting import ID, KWARGS, Args, Curve
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import ConvertCallback
from stable_baselines3.common.vec_env import VecNormalize

from reinforcegen_envs.wrappers.sb3 import ThreadVecEnv
from reinforcegen_envs.wrappers.sb3_presets import FromBase, sac_preset


@dataclasses.dataclass
class PresetArgs(Args):
    """Budget, and whether to do without the preset."""

    plain: bool = False
    """the library's own arguments, to compare with"""


def main(args: PresetArgs) -> None:
    """Train, with evaluations on the way."""
    curve = Curve("sb3_sac_plain" if args.plain else "sb3_sac", args)
    envs = VecNormalize(ThreadVecEnv(gym.make_vec(ID, num_envs=8, **KWARGS)), norm_reward=False)
    model = SAC("MlpPolicy", envs, seed=args.seed, **({} if args.plain else sac_preset()))

    def policy(obs: np.ndarray) -> np.ndarray:
        return model.predict(envs.normalize_obs(obs), deterministic=True)[0]

    def evaluate(*_: object) -> bool:
        if curve.due(model.num_timesteps):
            curve.measure(model.num_timesteps, policy)
        return True

    model.learn(args.steps, callback=[ConvertCallback(evaluate), *([] if args.plain else [FromBase()])])


if __name__ == "__main__":
    main(tyro.cli(PresetArgs))
