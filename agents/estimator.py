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
from reinforcegen_envs.models.scene import load_scene
from reinforcegen_envs.perception.camera import joint_owners, proprio_size, views_of
from reinforcegen_envs.perception.fusion import CENTRE, HAND_UNIT, UNIT
from reinforcegen_envs.perception.network import (
    BEYOND,
    GEOMETRY,
    LOG_VARIANCES,
    LOOKS,
    NEAREST,
    PER_OBJECT,
    SCALE,
    SCALE_POSITION,
    WINDOWS,
)
from reinforcegen_envs.tasks.base import Task
from reinforcegen_envs.typing import Array, Integers

BETA = (
    0.5  # of the beta-NLL (Seitzer et al. 2022): 0 is the NLL, whose gradients starve what is hard; 1 the squared error
)
WHOLE_CHANNELS, WHOLE_FEATURES = (16, 32, 64), 48  # of encoders: of whole pictures at half resolution ...
WINDOW_CHANNELS, WINDOW_FEATURES = (16, 48, 64), 64  # ... and of windows
JITTER = 2  # pixels that windows are off in training
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
    """Pictures to features.

    Args:
        size: pixels a side.
        channels: of the convolutions.
        features: how many.
    """

    def __init__(self, size: int, channels: Sequence[int], features: int):
        super().__init__()
        self.convs = nn.ModuleList()
        before, side = 3, size
        for i, width in enumerate(channels):
            self.convs.append(Convolution(before, width, 3 if i else 5))
            before, side = width, (side + 1) // 2
        self.linear = nn.Linear(before * side * side, features)
        self.norm = nn.LayerNorm(features)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = relu(conv(x))
        return relu(self.norm(self.linear(x.flatten(1))))


class Layers(nn.ModuleList):
    """Two layers, and a head that sees their input as well."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 128):
        super().__init__([nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden + inputs, outputs)])

    def forward(self, x: Tensor) -> Tensor:
        return self[2](torch.cat([relu(self[1](relu(self[0](x)))), x], 1))


class Estimator(nn.Module):
    """Pictures of both cameras and proprioception to means and log variances; `EstimatorNetwork` runs it without torch.

    In training, encoders compute in bfloat16, and windows are a little off where the rough estimate puts them.

    Args:
        size: pixels a side.
        proprio: numbers of proprioception.
        owners: by joint, index of the object that it belongs to, see `camera.joint_owners`.
        objects: how many.
        views: of the cameras, see `EstimatorNetwork`.
    """

    def __init__(self, size: int, proprio: int, objects: int, owners: Sequence[int], views: Sequence[Sequence[float]]):
        super().__init__()
        self.size, self.views = size, [torch.tensor(view, dtype=torch.float32) for view in views]
        self.whole = nn.ModuleList(Encoder(size // 2, WHOLE_CHANNELS, WHOLE_FEATURES) for _ in WINDOWS)
        self.windows = nn.ModuleList(Encoder(side, WINDOW_CHANNELS, WINDOW_FEATURES) for side in WINDOWS)
        self.proprio = nn.Linear(proprio, 64)
        width = 2 * WHOLE_FEATURES + 64
        self.rough = Layers(width, objects * PER_OBJECT)
        width += 2 * WINDOW_FEATURES + GEOMETRY
        self.objects = nn.ModuleList(Layers(width, PER_OBJECT + 2 * owners.count(n)) for n in range(objects))

    def forward(self, frames: Tensor, proprio: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, 2, size, size, 3) uint8 and (batch, proprio) to outputs (batch, outputs), and to rough ones, without joints."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training):
            seen = [encoder(halved(frames[:, k])) for k, encoder in enumerate(self.whole)]
        z = torch.cat([*(part.float() for part in seen), relu(self.proprio(proprio))], 1)
        rough = self.rough(z)
        known = rough.detach().unflatten(1, (len(self.objects), 2, 2, 9))
        # In training, half of a batch takes its only look around the rough estimate, half its last around what was found.
        again = slice(1, None, 2) if self.training else slice(None)
        for _ in range(LOOKS - 1):
            with torch.no_grad():
                found = self._look(frames[again], proprio[again], z[again], known[again])
            known = known.clone()
            known[again] = found[:, : rough.shape[1]].unflatten(1, known.shape[1:])
        return self._look(frames, proprio, z, known), rough

    def _look(self, frames: Tensor, proprio: Tensor, z: Tensor, known: Tensor) -> Tensor:
        """Outputs of windows around what is known.

        Args:
            frames, proprio: as in `forward`.
            z: features (batch, features) of all that is not in windows.
            known: (batch, objects, 2, 2, 9), an estimate of every object as the outputs have it.
        """
        geometry, anchors, windows = self._aim(frames, proprio, known[:, :, 0], known[:, :, 1].clamp(*LOG_VARIANCES))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training):
            near = [encoder(pixels(windows[k])) for k, encoder in enumerate(self.windows)]
        near = [part.float().unflatten(0, (len(self.objects), len(frames))) for part in near]
        vectors, joints = [], []
        for n, layers in enumerate(self.objects):
            y = layers(torch.cat([near[0][n], near[1][n], geometry[n], z], 1))
            own = y[:, :PER_OBJECT].unflatten(1, (2, 2, 9))
            moved = SCALE_POSITION * own[:, 0, :, :3] + anchors[n]
            vectors.append(torch.cat([torch.cat([moved, own[:, 0, :, 3:]], 2).flatten(1), own[:, 1].flatten(1)], 1))
            joints.append(y[:, PER_OBJECT:])
        return torch.cat([*vectors, *joints], 1)

    def _aim(
        self, frames: Tensor, proprio: Tensor, mean: Tensor, log_variance: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """By object what is known of where to look, and the windows' anchors (batch, 2, 3); by camera the windows of all objects.

        Args:
            frames, proprio: as in `forward`.
            mean, log_variance: of what is known (batch, objects, 2, 9).
        """
        batch, size = len(frames), self.size
        at, first, second = proprio[:, :3] * HAND_UNIT, proprio[:, 3:6], proprio[:, 6:9]
        hand = torch.stack([first, second, torch.cross(first, second, dim=1)], 2)
        geometry: list[Tensor] = []
        anchors: list[Tensor] = []
        windows: list[list[Tensor]] = [[], []]
        for n in range(mean.shape[1]):
            worth = log_variance[:, n, :, :3].exp().mean(2, keepdim=True)
            from_hand = (hand @ mean[:, n, 1, :3, None])[..., 0] * UNIT + at
            place = (mean[:, n, 0, :3] * UNIT / worth[:, 0] + from_hand / worth[:, 1]) / (1 / worth).sum(1)
            places = [place, ((place - at)[:, None] @ hand)[:, 0]]
            points: list[Tensor] = []
            for k, side in enumerate(WINDOWS):
                eye, axes, focal = self.views[k][:3], self.views[k][3:12].reshape(3, 3), self.views[k][12] * size
                if k == 0:
                    eye = eye - torch.tensor(CENTRE, dtype=torch.float32)
                seen = (places[k] - eye) @ axes
                depth = (-seen[:, 2]).clamp(min=NEAREST)
                pixel = torch.stack(
                    [0.5 * size + focal * seen[:, 0] / depth, 0.5 * size - focal * seen[:, 1] / depth], 1
                )
                pixel = pixel.floor().clamp(-BEYOND, size + BEYOND)
                if self.training:
                    pixel = pixel + torch.randint(-JITTER, JITTER + 1, (batch, 2))
                ray = (pixel + 0.5 - 0.5 * size) / focal * depth[:, None]
                points.append((torch.stack([ray[:, 0], -ray[:, 1], -depth], 1) @ axes.T + eye) / UNIT)
                windows[k].append(cut_out(frames[:, k], pixel.long(), side))
            anchors.append(torch.stack(points, 1))
            offsets = [place / UNIT - point for place, point in zip(places, points, strict=True)]
            geometry.append(
                torch.cat([mean[:, n].flatten(1), SCALE * log_variance[:, n].flatten(1), *points, *offsets], 1)
            )
        return geometry, anchors, [torch.cat(parts) for parts in windows]


def estimator_for(task: type[Task], size: int) -> Estimator:
    """A network for a task that knows nothing, for pictures of some size."""
    model = load_scene(task.scene)
    owners = joint_owners(model, task(model))
    return Estimator(size, proprio_size(task), len(task.objects), owners, views_of(task))


def cut_out(frames: Tensor, middles: Tensor, side: int) -> Tensor:
    """Windows (batch, side, side, 3) of pictures, around pixels (batch, 2: column, row); black outside the pictures."""
    batch, size = len(frames), frames.shape[1]
    margin = side // 2 + BEYOND + JITTER
    padded = torch.zeros(batch, size + 2 * margin, size + 2 * margin, 3, dtype=torch.uint8)
    padded[:, margin:-margin, margin:-margin] = frames
    along = torch.arange(side) - side // 2 + margin
    rows, columns = middles[:, 1, None] + along, middles[:, 0, None] + along
    return padded[torch.arange(batch)[:, None, None], rows[:, :, None], columns[:, None, :]]


def halved(frames: Tensor) -> Tensor:
    """uint8 pictures at half their resolution, as what convolutions take; a last odd row and column are left out."""
    side = frames.shape[1] // 2 * 2
    four = [frames[:, i:side:2, j:side:2].to(torch.int16) for i in (0, 1) for j in (0, 1)]
    total = four[0] + four[1] + four[2] + four[3]
    return (total.permute(0, 3, 1, 2).float() / (4 * 255) - 0.5).contiguous(memory_format=torch.channels_last)


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
        drawn = np.sort(np.random.default_rng([seed, step]).choice(rows, batch_size))
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
