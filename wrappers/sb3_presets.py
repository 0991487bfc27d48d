# pyright: basic
# (Stable-Baselines3 is optional: where it is not installed, the base class is unknown.)
"""Stable-Baselines3's TD3 and SAC on a residual, so that learning starts from the base policy and keeps what it can.

    envs = VecNormalize(ThreadVecEnv(gym.make_vec(ID, num_envs=8, stage="grasp")), norm_reward=False)
    model = TD3("MlpPolicy", envs, **td3_preset(7))
    model.learn(60_000, callback=FromBase())

With the library's own defaults an untrained actor's residual is as large as it may be, in a direction of its own, and
what the first critics say of it, having seen little, makes it larger: success falls, and comes back late or never.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.wrappers import sb3  # noqa: F401  (it says so where the library is not installed)

# isort: split
from stable_baselines3.common.callbacks import BaseCallback  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.noise import NormalActionNoise  # pyright: ignore[reportMissingImports]
from torch import nn

STD = 0.5
"""std of the exploration to start with, in the residual's units"""

_COMMON = {
    "gamma": 0.99, "n_steps": 3, "batch_size": 256, "learning_rate": 3e-4, "learning_starts": 1_000, "buffer_size": 200_000,
    "train_freq": 1, "gradient_steps": 2, "device": "cpu",
}  # fmt: skip


def td3_preset(actions: int = 7) -> dict[str, Any]:
    """Arguments of ``TD3`` beside policy and environments.

    Args:
        actions: numbers in an action.
    """
    noise = NormalActionNoise(np.zeros(actions), STD * np.ones(actions))
    # TD3 moves its targets only when it updates the actor, every other time.
    return {**_COMMON, "action_noise": noise, "tau": 0.01, "policy_kwargs": {"net_arch": [128, 128]}}


def sac_preset() -> dict[str, Any]:
    """Arguments of ``SAC`` beside policy and environments.

    The entropy's coefficient is fixed, and small against a reward of 1 a success: a target for the entropy would ask
    for noise that the base policy does not bear, and entropy worth more than that would be a reward for episodes that
    do not end.
    """
    return {**_COMMON, "ent_coef": 1e-4, "tau": 0.005, "policy_kwargs": {"net_arch": [128, 128]}}


class FromBase(BaseCallback):
    """Makes an untrained actor the base policy, and leaves it that while the critics learn what it is worth.

    For ``TD3``, ``SAC`` and what derives from them: the actor's last layer becomes zero, the std of SAC's actor `STD`, and
    the actor is not updated in the first control steps. A model that has been trained before is left as it is.

    Args:
        critic_steps: control steps, all environments together, before the actor is updated first.

    Raises:
        InvalidArgument: (when the training starts) the model has no actor of its own.
    """

    def __init__(self, critic_steps: int = 10_000):
        super().__init__()
        self._critic_steps = critic_steps

    def _on_training_start(self) -> None:
        actor = getattr(self.model, "actor", None)
        if actor is None:
            raise InvalidArgument(
                f"{type(self.model).__name__} has no actor of its own; this is for off-policy algorithms such as TD3 and SAC"
            )
        if self.model._n_updates == 0:
            for network in (actor, getattr(self.model, "actor_target", None)):
                if network is not None:
                    _silence(network)

    def _on_rollout_start(self) -> None:
        model: Any = self.model
        model.actor.requires_grad_(model.num_timesteps >= self._critic_steps)

    def _on_step(self) -> bool:
        return True


def _silence(actor: Any) -> None:
    """Zero the layer that the actor's mean comes from; the std's, if it has one, says `STD` everywhere."""
    last = [layer for layer in actor.mu.modules() if isinstance(layer, nn.Linear)][-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    if isinstance(log_std := getattr(actor, "log_std", None), nn.Linear):
        nn.init.zeros_(log_std.weight)
        nn.init.constant_(log_std.bias, math.log(STD))
