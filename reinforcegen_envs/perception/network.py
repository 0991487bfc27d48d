"""The network of a camera pose estimator, run without torch: compiled, without the GIL, and bit for bit reproducible.

It looks more than once. At both whole pictures, at half their resolution: an encoder a camera (convolutions, a linear layer,
layer normalisation), and with proprioception a trunk of two layers and a head, say roughly where every object is. Then at a
window around each object, at full resolution, in both pictures: what is left to say is where in the window the object is, which
looks alike wherever the object stands; a network that sees whole pictures alone has to learn every place anew
(docs/perception.md). Then once more, with the same parameters, at a window around what the first window has told.

A BLAS may start threads, which on a busy machine wait for each other, and round as it likes; these are loops whose order of
additions is fixed. Calls share no scratch: threads may call one network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.perception.fusion import CENTRE, HAND_UNIT, UNIT
from reinforcegen_envs.policies.mlp import dense
from reinforcegen_envs.policies.weights_file import CARD_VERSION, WeightsError, read_weights, write_weights
from reinforcegen_envs.sim.cameras import CAMERAS, SIZE

Array = NDArray[Any]
FORMAT = "reinforcegen-estimator-2"
STRIDE = 2
EPSILON = 1e-5  # torch's in layer normalisation
BLOCK = 16  # channels that are computed together: a cache line; others are filled up with zeros
TILE = 6  # pixels that are computed together: each weight that is loaded serves them all
FOREIGN = "train one with python -m reinforcegen_envs.agents.perceive"
LOG_VARIANCES = (-12.0, 4.0)  # what a network's are cut to
PER_OBJECT = 2 * 2 * 9  # outputs: (mean, log variance) x (world, hand) x three vectors
GEOMETRY = PER_OBJECT + 4 * 3  # rough estimate; in both frames the anchor of the window, and the object from there
WINDOWS = (32, 40)  # pixels along a side; by camera: what the wrist's sees is nearer (ours)
BEYOND = 4  # pixels outside the picture that a window's middle may be (ours)
LOOKS = 2  # at windows: each is around what the one before has found (ours)
NEAREST = 0.05  # metres: what is nearer to a camera, or behind it, counts as that deep (ours)
SCALE = 0.2  # of log variances as inputs
SCALE_POSITION = 0.3  # of an object's position from the window's anchor, in `fusion.UNIT` (ours)
VIEW = 13  # numbers that say where a camera is and how it sees


@numba.njit(cache=True, nogil=True)
def _convolve(x: Array, weight: Array, bias: Array, row: Array, out: Array) -> None:
    """Convolution and relu, from one padded image into the inside of another.

    What a kernel's row sees of an image is contiguous, so nothing is gathered first. ``total`` holds a tile's sums.

    Args:
        x: the image (side, side, width), flat, with at least one more number behind it.
        weight: (blocks, kernel * run, `BLOCK`); ``run`` is kernel * width, made even by a zero weight.
        bias: (blocks * `BLOCK`,).
        row: the layer's numbers, see `_plan`.
        out: the next image, flat; its padding is left as it is.
    """
    kernel, side, width, size, out_pad, out_side = row[0], row[1], row[2], row[3], row[4], row[5]
    run = weight.shape[1] // kernel
    out_width, last = len(bias), size * size - 1
    total = np.empty(TILE * BLOCK + BLOCK, np.float32)
    total = total[-total.ctypes.data // 4 % BLOCK :]  # from the beginning of a cache line
    for block in range(weight.shape[0]):
        w = weight[block]
        for first in range(0, size * size, TILE):
            # Behind the last pixel it comes again.
            p0, p1, p2 = first, min(first + 1, last), min(first + 2, last)
            p3, p4, p5 = min(first + 3, last), min(first + 4, last), min(first + 5, last)
            i0 = (p0 // size * side + p0 % size) * STRIDE * width
            i1 = (p1 // size * side + p1 % size) * STRIDE * width
            i2 = (p2 // size * side + p2 % size) * STRIDE * width
            i3 = (p3 // size * side + p3 % size) * STRIDE * width
            i4 = (p4 // size * side + p4 % size) * STRIDE * width
            i5 = (p5 // size * side + p5 % size) * STRIDE * width
            for j in range(TILE * BLOCK):
                total[j] = 0.0
            for y in range(kernel):
                at = y * side * width
                for k in range(0, run, 2):  # two at a time spare loads and stores of ``total``
                    u0, v0 = x[at + i0 + k], x[at + i0 + k + 1]
                    u1, v1 = x[at + i1 + k], x[at + i1 + k + 1]
                    u2, v2 = x[at + i2 + k], x[at + i2 + k + 1]
                    u3, v3 = x[at + i3 + k], x[at + i3 + k + 1]
                    u4, v4 = x[at + i4 + k], x[at + i4 + k + 1]
                    u5, v5 = x[at + i5 + k], x[at + i5 + k + 1]
                    wu, wv = w[y * run + k], w[y * run + k + 1]
                    for j in range(BLOCK):
                        total[j] = total[j] + u0 * wu[j] + v0 * wv[j]
                        total[BLOCK + j] = total[BLOCK + j] + u1 * wu[j] + v1 * wv[j]
                        total[2 * BLOCK + j] = total[2 * BLOCK + j] + u2 * wu[j] + v2 * wv[j]
                        total[3 * BLOCK + j] = total[3 * BLOCK + j] + u3 * wu[j] + v3 * wv[j]
                        total[4 * BLOCK + j] = total[4 * BLOCK + j] + u4 * wu[j] + v4 * wv[j]
                        total[5 * BLOCK + j] = total[5 * BLOCK + j] + u5 * wu[j] + v5 * wv[j]
            for pixel in range(first, min(first + TILE, size * size)):
                begin = ((out_pad + pixel // size) * out_side + out_pad + pixel % size) * out_width + block * BLOCK
                for j in range(BLOCK):
                    out[begin + j] = max(total[(pixel - first) * BLOCK + j] + bias[block * BLOCK + j], np.float32(0.0))


@numba.njit(cache=True, nogil=True)
def _normalise(x: Array, gain: Array, shift: Array) -> None:
    """Layer normalisation of ``x`` (n,), in place."""
    mean, variance = 0.0, 0.0
    for value in x:
        mean += value
    mean /= len(x)
    for value in x:
        variance += (value - mean) ** 2
    scale = 1.0 / np.sqrt(variance / len(x) + EPSILON)
    for i in range(len(x)):
        x[i] = (x[i] - mean) * scale * gain[i] + shift[i]


@numba.njit(cache=True, nogil=True)
def _relu(x: Array) -> None:
    for i in range(len(x)):
        x[i] = max(x[i], np.float32(0.0))


@numba.njit(cache=True, nogil=True)
def _encode(
    x: Array, plan: Array, convs: tuple[Array, ...], biases: tuple[Array, ...], first: int,
    linear: Array, linear_bias: Array, norm: Array, out: Array,
) -> None:  # fmt: skip
    """An encoder: a padded picture, flat, as `_convolve` takes it, to features ``out`` (1, features)."""
    for layer in range(len(plan)):
        bias = biases[first + layer]
        y = np.zeros(plan[layer, 5] * plan[layer, 5] * len(bias) + 1, np.float32)
        _convolve(x, convs[first + layer], bias, plan[layer], y)
        x = y
    dense(x[:-1].reshape(1, len(x) - 1), linear, linear_bias, out)
    _normalise(out[0], norm[0], norm[1])
    _relu(out[0])


@numba.njit(cache=True, nogil=True)
def _halved(frame: Array, row: Array) -> Array:
    """A picture at half its resolution, padded and flat, for a first convolution of these numbers (see `_plan`)."""
    pad, side, width, size = row[0] // 2, row[1], row[2], row[1] - row[0] // 2 * 2
    x = np.zeros(side * side * width + 1, np.float32)
    for i in range(size):
        for j in range(size):
            at = ((pad + i) * side + pad + j) * width
            for k in range(width):
                four = np.float32(frame[2 * i, 2 * j, k]) + np.float32(frame[2 * i, 2 * j + 1, k])
                four += np.float32(frame[2 * i + 1, 2 * j, k]) + np.float32(frame[2 * i + 1, 2 * j + 1, k])
                x[at + k] = four / np.float32(4 * 255.0) - np.float32(0.5)
    return x


@numba.njit(cache=True, nogil=True)
def _window(frame: Array, column: int, line: int, row: Array) -> Array:
    """The same of a window around a pixel; what lies outside the picture is black."""
    pad, side, width, size = row[0] // 2, row[1], row[2], row[1] - row[0] // 2 * 2
    x = np.zeros(side * side * width + 1, np.float32)
    for i in range(size):
        for j in range(size):
            at = ((pad + i) * side + pad + j) * width
            v, u = line + i - size // 2, column + j - size // 2
            inside = 0 <= v < len(frame) and 0 <= u < len(frame)
            for k in range(width):
                value = np.float32(frame[v, u, k]) if inside else np.float32(0.0)
                x[at + k] = value / np.float32(255.0) - np.float32(0.5)
    return x


@numba.njit(cache=True, nogil=True)
def _aim(position: Array, view: Array, size: int) -> tuple[int, int, Array]:
    """Which pixel shows a point, and the point on the pixel's ray that is as deep.

    Args:
        position: (3,) of the point, metres, in the frame that the camera is fixed in.
        view: the camera's, see `EstimatorNetwork`.
        size: pixels along a picture's side.

    Returns:
        column, row, both at most `BEYOND` outside the picture; and the point (3,), metres.
    """
    eye, axes, focal = view[:3], view[3:12].reshape(3, 3), view[12] * size
    seen = np.zeros(3)
    for i in range(3):
        for j in range(3):
            seen[i] += axes[j, i] * (position[j] - eye[j])
    depth = max(-seen[2], NEAREST)
    low, high = -BEYOND, size + BEYOND
    column = int(min(max(np.floor(0.5 * size + focal * seen[0] / depth), low), high))
    row = int(min(max(np.floor(0.5 * size - focal * seen[1] / depth), low), high))
    seen[0], seen[1], seen[2] = (
        (column + 0.5 - 0.5 * size) / focal * depth, -(row + 0.5 - 0.5 * size) / focal * depth, -depth,
    )  # fmt: skip
    point = eye.copy()
    for i in range(3):
        for j in range(3):
            point[i] += axes[i, j] * seen[j]
    return column, row, point


@numba.njit(cache=True, nogil=True)
def _layers(x: Array, weights: tuple[Array, ...], biases: tuple[Array, ...], first: int) -> Array:
    """Two layers, and a head that sees their input as well: ``x`` (1, n) to (outputs,)."""
    h = x
    for layer in range(first, first + 2):
        out = np.empty((1, len(biases[layer])), np.float32)
        dense(h, weights[layer], biases[layer], out)
        _relu(out[0])
        h = out
    y = np.empty((1, len(biases[first + 2])), np.float32)
    dense(np.concatenate((h, x), 1), weights[first + 2], biases[first + 2], y)
    return y[0]


@numba.njit(cache=True, nogil=True)
def _forward(
    frames: Array,
    proprio: Array,
    objects: int,
    joints: int,
    views: Array,
    plan: Array,
    convs: tuple[Array, ...],
    conv_biases: tuple[Array, ...],
    linears: tuple[Array, ...],
    linear_biases: tuple[Array, ...],
    norms: tuple[Array, ...],
    origin: Array,
) -> Array:
    """Run a network once; see `EstimatorNetwork.packed`. What it writes to in between is its own."""
    size, layers = frames.shape[1], plan.shape[1]
    whole, window, felt = norms[0].shape[1], norms[2].shape[1], len(linear_biases[4])
    z = np.empty((1, 2 * whole + felt), np.float32)
    for camera in range(2):
        x = _halved(frames[camera], plan[camera, 0])
        part = z[:, camera * whole : (camera + 1) * whole]
        _encode(
            x, plan[camera], convs, conv_biases, camera * layers, linears[camera], linear_biases[camera], norms[camera], part
        )  # fmt: skip
    dense(proprio.reshape(1, len(proprio)), linears[4], linear_biases[4], z[:, 2 * whole :])
    _relu(z[0, 2 * whole :])
    rough = _layers(z, linears, linear_biases, 5)

    hand = np.empty((3, 3))
    hand[:, 0], hand[:, 1] = proprio[3:6], proprio[6:9]
    hand[:, 2] = np.cross(hand[:, 0], hand[:, 1])
    at = proprio[:3].astype(np.float64) * HAND_UNIT
    out = np.empty(objects * PER_OBJECT + 2 * joints, np.float32)
    joint = objects * PER_OBJECT
    w = np.empty((1, 2 * window + GEOMETRY + z.shape[1]), np.float32)
    w[0, 2 * window + GEOMETRY :] = z[0]
    for n in range(objects):
        mine = out[n * PER_OBJECT : (n + 1) * PER_OBJECT]
        mine[:] = rough[n * PER_OBJECT : (n + 1) * PER_OBJECT]
        for _ in range(LOOKS):
            known = mine.copy()
            # Where it is, by what both frames' estimates are worth.
            worth = np.zeros(2)
            for frame in range(2):
                for i in range(3):
                    log_variance = min(max(known[18 + 9 * frame + i], LOG_VARIANCES[0]), LOG_VARIANCES[1])
                    worth[frame] += np.exp(log_variance) / 3.0
            places = np.empty((2, 3))  # metres: from the origin along the world's axes, from the hand along the hand's
            for i in range(3):
                from_hand = at[i]
                for j in range(3):
                    from_hand += hand[i, j] * known[9 + j] * UNIT
                places[0, i] = (known[i] * UNIT / worth[0] + from_hand / worth[1]) / (1.0 / worth[0] + 1.0 / worth[1])
            for i in range(3):
                places[1, i] = 0.0
                for j in range(3):
                    places[1, i] += hand[j, i] * (places[0, j] - at[j])
            anchors = np.empty((2, 3))
            for camera in range(2):
                place = places[camera] + origin if camera == 0 else places[camera]
                column, row, anchor = _aim(place, views[camera], size)
                anchors[camera] = (anchor - origin if camera == 0 else anchor) / UNIT
                k = 2 + camera
                x = _window(frames[camera], column, row, plan[k, 0])
                part = w[:, camera * window : (camera + 1) * window]
                _encode(x, plan[k], convs, conv_biases, k * layers, linears[k], linear_biases[k], norms[k], part)
            geometry = w[0, 2 * window : 2 * window + GEOMETRY]
            for i in range(18):
                geometry[i] = known[i]
                geometry[18 + i] = SCALE * min(max(known[18 + i], LOG_VARIANCES[0]), LOG_VARIANCES[1])
            for camera in range(2):
                for i in range(3):
                    geometry[36 + 3 * camera + i] = anchors[camera, i]
                    geometry[42 + 3 * camera + i] = places[camera, i] / UNIT - anchors[camera, i]
            y = _layers(w, linears, linear_biases, 8 + 3 * n)
            mine[:] = y[:PER_OBJECT]
            for camera in range(2):
                for i in range(3):
                    mine[9 * camera + i] = (
                        np.float32(anchors[camera, i]) + np.float32(SCALE_POSITION) * y[9 * camera + i]
                    )
            out[joint : joint + len(y) - PER_OBJECT] = y[PER_OBJECT:]
        joint += len(y) - PER_OBJECT
    return out


class EstimatorNetwork:
    """A fixed network from the cameras' frames and proprioception to numbers that say where objects are.

    Nothing in it changes and every call has its own scratch, so any number of threads may call it, and deep copies share it.

    Args:
        arrays: the parameters by torch's names, each with ``.weight`` and ``.bias``: encoders ``whole.{camera}`` and
            ``windows.{camera}``, each of ``.convs.{i}``, ``.linear`` and ``.norm``; ``proprio``; ``rough.{0,1,2}``, two layers
            and a head; ``objects.{n}.{0,1,2}``, the same for each object. Convolutions have odd kernels, stride 2 and padding
            kernel // 2; ``linear`` takes channels, rows and columns in this order.
        views: (2, 13) of the cameras, of which the first is fixed in the world and the second in the hand: position (metres),
            rotation (3 x 3, rows after one another; it looks along -z, y is up), focal length as a part of a picture's side.
        size: pixels along a frame's side.

    Attributes:
        size: pixels along a frame's side.
        proprio_size: numbers of proprioception.
        output_size: numbers of the output.
        objects, joints: numbers of what they speak of.
        packed: what the compiled loops take.

    Raises:
        WeightsError: parameters are missing, not finite, or of shapes that do not fit together or to the frames.
    """

    def __init__(self, arrays: Mapping[str, Array], views: Array, size: int = SIZE):
        arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        # The compiled loops check no bounds.
        self.objects, self.joints, sides = _check(arrays, size)
        views = np.array(views, np.float64)
        if views.shape != (len(CAMERAS), VIEW) or not np.isfinite(views).all():
            raise WeightsError(f"views have shape {views.shape}; needed are {len(CAMERAS)} x {VIEW} finite numbers")
        self.size = size
        self.proprio_size = arrays["proprio.weight"].shape[1]
        self.output_size = self.objects * PER_OBJECT + 2 * self.joints
        plans: list[Array] = []
        convs: list[tuple[Array, Array]] = []
        linears: list[tuple[Array, Array]] = []
        norms: list[Array] = []
        for name, side in sides.items():
            layers = _layers_of(arrays, name)
            kernels = [arrays[f"{name}.convs.{i}.weight"].shape[2] for i in range(layers)]
            plan = _plan(side, kernels, [len(arrays[f"{name}.convs.{i}.bias"]) for i in range(layers)])
            for i, width in enumerate(plan[:, 2]):
                conv = f"{name}.convs.{i}"
                convs.append(_pack_convolution(arrays[f"{conv}.weight"], arrays[f"{conv}.bias"], int(width)))
            channels, last = len(arrays[f"{name}.convs.{layers - 1}.bias"]), int(plan[-1, 3])
            weight = arrays[f"{name}.linear.weight"].reshape(-1, channels, last, last).transpose(2, 3, 1, 0)
            weight = np.pad(weight, ((0, 0), (0, 0), (0, -channels % BLOCK), (0, 0)))
            linears.append((weight.reshape(-1, weight.shape[-1]), arrays[f"{name}.linear.bias"]))
            norms.append(np.array([arrays[f"{name}.norm.{part}"] for part in ("weight", "bias")]))
            plans.append(plan)
        for name in ("proprio", *(f"{net}.{i}" for net in _nets(self.objects) for i in range(3))):
            linears.append((np.ascontiguousarray(arrays[f"{name}.weight"].T), arrays[f"{name}.bias"]))
        columns = [*zip(*convs, strict=True), *zip(*linears, strict=True)]
        packed = [tuple(np.array(array, order="C") for array in column) for column in columns]
        self.packed: tuple[Any, ...] = (
            self.objects, self.joints, views, np.array(plans), *packed, tuple(norms), np.array(CENTRE),
        )  # fmt: skip

    def __call__(self, frames: Array, proprio: Array) -> Array:
        """Map what is seen and felt to the outputs.

        Args:
            frames: (2, size, size, 3) uint8.
            proprio: (proprio_size,), finite; see `camera.proprio`.

        Returns:
            (output_size,) float32; the same bits for the same inputs.

        Raises:
            InvalidArgument: inputs are of another type or shape, or not finite.
        """
        # Copies: compiled code is made anew for arrays that are read-only or not contiguous.
        frames, shape = np.array(frames, order="C"), (len(CAMERAS), self.size, self.size, 3)
        if frames.dtype != np.uint8 or frames.shape != shape:
            raise InvalidArgument(
                f"frames are {frames.dtype} of shape {frames.shape}; needed is uint8 of shape {shape}"
            )
        proprio = np.array(proprio, np.float32, order="C")
        if proprio.shape != (self.proprio_size,):
            raise InvalidArgument(f"proprio has shape {proprio.shape}; this network takes ({self.proprio_size},)")
        if not np.isfinite(proprio).all():
            raise InvalidArgument(f"proprio has numbers that are not finite at {np.nonzero(~np.isfinite(proprio))[0]}")
        return _forward(frames, proprio, *self.packed)

    def __deepcopy__(self, memo: dict[int, Any]) -> EstimatorNetwork:
        return self


def _nets(objects: int) -> list[str]:
    """Names of what has two layers and a head."""
    return ["rough", *(f"objects.{n}" for n in range(objects))]


def _layers_of(arrays: Mapping[str, Array], encoder: str) -> int:
    """Number of an encoder's convolutions."""
    return sum(name.startswith(f"{encoder}.convs.") and name.endswith(".weight") for name in arrays)


def _check(arrays: Mapping[str, Array], size: int) -> tuple[int, int, dict[str, int]]:
    """Numbers of objects and joints, and encoder -> side of its picture, after checking that all parameters are there and fit.

    Raises:
        WeightsError: they do not, or are not finite.
    """
    if not isinstance(size, int) or size < 2:
        raise WeightsError(f"size is {size!r}; it must be a whole number of pixels, at least 2")
    sides = {f"whole.{k}": size // 2 for k in range(len(CAMERAS))}
    sides |= {f"windows.{k}": side for k, side in enumerate(WINDOWS)}
    objects = sum(name.startswith("objects.") and name.endswith(".2.weight") for name in arrays)
    if objects == 0 or not all(_layers_of(arrays, name) for name in sides):
        raise WeightsError("there are no objects, or an encoder without convolutions, among the parameters")

    def length(name: str, axis: int = 0) -> int:
        shape = arrays[name].shape if name in arrays else ()
        return shape[axis] if axis < len(shape) else 0

    needed: dict[str, tuple[int, ...]] = {}
    features: dict[str, int] = {}
    layers = _layers_of(arrays, "whole.0")
    for name, side in sides.items():
        kind = name.split(".")[0]
        features.setdefault(kind, length(f"{name}.linear.weight"))
        channels = 3
        for i in range(layers):
            kernel, out = (length(f"{name}.convs.{i}.weight", axis) for axis in (2, 0))
            if kernel % 2 == 0:
                raise WeightsError(f"{name}.convs.{i}.weight has a kernel of {kernel}; it must be odd")
            needed[f"{name}.convs.{i}.weight"] = (out, channels, kernel, kernel)
            channels, side = out, (side - 1) // STRIDE + 1
        needed[f"{name}.linear.weight"] = (features[kind], channels * side * side)
        needed[f"{name}.norm.weight"] = (features[kind],)
    needed["proprio.weight"] = (length("proprio.weight"), length("proprio.weight", 1))
    seen = 2 * features["whole"] + length("proprio.weight")
    heads = {net: length(f"{net}.2.weight") for net in _nets(objects)}
    joints = sum(heads[net] - PER_OBJECT for net in heads if net != "rough") // 2
    heads["rough"] = objects * PER_OBJECT
    for net in heads:
        inputs = seen if net == "rough" else 2 * features["windows"] + GEOMETRY + seen
        hidden, last = length(f"{net}.0.weight"), length(f"{net}.1.weight")
        needed[f"{net}.0.weight"], needed[f"{net}.1.weight"] = (hidden, inputs), (last, hidden)
        needed[f"{net}.2.weight"] = (heads[net], last + inputs)
    needed.update({name.replace("weight", "bias"): shape[:1] for name, shape in needed.items()})
    if needed.keys() != arrays.keys():
        missing, unknown = sorted(needed.keys() - arrays.keys()), sorted(arrays.keys() - needed.keys())
        raise WeightsError(f"parameters are missing {missing}, or unknown {unknown}")
    for name, shape in needed.items():
        if arrays[name].shape != shape or arrays[name].size == 0:
            raise WeightsError(
                f"{name} has shape {arrays[name].shape}, which does not fit the others and frames of {size} x {size} "
                f"pixels; needed is {shape}"
            )
        if not np.isfinite(arrays[name]).all():
            raise WeightsError(f"{name} has numbers that are not finite, or too large")
    if any(count < PER_OBJECT or (count - PER_OBJECT) % 2 for net, count in heads.items() if net != "rough"):
        raise WeightsError(f"an object's head has {PER_OBJECT} outputs and two for each of its joints, not {heads}")
    return objects, joints, sides


def _plan(size: int, kernels: list[int], channels: list[int]) -> Array:
    """A row of integers for each convolution: its kernel; side and width of the padded image it reads; pixels along a side of
    what it computes; padding and side of the image it writes. Widths are channels, behind the first filled up to whole blocks.
    """
    rows: list[list[int]] = []
    width = 3
    for kernel, after, out in zip(kernels, [*kernels[1:], 1], channels, strict=True):
        side, pad = size + kernel // 2 * 2, after // 2
        size = (size - 1) // STRIDE + 1
        rows.append([kernel, side, width, size, pad, size + 2 * pad])
        width = out + -out % BLOCK
    return np.array(rows, np.int64)


def _pack_convolution(weight: Array, bias: Array, width: int) -> tuple[Array, Array]:
    """A convolution's weight (out, in, kernel, kernel) and bias (out,) as `_convolve` takes them, for an image of ``width``."""
    out, channels, kernel, _ = weight.shape
    weight = np.pad(weight, ((0, -out % BLOCK), (0, width - channels), (0, 0), (0, 0)))
    rows = weight.transpose(2, 3, 1, 0).reshape(kernel, kernel * width, -1)
    rows = np.pad(rows, ((0, 0), (0, kernel * width % 2), (0, 0)))
    return rows.reshape(-1, rows.shape[-1] // BLOCK, BLOCK).transpose(1, 0, 2), np.pad(bias, (0, -out % BLOCK))


def save_estimator(path: str | os.PathLike[str], arrays: Mapping[str, Array], card: Mapping[str, Any]) -> None:
    """Write a network to one safetensors file, its parameters as float16, with a JSON card inside it and beside it (``.json``).

    Args:
        path: the ``.safetensors`` file.
        arrays: the parameters, see `EstimatorNetwork`.
        card: what it is for and where it comes from. "views" are the cameras', see `EstimatorNetwork`. "size", pixels along a
            frame's side, is 84 unless the card has it; "version" and "mujoco", the versions of the ids and of MuJoCo, are this
            package's and the running one, likewise.

    Raises:
        WeightsError: the parameters, as float16, do not make a network.
    """
    card = {"version": CARD_VERSION, "size": SIZE, **card, "format": FORMAT}
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        tensors = {name: np.array(array, np.float16, order="C") for name, array in arrays.items()}
    EstimatorNetwork(tensors, card["views"], card["size"])
    write_weights(path, tensors, card)


def load_estimator(path: str | os.PathLike[str], **expected: Any) -> tuple[EstimatorNetwork, dict[str, Any]]:
    """Read a network written by `save_estimator`.

    Args:
        path: the ``.safetensors`` file.
        expected: card entries that must match, e.g. ``task="Threading"``, ``size=84``.

    Returns:
        The network and the card.

    Raises:
        WeightsError: no such file, not a readable safetensors file, not of this format, or made for another task, camera,
            size or version.
    """
    tensors, card = read_weights(path, FORMAT, FOREIGN, expected)
    try:
        return EstimatorNetwork(tensors, card["views"], card["size"]), card
    except (KeyError, TypeError, ValueError, WeightsError) as error:
        raise WeightsError(f"{path} does not hold the network that its card names ({error}); train it again") from error
