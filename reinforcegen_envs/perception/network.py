"""The network of a camera pose estimator, run without torch: compiled, without the GIL, and bit for bit reproducible.

Each camera has an encoder: convolutions, a linear layer, layer normalisation. What they say and proprioception go through a
trunk of two layers and, past it, into the head. A BLAS may start threads, which on a busy machine wait for each other, and
round as it likes; these are loops whose order of additions is fixed. Calls share no scratch: threads may call one network.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.policies.mlp import dense
from reinforcegen_envs.policies.weights_file import CARD_VERSION, WeightsError, read_weights, write_weights
from reinforcegen_envs.sim.cameras import SIZE

Array = NDArray[Any]
FORMAT = "reinforcegen-estimator-1"
STRIDE = 2
EPSILON = 1e-5  # torch's in layer normalisation
BLOCK = 16  # channels that are computed together: a cache line; others are filled up with zeros
TILE = 6  # pixels that are computed together: each weight that is loaded serves them all
FOREIGN = "train one with python -m reinforcegen_envs.agents.perceive"


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
def _forward(
    frames: Array,
    proprio: Array,
    plan: Array,
    convs: tuple[Array, ...],
    conv_biases: tuple[Array, ...],
    linears: tuple[Array, ...],
    linear_biases: tuple[Array, ...],
    norms: Array,
) -> Array:
    """Run a network once; see `EstimatorNetwork.packed`. What it writes to in between is its own."""
    cameras, size, layers, features = len(frames), frames.shape[1], len(plan), norms.shape[2]
    n = cameras * features + len(linear_biases[cameras])
    z = np.empty((1, n), np.float32)
    for camera in range(cameras):
        pad, side, width = plan[0, 0] // 2, plan[0, 1], plan[0, 2]
        x = np.zeros(side * side * width + 1, np.float32)
        for i in range(size):
            begin = ((pad + i) * side + pad) * width
            row = frames[camera, i].reshape(size * width)
            for j in range(size * width):
                x[begin + j] = np.float32(row[j]) / np.float32(255.0) - np.float32(0.5)
        for layer in range(layers):
            index = camera * layers + layer
            out = np.zeros(plan[layer, 5] * plan[layer, 5] * len(conv_biases[index]) + 1, np.float32)
            _convolve(x, convs[index], conv_biases[index], plan[layer], out)
            x = out
        part = z[:, camera * features : (camera + 1) * features]
        dense(x[:-1].reshape(1, len(x) - 1), linears[camera], linear_biases[camera], part)
        _normalise(part[0], norms[camera, 0], norms[camera, 1])
    dense(proprio.reshape(1, len(proprio)), linears[cameras], linear_biases[cameras], z[:, cameras * features :])
    _relu(z[0])
    h = z
    for layer in range(cameras + 1, cameras + 3):
        out = np.empty((1, len(linear_biases[layer])), np.float32)
        dense(h, linears[layer], linear_biases[layer], out)
        _relu(out[0])
        h = out
    y = np.empty((1, len(linear_biases[cameras + 3])), np.float32)
    dense(np.concatenate((h, z), 1), linears[cameras + 3], linear_biases[cameras + 3], y)
    return y[0]


class EstimatorNetwork:
    """A fixed network from the cameras' frames and proprioception to numbers that say where something is.

    Nothing in it changes and every call has its own scratch, so any number of threads may call it, and deep copies share it.

    Args:
        arrays: the parameters by torch's names: ``encoders.{camera}.convs.{i}``, ``encoders.{camera}.linear``,
            ``encoders.{camera}.norm``, ``proprio``, ``trunk.0``, ``trunk.1`` and ``head``, each with ``.weight`` and
            ``.bias``. Convolutions have odd kernels, stride 2 and padding kernel // 2; ``linear`` takes channels, rows and
            columns in this order.
        size: pixels along a frame's side.

    Attributes:
        cameras: number of cameras.
        size: pixels along a frame's side.
        proprio_size: numbers of proprioception.
        output_size: numbers of the output.
        packed: what the compiled loops take, float32 where nothing else is said: `_plan`'s integers; weights and biases of
            the convolutions, camera by camera; transposed weights and biases of the linear layers; (cameras, 2, features)
            gains and shifts of the layer normalisations.

    Raises:
        WeightsError: parameters are missing, not finite, or of shapes that do not fit together or to the frames.
    """

    def __init__(self, arrays: Mapping[str, Array], size: int = SIZE):
        arrays = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
        # The compiled loops check no bounds.
        self.cameras, layers = _check(arrays, size)
        self.size = size
        self.proprio_size = arrays["proprio.weight"].shape[1]
        self.output_size = len(arrays["head.bias"])
        kernels = [arrays[f"encoders.0.convs.{i}.weight"].shape[2] for i in range(layers)]
        plan = _plan(size, kernels, [len(arrays[f"encoders.0.convs.{i}.bias"]) for i in range(layers)])
        convs: list[tuple[Array, Array]] = []
        linears: list[tuple[Array, Array]] = []
        for camera in range(self.cameras):
            prefix = f"encoders.{camera}"
            for i, width in enumerate(plan[:, 2]):
                name = f"{prefix}.convs.{i}"
                convs.append(_pack_convolution(arrays[f"{name}.weight"], arrays[f"{name}.bias"], int(width)))
            channels, side = len(arrays[f"{prefix}.convs.{layers - 1}.bias"]), int(plan[-1, 3])
            weight = arrays[f"{prefix}.linear.weight"].reshape(-1, channels, side, side).transpose(2, 3, 1, 0)
            weight = np.pad(weight, ((0, 0), (0, 0), (0, -channels % BLOCK), (0, 0)))
            linears.append((weight.reshape(-1, weight.shape[-1]), arrays[f"{prefix}.linear.bias"]))
        for name in ("proprio", "trunk.0", "trunk.1", "head"):
            linears.append((arrays[f"{name}.weight"].T, arrays[f"{name}.bias"]))
        norms = [[arrays[f"encoders.{k}.norm.{part}"] for part in ("weight", "bias")] for k in range(self.cameras)]
        columns = [*zip(*convs, strict=True), *zip(*linears, strict=True)]
        pairs = [tuple(np.array(array, order="C") for array in column) for column in columns]
        self.packed: tuple[Any, ...] = (plan, *pairs, np.array(norms))

    def __call__(self, frames: Array, proprio: Array) -> Array:
        """Map what is seen and felt to the outputs.

        Args:
            frames: (cameras, size, size, 3) uint8.
            proprio: (proprio_size,), finite.

        Returns:
            (output_size,) float32; the same bits for the same inputs.

        Raises:
            InvalidArgument: inputs are of another type or shape, or not finite.
        """
        # Copies: compiled code is made anew for arrays that are read-only or not contiguous.
        frames, shape = np.array(frames, order="C"), (self.cameras, self.size, self.size, 3)
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


def _check(arrays: Mapping[str, Array], size: int) -> tuple[int, int]:
    """Numbers of cameras and of convolutions, after checking that all parameters are there, finite and fit together.

    Raises:
        WeightsError: they do not.
    """
    if not isinstance(size, int) or size < 1:
        raise WeightsError(f"size is {size!r}; it must be a whole number of pixels, at least 1")
    cameras = sum(name.startswith("encoders.") and name.endswith(".linear.weight") for name in arrays)
    layers = sum(name.startswith("encoders.0.convs.") and name.endswith(".weight") for name in arrays)
    if cameras == 0 or layers == 0:
        raise WeightsError("there is no encoder, or one without convolutions, among the parameters")

    def length(name: str, axis: int = 0) -> int:
        shape = arrays[name].shape if name in arrays else ()
        return shape[axis] if axis < len(shape) else 0

    needed: dict[str, tuple[int, ...]] = {}
    features, side = length("encoders.0.linear.weight"), size
    for camera in range(cameras):
        channels, side = 3, size
        for i in range(layers):
            kernel, out = (length(f"encoders.0.convs.{i}.weight", axis) for axis in (2, 0))
            if kernel % 2 == 0:
                raise WeightsError(f"encoders.0.convs.{i}.weight has a kernel of {kernel}; it must be odd")
            needed[f"encoders.{camera}.convs.{i}.weight"] = (out, channels, kernel, kernel)
            channels, side = out, (side - 1) // STRIDE + 1
        needed[f"encoders.{camera}.linear.weight"] = (features, channels * side * side)
        needed[f"encoders.{camera}.norm.weight"] = (features,)
    joined = cameras * features + length("proprio.weight")
    hidden, last = length("trunk.0.weight"), length("trunk.1.weight")
    needed["proprio.weight"] = (length("proprio.weight"), length("proprio.weight", 1))
    needed["trunk.0.weight"], needed["trunk.1.weight"] = (hidden, joined), (last, hidden)
    needed["head.weight"] = (length("head.weight"), last + joined)
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
    return cameras, layers


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
        card: what it is for and where it comes from. "size", pixels along a frame's side, is 84 unless the card has it;
            "version" and "mujoco", the versions of the ids and of MuJoCo, are this package's and the running one, likewise.

    Raises:
        WeightsError: the parameters, as float16, do not make a network.
    """
    card = {"version": CARD_VERSION, "size": SIZE, **card, "format": FORMAT}
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        tensors = {name: np.array(array, np.float16, order="C") for name, array in arrays.items()}
    EstimatorNetwork(tensors, card["size"])
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
        return EstimatorNetwork(tensors, card["size"]), card
    except (KeyError, TypeError, WeightsError) as error:
        raise WeightsError(f"{path} does not hold the network that its card names ({error}); train it again") from error
