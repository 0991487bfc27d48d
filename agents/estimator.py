"""The camera estimator as a torch module, and how it is trained: used by `perceive`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu
from tqdm import trange

from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.perception.camera import LOG_VARIANCES, PER_OBJECT
from reinforcegen_envs.sim.cameras import CAMERAS
from reinforcegen_envs.typing import Array, Integers

BETA = (
    0.5  # of the beta-NLL (Seitzer et al. 2022): 0 is the NLL, whose gradients starve what is hard; 1 the squared error
)
CHANNELS = (16, 32, 64, 64)
CHECKPOINT_SECONDS = 60.0
GRADIENT_NORM = 5.0
AVERAGING = 0.998  # of the weights, a step


class Convolution(nn.Module):
    """A convolution with stride 2 whose weight is a matrix, (out, in x kernel x kernel), as Muon needs it."""

    def __init__(self, before: int, width: int, kernel: int):
        super().__init__()
        convolution = nn.Conv2d(before, width, kernel)  # for torch's own initialisation
        self.weight = nn.Parameter(convolution.weight.detach().flatten(1).clone())
        self.bias = nn.Parameter(convolution.bias.detach().clone())  # pyright: ignore[reportOptionalMemberAccess]
        self.kernel = kernel

    def forward(self, pixels: Tensor) -> Tensor:
        weight = self.weight.unflatten(1, (-1, self.kernel, self.kernel))
        return conv2d(pixels, weight, self.bias, 2, self.kernel // 2)


class Encoder(nn.Module):
    """One camera's pictures to features."""

    def __init__(self, size: int, channels: Sequence[int] = CHANNELS, features: int = 128):
        super().__init__()
        self.convs = nn.ModuleList()
        before, side = 3, size
        for i, width in enumerate(channels):
            kernel = 5 if i == 0 else 3
            self.convs.append(Convolution(before, width, kernel))
            before, side = width, (side + 1) // 2
        self.linear = nn.Linear(before * side * side, features)
        self.norm = nn.LayerNorm(features)

    def forward(self, pixels: Tensor) -> Tensor:
        for conv in self.convs:
            pixels = relu(conv(pixels))
        return relu(self.norm(self.linear(pixels.flatten(1))))


class Estimator(nn.Module):
    """Pictures of all cameras and proprioception to means and log variances; `EstimatorNetwork` runs it without torch.

    Args:
        size: pixels a side.
        proprio: numbers of proprioception.
        outputs: see `camera.split`.
    """

    def __init__(self, size: int, proprio: int, outputs: int, features: int = 128, hidden: int = 256):
        super().__init__()
        self.encoders = nn.ModuleList(Encoder(size, features=features) for _ in CAMERAS)
        self.proprio = nn.Linear(proprio, 64)
        width = len(CAMERAS) * features + 64
        self.trunk = nn.ModuleList([nn.Linear(width, hidden), nn.Linear(hidden, hidden)])
        self.head = nn.Linear(hidden + width, outputs)

    def forward(self, frames: Tensor, proprio: Tensor) -> Tensor:
        """(batch, cameras, size, size, 3) uint8 and (batch, proprio) to (batch, outputs)."""
        seen = [encoder(pixels(frames[:, k])) for k, encoder in enumerate(self.encoders)]
        z = torch.cat([*seen, relu(self.proprio(proprio))], 1)
        h = z
        for layer in self.trunk:
            h = relu(layer(h))
        return self.head(torch.cat([h, z], 1))


def pixels(frames: Tensor) -> Tensor:
    """uint8 pictures, last axis colours, as what convolutions take."""
    return (frames.permute(0, 3, 1, 2).float() / 255 - 0.5).contiguous(memory_format=torch.channels_last)


def means_and_log_variances(outputs: Tensor, objects: int) -> tuple[Tensor, Tensor]:
    """A network's outputs, (batch, outputs), as two halves in the order of `Frames.labels`."""
    vectors = outputs[:, : objects * PER_OBJECT].unflatten(1, (objects, 2, PER_OBJECT // 2))
    joints = outputs[:, objects * PER_OBJECT :].unflatten(1, (-1, 2))
    mean = torch.cat([vectors[:, :, 0].flatten(1), joints[..., 0]], 1)
    return mean, torch.cat([vectors[:, :, 1].flatten(1), joints[..., 1]], 1).clamp(*LOG_VARIANCES)


@dataclass
class Data:
    """What is learned from, one frame a row.

    Args:
        frames: (n, cameras, size, size, 3) uint8; may be a memory map.
        proprio, labels: (n, ...) float32.
    """

    frames: Sequence[Array]
    proprio: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.labels)

    def pictures(self, rows: Integers) -> Tensor:
        """Frames of some rows, which may lie in several arrays."""
        starts = np.cumsum([0, *map(len, self.frames)])
        out = np.empty((len(rows), *self.frames[0].shape[1:]), np.uint8)
        for array, low, high in zip(self.frames, starts[:-1], starts[1:], strict=True):
            mine = (rows >= low) & (rows < high)
            out[mine] = array[rows[mine] - low]
        return torch.from_numpy(out)


def losses(outputs: Tensor, labels: Tensor, objects: int) -> tuple[Tensor, Tensor]:
    """The loss to descend, and the negative log likelihood, both a mean over numbers."""
    mean, log_variance = means_and_log_variances(outputs.float(), objects)
    variance = log_variance.exp()
    nll = 0.5 * ((mean - labels) ** 2 / variance + log_variance)
    return (nll * variance.detach() ** BETA).mean(), nll.mean()


def optimisers_of(model: nn.Module, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for what are matrices, AdamW for the rest; the latter's learning rate is ``learning_rate`` / 20.

    With Muon, 128,000 frames teach what AdamW needs 700,000 for (Threading; benchmarks/estimator_optimisers.py).
    """
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    return [
        torch.optim.Muon(matrices, learning_rate, weight_decay=0.01),
        torch.optim.AdamW(others, learning_rate / 20, weight_decay=0.0),
    ]


def cycle(step: int, steps: int) -> float:
    """Part of the learning rate in a step: up in the first tenth, then down to nothing on a cosine."""
    rise = max(1, steps // 10)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + np.cos(np.pi * min(1.0, (step - rise) / max(1, steps - rise))))


def train(
    model: Estimator, data: Data, rows: Integers, objects: int, steps: int, batch_size: int, learning_rate: float, seed: int,
    checkpoint: Path, quiet: bool, note: Callable[[int, float, float], object],
) -> Estimator:  # fmt: skip
    """Train for some steps; goes on from the checkpoint if there is one.

    Args:
        model: where to begin; changed.
        data: what to learn from ...
        rows: ... and which of its rows.
        objects: number of the task's objects.
        steps, batch_size, learning_rate, seed: of the optimisers, see `optimisers_of` and `cycle`.
        checkpoint: file for what is needed to go on, written once a minute.
        quiet: no progress bar.
        note: called now and then with step, smoothed negative log likelihood and seconds.

    Returns:
        the model with its weights averaged over the last steps.
    """
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] (torch's stubs)
    optimisers = optimisers_of(model, learning_rate)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, partial(cycle, steps=steps)) for optimiser in optimisers]
    average = {name: value.clone() for name, value in model.state_dict().items()}
    begin, smooth, before = 0, float("nan"), 0.0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        for part, state in zip([*optimisers, *schedules], saved["optimisers"], strict=True):
            part.load_state_dict(state)
        average, begin, smooth, before = saved["average"], saved["step"], saved["smooth"], saved["seconds"]
    proprio, labels = torch.from_numpy(data.proprio), torch.from_numpy(data.labels)
    began = written = time.monotonic()
    bar = trange(begin, steps, initial=begin, total=steps, unit="batch", disable=quiet, desc="train")
    for step in bar:
        # Drawn from the step alone, so that a run that is taken up again draws what it would have drawn.
        drawn = np.sort(np.random.default_rng([seed, step]).choice(rows, batch_size))
        with torch.autocast("cpu", torch.bfloat16):
            outputs = model(data.pictures(drawn), proprio[drawn])
        loss, nll = losses(outputs, labels[drawn], objects)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        for part in (*optimisers, *schedules):
            part.step()
        part = min(AVERAGING, (step + 1) / (step + 10))
        if step % 5 == 0:
            with torch.no_grad():
                for name, value in model.state_dict().items():
                    average[name].lerp_(value, 1 - part**5)
        likelihood = nll.item()
        smooth = likelihood if np.isnan(smooth) else 0.99 * smooth + 0.01 * likelihood
        seconds = before + time.monotonic() - began
        if step % 200 == 0 or step == steps - 1:
            note(step, smooth, seconds)
            bar.set_postfix(nll=f"{smooth:.3f}", frames_per_s=f"{(step + 1) * batch_size / max(seconds, 1e-9):.0f}")
        if time.monotonic() - written > CHECKPOINT_SECONDS:
            written = time.monotonic()
            state = {
                "model": model.state_dict(), "optimisers": [part.state_dict() for part in (*optimisers, *schedules)],
                "average": average, "step": step + 1, "smooth": smooth, "seconds": seconds,
            }  # fmt: skip
            with atomic_path(checkpoint) as temporary:
                torch.save(state, temporary)
    model.load_state_dict(average)
    if checkpoint.is_file():
        os.remove(checkpoint)
    return model


@torch.no_grad()
def predict(model: Estimator, data: Data, rows: Integers, objects: int, batch_size: int = 256) -> tuple[Array, Array]:
    """Means and standard deviations of some rows' frames, (rows, numbers) each, in the order of `Frames.labels`."""
    parts = []
    for some in np.array_split(rows, max(1, len(rows) // batch_size)):
        outputs = model(data.pictures(some), torch.from_numpy(data.proprio[some]))
        mean, log_variance = means_and_log_variances(outputs, objects)
        parts.append((mean.numpy(), (0.5 * log_variance).exp().numpy()))
    return np.concatenate([mean for mean, _ in parts]), np.concatenate([deviation for _, deviation in parts])


def arrays(model: Estimator) -> dict[str, Array]:
    """The weights as `EstimatorNetwork` takes them."""
    out = {name: value.numpy().astype(np.float32) for name, value in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, Convolution):
            out[f"{name}.weight"] = out[f"{name}.weight"].reshape(
                len(out[f"{name}.bias"]), -1, module.kernel, module.kernel
            )
    return out


def load_arrays(model: Estimator, tensors: Mapping[str, Array]) -> None:
    """Give a model the weights that `arrays` took from one of the same sizes."""
    own = model.state_dict()
    model.load_state_dict(
        {name: torch.from_numpy(tensors[name].astype(np.float32)).reshape(own[name].shape) for name in own}
    )
