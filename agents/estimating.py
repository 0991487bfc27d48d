"""How a camera estimator is trained: used by `perceive`."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import trange

from reinforcegen_envs.agents.estimator import Estimator, means_and_log_variances
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.perception.network import PER_OBJECT
from reinforcegen_envs.typing import Array, Integers

# Of the beta-NLL (Seitzer et al. 2022): 0 is the NLL, whose gradients starve what is hard; 1 the squared error.
BETA = 0.5
CHECKPOINT_SECONDS = 60.0
GRADIENT_NORM = 5.0
AVERAGING = 0.998  # of the weights, a step


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


def losses(outputs: Tensor, rough: Tensor, labels: Tensor, objects: int) -> tuple[Tensor, Tensor]:
    """The loss to descend, and the negative log likelihood, both a mean over numbers.

    Args:
        outputs, rough: of the network; nothing that is learned from the windows changes where they are.
        labels: (batch, numbers).
        objects: how many.
    """
    loss, nll = loss_of(outputs, labels, objects)
    return loss + loss_of(rough, labels[:, : objects * PER_OBJECT // 2], objects)[0], nll


def loss_of(outputs: Tensor, labels: Tensor, objects: int) -> tuple[Tensor, Tensor]:
    """The beta-NLL, and the negative log likelihood."""
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
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))


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
    model.train()
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
        rng = np.random.default_rng([seed, step])
        drawn = np.sort(rng.choice(rows, batch_size))
        model.generator.manual_seed(int(rng.integers(2**63)))
        outputs, rough = model(data.pictures(drawn), proprio[drawn])
        loss, nll = losses(outputs, rough, labels[drawn], objects)
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
    model.eval()
    if checkpoint.is_file():
        os.remove(checkpoint)
    return model


@torch.no_grad()
def predict(model: Estimator, data: Data, rows: Integers, objects: int, batch_size: int = 256) -> tuple[Array, Array]:
    """Means and standard deviations of some rows' frames, (rows, numbers) each, in the order of `Frames.labels`."""
    model.eval()
    parts = []
    for some in np.array_split(rows, max(1, len(rows) // batch_size)):
        outputs, _ = model(data.pictures(some), torch.from_numpy(data.proprio[some]))
        mean, log_variance = means_and_log_variances(outputs, objects)
        parts.append((mean.numpy(), (0.5 * log_variance).exp().numpy()))
    return np.concatenate([mean for mean, _ in parts]), np.concatenate([deviation for _, deviation in parts])
