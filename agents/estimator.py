"""The camera estimator as a torch module; `estimating` trains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

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
from reinforcegen_envs.typing import Array

WHOLE_CHANNELS, WHOLE_FEATURES = (16, 32, 64), 48  # of encoders: of whole pictures at half resolution ...
WINDOW_CHANNELS, WINDOW_FEATURES = (16, 48, 64), 64  # ... and of windows
JITTER = 2  # pixels that windows are off in training
BFLOAT16 = torch.cpu._is_avx512_bf16_supported()  # processors that must emulate it train at 0.4 times the speed with it


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

    In training, encoders compute in bfloat16 where the processor can, and windows are a little off where the rough estimate puts
    them.

    Args:
        size: pixels a side.
        proprio: numbers of proprioception.
        owners: by joint, index of the object that it belongs to, see `camera.joint_owners`.
        objects: how many.
        views: of the cameras, see `EstimatorNetwork`.

    Attributes:
        generator: of what is drawn in training.
    """

    def __init__(self, size: int, proprio: int, objects: int, owners: Sequence[int], views: Sequence[Sequence[float]]):
        super().__init__()
        self.generator = torch.Generator()
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
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training and BFLOAT16):
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
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training and BFLOAT16):
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
                    pixel = pixel + torch.randint(-JITTER, JITTER + 1, (batch, 2), generator=self.generator)
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
