"""Arguments that the trainers share which learn from pictures."""

from __future__ import annotations

import dataclasses
from typing import Any

from reinforcegen_envs.agents.arguments import RunArgs
from reinforcegen_envs.agents.pixel_policy import encoded_side
from reinforcegen_envs.agents.pixel_replay import PixelReplay
from reinforcegen_envs.arguments import Count
from reinforcegen_envs.sim.cameras import SIZE


@dataclasses.dataclass
class PixelArgs(RunArgs):
    """Arguments of every trainer that sees, after those of every trainer."""

    image_size: Count = SIZE
    """pixels a side of the pictures"""
    batch_size: Count = 128
    """transitions in a batch"""
    buffer_size: Count = 45_000
    """observations kept; each takes 6 image_size^2 bytes"""
    strides: tuple[Count, ...] = (2, 2, 1, 1)
    """strides of the encoder's convolutions"""
    channels: Count = 32
    """channels of a convolution"""

    def view(self) -> dict[str, Any]:
        """Arguments that make an environment show pictures."""
        return {"obs_mode": "rgb", "image_size": self.image_size}

    def spanned(self) -> tuple[int, str]:
        """Control steps that a transition of the buffer spans, and the arguments that the smallest buffer follows from."""
        return 1, "num_envs and batch_size"

    def conflicts(self) -> list[str]:
        """What is wrong with arguments that are allowed one by one."""
        wrong = super().conflicts()
        steps, names = self.spanned()
        least = max(self.batch_size, PixelReplay.least_capacity(self.num_envs, steps) + 1)
        if self.buffer_size < least:
            wrong.append(f"buffer_size is {self.buffer_size}; for these {names} give {least} or more")
        if not self.strides or encoded_side(self.image_size, self.strides) < 1:
            wrong.append(
                f"image_size is {self.image_size}, of which strides {self.strides} leave nothing; choose others"
            )
        return wrong
