"""Multi-layer perceptrons that run without torch: compiled, without the GIL, and bit for bit reproducible.

The frozen base policy and the predictors live inside the environment. A BLAS product may differ in its last bits with
the batch size, so these are loops whose order of additions is fixed: a row of a batch is the single query, bit for bit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.policies.weights_file import CARD_VERSION, WeightsError, read_weights, write_weights

Array = NDArray[Any]
FORMAT = "reinforcegen-mlp-1"
ACTIVATIONS = ("relu", "tanh")
OUTPUTS = ("linear", "tanh", "clip")
ADAPT = (
    "a policy that another library made comes in as a callable, observation -> 7 numbers in the world frame: load it there, "
    "and give base_policy=lambda observation: model(observation)"
)
LINE = 16  # numbers in a cache line, where vector loads are fastest
NEAR = 16  # inputs whose weights fit into the first-level cache


@numba.njit(cache=True)
def _padded(size: int) -> int:
    return (size + LINE - 1) // LINE * LINE


def _aligned(parts: Sequence[Array]) -> Array:
    """The arrays one after another, flat, each from the beginning of a cache line."""
    ends = np.cumsum([_padded(part.size) for part in parts])
    buffer = np.zeros(int(ends[-1]) + LINE, np.float32)
    flat = buffer[-buffer.ctypes.data // 4 % LINE :][: ends[-1]]
    for end, part in zip(ends, parts, strict=True):
        start = end - _padded(part.size)
        flat[start : start + part.size] = part.ravel()
    return flat


@numba.njit(cache=True, nogil=True)
def dense(x: Array, weight_t: Array, bias: Array, out: Array) -> None:
    """out = x @ weight_t + bias; weight_t is (in, out), so that the inner loop is contiguous and vectorises.

    Every row adds its inputs in their order, one after the other, whatever the batch; those that are zero, as half of them
    are behind a relu, cost nothing. Eight at a time spare loads and stores of ``out``, and all rows go through a few inputs
    before the next few, whose weights are then near.
    """
    n, n_in, n_out = x.shape[0], weight_t.shape[0], weight_t.shape[1]
    live = np.empty((n, n_in), np.int64)  # inputs that are not zero
    count = np.empty(n, np.int64)
    done = np.zeros(n, np.int64)
    for row in range(n):
        found = 0
        for i in range(n_in):
            live[row, found] = i
            found += x[row, i] != 0.0
        count[row] = found
        for j in range(n_out):
            out[row, j] = bias[j]
    for end in range(NEAR, n_in + NEAR, NEAR):
        for row in range(n):
            k, ids, y = done[row], live[row], out[row]
            while k + 8 <= count[row] and ids[k + 7] < end:
                x0, w0 = x[row, ids[k + 0]], weight_t[ids[k + 0]]
                x1, w1 = x[row, ids[k + 1]], weight_t[ids[k + 1]]
                x2, w2 = x[row, ids[k + 2]], weight_t[ids[k + 2]]
                x3, w3 = x[row, ids[k + 3]], weight_t[ids[k + 3]]
                x4, w4 = x[row, ids[k + 4]], weight_t[ids[k + 4]]
                x5, w5 = x[row, ids[k + 5]], weight_t[ids[k + 5]]
                x6, w6 = x[row, ids[k + 6]], weight_t[ids[k + 6]]
                x7, w7 = x[row, ids[k + 7]], weight_t[ids[k + 7]]
                for j in range(n_out):
                    total = (((y[j] + x0 * w0[j]) + x1 * w1[j]) + x2 * w2[j]) + x3 * w3[j]
                    y[j] = (((total + x4 * w4[j]) + x5 * w5[j]) + x6 * w6[j]) + x7 * w7[j]
                k += 8
            done[row] = k
    for row in range(n):
        y = out[row]
        for k in range(done[row], count[row]):
            x0, w0 = x[row, live[row, k]], weight_t[live[row, k]]
            for j in range(n_out):
                y[j] += x0 * w0[j]


@numba.njit(cache=True, nogil=True)
def _forward(x: Array, parameters: Array, row: Array) -> Array:
    """Run a network on every row of ``x`` (n, in); see `MLP.packed` for ``parameters`` and ``row``."""
    at, layers, tanh_hidden, output, n_in = row[0], row[1], row[2], row[3], row[4]
    clip = parameters[at]
    mean = parameters[at + 1 : at + 1 + n_in]
    inverse_std = parameters[at + 1 + n_in : at + 1 + 2 * n_in]
    at += _padded(1 + 2 * n_in)
    hidden = np.empty((x.shape[0], n_in), np.float32)
    for b in range(x.shape[0]):
        for i in range(n_in):
            hidden[b, i] = min(max((x[b, i] - mean[i]) * inverse_std[i], -clip), clip)
    for layer in range(layers):
        n_in, n_out = row[4 + layer], row[5 + layer]
        weight_t = parameters[at : at + n_in * n_out].reshape(n_in, n_out)
        at += _padded(n_in * n_out)
        out = np.empty((x.shape[0], n_out), np.float32)
        dense(hidden, weight_t, parameters[at : at + n_out], out)
        at += _padded(n_out)
        last = layer == layers - 1
        for b in range(x.shape[0]):
            y = out[b]
            if output == 1 if last else tanh_hidden:
                for j in range(n_out):
                    y[j] = np.tanh(y[j])
            elif not last:
                for j in range(n_out):
                    if y[j] < 0.0:
                        y[j] = 0.0
            elif output == 2:
                for j in range(n_out):
                    y[j] = min(max(y[j], np.float32(-1.0)), np.float32(1.0))
        hidden = out
    return hidden


@numba.njit(cache=True, nogil=True)
def forward_stages(observations: Array, parameters: Array, table: Array, features: Array, stage_start: int) -> Array:
    """Run each row's stage's network on the row's features; see `StageMLPs`.

    Args:
        observations: (n, size) float32.
        parameters: all networks' parameters, flat.
        table: (stages, ...) one `MLP.packed` row a stage, zero layers where there is no network; the last number says where
            the stage's features begin.
        features: all stages' indices into an observation, flat.
        stage_start: where an observation's one-hot stage begins.

    Returns:
        (n, out) float32; zeros where a stage has no network.
    """
    n = observations.shape[0]
    stages = np.empty(n, np.int64)
    for b in range(n):
        stage = 0
        for s in range(1, table.shape[0]):
            if observations[b, stage_start + s] > observations[b, stage_start + stage]:
                stage = s
        stages[b] = stage
    n_out = 0
    for s in range(table.shape[0]):
        n_out = max(n_out, table[s, 4 + table[s, 1]])
    out = np.zeros((n, n_out), np.float32)
    rows = np.empty(n, np.int64)
    for s in range(table.shape[0]):
        count = 0
        for b in range(n):
            if stages[b] == s:
                rows[count] = b
                count += 1
        if count == 0 or table[s, 1] == 0:
            continue
        n_in, first = table[s, 4], table[s, table.shape[1] - 1]
        x = np.empty((count, n_in), np.float32)
        for b in range(count):
            for i in range(n_in):
                x[b, i] = observations[rows[b], features[first + i]]
        y = _forward(x, parameters, table[s])
        for b in range(count):
            for j in range(n_out):
                out[rows[b], j] = y[b, j]
    return out


@dataclass
class MLP:
    """A fixed network ``y = f(clip((x - mean) / std))``.

    Args:
        weights: one (out, in) array a layer, torch's convention.
        biases: one (out,) array a layer.
        mean, std: (in,) input statistics; None means 0 and 1.
        clip: normalised inputs are cut to [-clip, clip], so that a far-away state cannot blow up the output.
        activation: "relu" or "tanh", between layers.
        output: "linear", "tanh" or "clip" (to [-1, 1]), after the last layer.

    Attributes:
        sizes: (layers + 1,) numbers of inputs of the first layer and of outputs of each.
        packed: what the compiled loops take: a flat float32 array of clip, mean, 1 / std, and every layer's transposed
            weight and bias; an integer row of where it begins, layers, tanh, output, and ``sizes``.

    Raises:
        WeightsError: unknown activation or output, or arrays whose shapes do not fit together.
    """

    weights: Sequence[Array]
    biases: Sequence[Array]
    mean: Array | None = None
    std: Array | None = None
    clip: float = 10.0
    activation: str = "relu"
    output: str = "linear"
    sizes: Array = field(init=False)
    packed: tuple[Array, Array] = field(init=False, repr=False)

    def __post_init__(self):
        if self.activation not in ACTIVATIONS:
            raise WeightsError(f"activation {self.activation!r} is not one of {ACTIVATIONS}")
        if self.output not in OUTPUTS:
            raise WeightsError(f"output {self.output!r} is not one of {OUTPUTS}")
        n_in = self.weights[0].shape[1]
        self.sizes = np.array([n_in, *(w.shape[0] for w in self.weights)], np.int64)
        self.mean = np.zeros(n_in, np.float32) if self.mean is None else np.asarray(self.mean, np.float32)
        self.std = np.ones(n_in, np.float32) if self.std is None else np.asarray(self.std, np.float32)
        # The compiled loops check no bounds.
        outputs = self.sizes[1:].tolist()
        fits = [w.shape for w in self.weights] == list(zip(outputs, self.sizes[:-1].tolist(), strict=True))
        fits &= [b.shape for b in self.biases] == [(size,) for size in outputs]
        if not (fits and self.mean.shape == self.std.shape == (n_in,)):
            raise WeightsError(f"weights, biases, mean and std do not fit together; layer sizes {self.sizes.tolist()}")
        parts = [np.concatenate([[self.clip], self.mean, (1.0 / self.std).astype(np.float32)])]
        for weight, bias in zip(self.weights, self.biases, strict=True):
            parts += [np.ascontiguousarray(weight.T), bias]
        settings = [0, len(self.weights), self.activation == "tanh", OUTPUTS.index(self.output)]
        self.packed = (_aligned(parts), np.array([*settings, *self.sizes], np.int64))

    @property
    def input_size(self) -> int:
        """Number of inputs."""
        return int(self.sizes[0])

    @property
    def output_size(self) -> int:
        """Number of outputs."""
        return int(self.sizes[-1])

    def __call__(self, x: Array) -> Array:
        """Map one input (in,) to one output (out,), both float32.

        Raises:
            InvalidArgument: ``x`` is of another shape.
        """
        x = np.ascontiguousarray(x, np.float32)
        if x.shape != (self.sizes[0],):
            raise InvalidArgument(f"input has shape {x.shape}; this network takes ({self.sizes[0]},)")
        return _forward(x[None], *self.packed)[0]

    def batch(self, x: Array) -> Array:
        """Map inputs (n, in) to outputs (n, out), both float32, in one compiled call; every row as if called alone.

        Raises:
            InvalidArgument: ``x`` is of another shape.
        """
        x = np.ascontiguousarray(x, np.float32)
        if x.ndim != 2 or x.shape[1] != self.sizes[0]:
            raise InvalidArgument(f"input has shape {x.shape}; this network takes (n, {self.sizes[0]})")
        return _forward(x, *self.packed)


class StageMLPs:
    """One network a stage, for observations that may be at different stages, in one compiled call.

    Args:
        networks: of every stage, with as many outputs all; None gives zeros.
        features: of every stage, indices of an observation's numbers that its network sees.
        observation_size: numbers in an observation.
        stage: where an observation's one-hot stage is.

    Attributes:
        packed: the arguments of `forward_stages` that do not change.

    Raises:
        WeightsError: networks and features do not fit together.
    """

    def __init__(self, networks: Sequence[MLP | None], features: Sequence[Array], observation_size: int, stage: slice):
        given = [network for network in networks if network is not None]
        fits = len({network.output_size for network in given}) <= 1 and len(networks) == len(features)
        # The compiled loops check no bounds.
        fits &= all(n is None or n.input_size == len(f) for n, f in zip(networks, features, strict=True))
        fits &= all(0 <= i < observation_size for indices in features for i in indices)
        if not fits:
            raise WeightsError("the stages' networks do not fit their features, or differ in their outputs")
        width = max([len(network.packed[1]) for network in given], default=5)
        table = np.zeros((len(networks), width + 1), np.int64)
        start = 0
        for row, network, first in zip(table, networks, np.cumsum([0, *map(len, features)]), strict=False):
            row[-1] = first
            if network is not None:
                row[: len(network.packed[1])] = network.packed[1]
                row[0] = start
                start += len(network.packed[0])
        parameters = _aligned([np.zeros(0, np.float32), *(network.packed[0] for network in given)])
        indices = np.concatenate([np.asarray(f, np.int64) for f in features])
        self.packed = (parameters, table, indices, stage.start)
        self.observation_size = observation_size

    def checked(self, observations: Array) -> Array:
        """Observations as the compiled call takes them: (n, size) float32.

        Raises:
            InvalidArgument: they are of another shape.
        """
        observations = np.ascontiguousarray(observations, np.float32)
        if observations.ndim != 2 or observations.shape[1] != self.observation_size:
            raise InvalidArgument(
                f"observations have shape {observations.shape}; needed is (n, {self.observation_size})"
            )
        return observations

    def __call__(self, observations: Array) -> Array:
        """Outputs (n, out) for observations (n, size), both float32; (n, 0) if no stage has a network.

        Raises:
            InvalidArgument: observations of another shape.
        """
        return forward_stages(self.checked(observations), *self.packed)


def save_mlps(path: str | os.PathLike[str], mlps: Mapping[str, MLP], card: Mapping[str, Any]) -> None:
    """Write named networks to one safetensors file, with a JSON card inside it and beside it (``.json``).

    Args:
        path: the ``.safetensors`` file.
        mlps: name -> network, e.g. {"grasp": ..., "insert": ...}.
        card: what they are for and where they come from; at least "task" and "kind". "version" and "mujoco", the versions of
            the ids and of MuJoCo, are this package's and the running one unless the card has them.
    """
    tensors: dict[str, Array] = {}
    shapes: dict[str, dict[str, Any]] = {}
    for name, mlp in mlps.items():
        for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
            tensors[f"{name}.layers.{i}.weight"] = np.ascontiguousarray(weight, np.float32)
            tensors[f"{name}.layers.{i}.bias"] = np.ascontiguousarray(bias, np.float32)
        tensors[f"{name}.mean"] = np.asarray(mlp.mean, np.float32)
        tensors[f"{name}.std"] = np.asarray(mlp.std, np.float32)
        shapes[name] = {"activation": mlp.activation, "output": mlp.output, "clip": mlp.clip}
    write_weights(path, tensors, {"version": CARD_VERSION, **card, "format": FORMAT, "networks": shapes})


def load_mlps(path: str | os.PathLike[str], **expected: Any) -> tuple[dict[str, MLP], dict[str, Any]]:
    """Read networks written by `save_mlps`.

    Args:
        path: the ``.safetensors`` file.
        expected: card entries that must match, e.g. ``task="Threading"``, ``observation_size=46``.

    Returns:
        name -> network, and the card.

    Raises:
        WeightsError: no such file, not a readable safetensors file, not of this format, or made for another task,
            version or observation.
    """
    tensors, card = read_weights(path, FORMAT, ADAPT, expected)
    try:
        return {name: _mlp(name, settings, tensors) for name, settings in card["networks"].items()}, card
    except (KeyError, IndexError, TypeError, AttributeError, WeightsError) as error:
        raise WeightsError(
            f"{path} does not hold the networks that its card names ({error}); train it again"
        ) from error


def _mlp(name: str, settings: Mapping[str, Any], tensors: Mapping[str, Array]) -> MLP:
    """One network of a file."""
    count = sum(key.startswith(f"{name}.layers.") and key.endswith(".weight") for key in tensors)
    return MLP(
        [tensors[f"{name}.layers.{i}.weight"] for i in range(count)],
        [tensors[f"{name}.layers.{i}.bias"] for i in range(count)],
        tensors[f"{name}.mean"],
        tensors[f"{name}.std"],
        settings["clip"],
        settings["activation"],
        settings["output"],
    )


def check_networks(path: str | os.PathLike[str], mlps: Mapping[str, MLP], sizes: Mapping[str, tuple[int, int]]) -> None:
    """Check the networks of a file against what will be asked of them.

    Args:
        path: where they come from, for the message.
        mlps: name -> network.
        sizes: name -> numbers of inputs and outputs, of every network that is needed.

    Raises:
        WeightsError: a network is missing or of another size.
    """
    for name, size in sizes.items():
        if name not in mlps:
            raise WeightsError(
                f"{path} lacks network {name!r}, it has {sorted(mlps)}; train weights for {sorted(sizes)}"
            )
        found = (int(mlps[name].sizes[0]), int(mlps[name].sizes[-1]))
        if found != size:
            raise WeightsError(
                f"{path}: network {name!r} maps {found[0]} numbers to {found[1]}, needed are {size[0]} to {size[1]}; "
                "train it again with this version"
            )
