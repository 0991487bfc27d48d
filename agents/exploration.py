"""Noise on actions that wanders: what it did a control step ago it goes on doing for a while.

White noise shakes a hand that rests too far off, and does not take it where it has to go. A first-order autoregressive process
does; off-policy trainers may add any noise, and PPO does well with one like it if probabilities stay those of its marginal
distribution (Eberhard et al. 2023, Hollenstein et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


class Noise:
    """Normal noise of standard deviation 1 for several environments.

    Args:
        memory: correlation between control steps; 0 is white.
        shape: environments, numbers in an action.
        quiet: environments, the first ones, that get none.
    """

    def __init__(self, memory: float, shape: tuple[int, int], quiet: int = 0):
        self._memory, self._quiet = memory, quiet
        self._now = np.zeros(shape)
        self._begun = False

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """(environments, actions) the next control step's."""
        new = rng.normal(size=self._now.shape)
        self._now = self._memory * self._now + np.sqrt(1.0 - self._memory**2) * new if self._begun else new
        self._begun = True
        drawn = self._now.copy()
        drawn[: self._quiet] = 0.0
        return drawn

    def state_dict(self) -> dict[str, Any]:
        """Where it is."""
        return {"now": torch.from_numpy(self._now), "begun": self._begun}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self._now, self._begun = state["now"].numpy().copy(), state["begun"]
