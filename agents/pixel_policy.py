"""A policy that acts on pictures, a residual or a whole one: its network, and its file. A baseline: it needs torch to run.

policy = PixelPolicy.load(Path("runs/RUN/actor.safetensors"), task="Threading")
evaluation.evaluate(drqv2_residual.Args(stage="insert", eval_pool=Path("held-out.npz")), policy, episodes=200)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from reinforcegen_envs.agents.common import input_statistics, own_numbers
from reinforcegen_envs.policies.weights_file import CARD_VERSION, WeightsError, read_weights, write_weights
from reinforcegen_envs.sim.cameras import CAMERAS

KIND, FORMAT = "pixel_residual", "reinforcegen-pixels-1"
KERNEL = 3  # of convolutions, which have no padding
STATE_CLIP = 10.0


def encoded_side(size: int, strides: Sequence[int]) -> int:
    """Pixels a side that convolutions without padding leave; below 1: nothing."""
    for stride in strides:
        size = (size - KERNEL) // stride + 1
    return size


def orthogonal(module: nn.Module) -> None:
    """Orthogonal weights, of convolutions with the gain of ReLU, and no bias."""
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.orthogonal_(module.weight, 2**0.5 if isinstance(module, nn.Conv2d) else 1.0)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


def make_trunk(inputs: int, features: int) -> nn.Sequential:
    """What the encoder gives to a few numbers in [-1, 1]."""
    return nn.Sequential(nn.Linear(inputs, features), nn.LayerNorm(features), nn.Tanh())


def make_head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two hidden layers."""
    relu = nn.ReLU(inplace=True)
    return nn.Sequential(nn.Linear(inputs, hidden), relu, nn.Linear(hidden, hidden), relu, nn.Linear(hidden, outputs))


class PixelPolicy(nn.Module):
    """Both pictures, the robot's state and, where there is one, the base policy's action to an action; zero until it is trained.

    Args:
        image_size: pixels a side.
        numbers: in proprio and, where there is one, base action.
        actions: numbers in an action.
        strides, channels: of the convolutions.
        features, hidden: numbers that the trunk makes of their output, and units in a hidden layer.
    """

    def __init__(
        self, image_size: int, numbers: int, actions: int, strides: Sequence[int], channels: int, features: int, hidden: int
    ):  # fmt: skip
        super().__init__()
        self.settings = {
            "image_size": image_size, "numbers": numbers, "actions": actions, "strides": list(strides), "channels": channels,
            "features": features, "hidden": hidden,
        }  # fmt: skip
        self.encoder, before = nn.Sequential(), 3 * len(CAMERAS)
        for stride in strides:
            self.encoder.extend([nn.Conv2d(before, channels, KERNEL, stride), nn.ReLU()])
            before = channels
        self.encoder.append(nn.Flatten())
        self.encoded_size = channels * encoded_side(image_size, strides) ** 2
        self.trunk = make_trunk(self.encoded_size, features)
        self.head = make_head(features + numbers, hidden, actions)
        self.apply(orthogonal)
        nn.init.zeros_(self.head[-1].weight)  # pyright: ignore[reportArgumentType]
        self.register_buffer("state_mean", torch.zeros(numbers))
        self.register_buffer("state_std", torch.ones(numbers))
        self.state_mean: torch.Tensor
        self.state_std: torch.Tensor

    def fix_statistics(self, numbers: np.ndarray) -> None:
        """Normalise with mean and std of (n, numbers) numbers from now on; constant entries keep std 1."""
        mean, std = input_statistics(numbers)
        self.state_mean.copy_(torch.from_numpy(mean))
        self.state_std.copy_(torch.from_numpy(std))

    def encode(self, seen: torch.Tensor) -> torch.Tensor:
        """(n, 2, size, size, 3) uint8 to (n, encoded_size)."""
        pixels = seen.permute(0, 1, 4, 2, 3).flatten(1, 2).float() / 255 - 0.5
        return self.encoder(pixels.contiguous(memory_format=torch.channels_last)).float()

    def normalise(self, state: torch.Tensor) -> torch.Tensor:
        """What the networks see of proprio and base action, (n, numbers)."""
        return ((state - self.state_mean) / self.state_std).clamp_(-STATE_CLIP, STATE_CLIP)

    def action(self, encoded: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        """(n, actions) in [-1, 1] of what `encode` and `normalise` gave."""
        return torch.tanh(self.head(torch.cat([self.trunk(encoded), state], 1)))

    @torch.no_grad()
    def act(self, observations: Mapping[str, np.ndarray]) -> np.ndarray:
        """A batch of observations to (n, actions) float32 in [-1, 1], without noise."""
        seen = torch.from_numpy(np.stack([observations[name] for name in CAMERAS], 1))
        state = torch.from_numpy(own_numbers(observations))
        return self.action(self.encode(seen), self.normalise(state)).numpy()

    def forward(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """One observation to (actions,) float32 in [-1, 1]."""
        return self.act({name: np.asarray(value)[None] for name, value in observation.items()})[0]

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        """Write a safetensors file, with a card inside and beside it."""
        tensors = {name: np.ascontiguousarray(value.numpy()) for name, value in self.state_dict().items()}
        write_weights(path, tensors, {"version": CARD_VERSION, **card, "format": FORMAT, "network": self.settings})

    @classmethod
    def load(cls, path: Path, **expected: Any) -> PixelPolicy:
        """Read what `save` wrote.

        Args:
            path: the ``.safetensors`` file.
            expected: card entries that must match, e.g. ``task="Threading"``, ``residual_scale=0.1``; ``kind`` is a residual's
                unless it is given.

        Raises:
            WeightsError: the file is missing, damaged, of another kind, or made for something else.
        """
        tensors, card = read_weights(
            path, FORMAT, "tune with --algorithm drqv2, or distill", {"kind": KIND, **expected}
        )
        try:
            policy = cls(**card["network"])
            policy.load_state_dict({name: torch.from_numpy(array) for name, array in tensors.items()})
        except (KeyError, TypeError, RuntimeError) as error:
            raise WeightsError(
                f"{path} does not hold the network that its card names ({error}); train it again"
            ) from error
        return policy
