"""An environment that shows black pictures, for tests where nothing needs to be drawn."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np


class Blind(gym.Wrapper[Any, Any, Any, Any]):
    """A plain environment with the observations of pictures, all black.

    Args:
        env: of no mode.
        size: pixels a side.
    """

    def __init__(self, env: gym.Env[Any, Any], size: int = 84):
        super().__init__(env)
        self._black = np.zeros((size, size, 3), np.uint8)
        picture = gym.spaces.Box(0, 255, self._black.shape, np.uint8)
        core: Any = env.unwrapped
        spaces = {"proprio": core.proprio_layout.flat_space, "front": picture, "wrist": picture}
        self.observation_space = gym.spaces.Dict(spaces)

    def reset(self, **kwargs: Any):
        """See the environment."""
        super().reset(**kwargs)
        return self.seen(), {}

    def step(self, action: Any):
        """See the environment."""
        _, *rest = super().step(action)
        return self.seen(), *rest

    def seen(self) -> dict[str, Any]:
        """What is shown now."""
        core: Any = self.unwrapped
        return {"proprio": core.engine.proprio(), "front": self._black, "wrist": self._black}
