"""Multi-layer perceptrons that run without torch: compiled, without the GIL, and bit for bit reproducible.

The frozen base policy and the predictors live inside the environment. A BLAS product may differ in its last bits with
the batch size, so every query here is a single observation through a loop whose order of additions is fixed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numba
import numpy as np

from reinforcegen_envs.files import atomic_path

FORMAT = "reinforcegen-mlp-1"
ACTIVATIONS = ("relu", "tanh")
OUTPUTS = ("linear", "tanh", "clip")


class WeightsError(ValueError):
    """A weights file is missing, damaged, or made for something else."""


@numba.njit(cache=True, nogil=True)
def _dense(x, weight_t, bias, out):
    """out = x @ weight_t + bias; weight_t is (in, out), so that the inner loop is contiguous and vectorises."""
    n_in, n_out = weight_t.shape
    for j in range(n_out):
        out[j] = bias[j]
    for i in range(n_in):
        value = x[i]
        if value != 0.0:
            for j in range(n_out):
                out[j] += value * weight_t[i, j]


@numba.njit(cache=True, nogil=True)
def _forward(x, mean, inverse_std, clip, weights_t, biases, sizes, tanh_hidden, output):
    """Run all layers; ``weights_t`` and ``biases`` are the layers one after another, flat, of ``sizes``."""
    hidden = np.empty(x.shape[0], np.float32)
    for i in range(x.shape[0]):
        hidden[i] = min(max((x[i] - mean[i]) * inverse_std[i], -clip), clip)
    w = 0
    b = 0
    for layer in range(sizes.shape[0] - 1):
        n_in, n_out = sizes[layer], sizes[layer + 1]
        out = np.empty(n_out, np.float32)
        _dense(hidden, weights_t[w : w + n_in * n_out].reshape(n_in, n_out), biases[b : b + n_out], out)
        if layer < sizes.shape[0] - 2:
            for j in range(n_out):
                if tanh_hidden:
                    out[j] = np.tanh(out[j])
                elif out[j] < 0.0:
                    out[j] = 0.0
        elif output == 1:
            for j in range(n_out):
                out[j] = np.tanh(out[j])
        elif output == 2:
            for j in range(n_out):
                out[j] = min(max(out[j], np.float32(-1.0)), np.float32(1.0))
        hidden = out
        w += n_in * n_out
        b += n_out
    return hidden


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

    Raises:
        WeightsError: unknown activation or output, or arrays whose shapes do not fit together.
    """

    weights: Sequence[np.ndarray]
    biases: Sequence[np.ndarray]
    mean: np.ndarray | None = None
    std: np.ndarray | None = None
    clip: float = 10.0
    activation: str = "relu"
    output: str = "linear"
    sizes: np.ndarray = field(init=False)

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
        self._inverse_std = (1.0 / self.std).astype(np.float32)
        self._weights_t = np.concatenate([np.ascontiguousarray(w.T, np.float32).ravel() for w in self.weights])
        self._biases = np.concatenate([np.asarray(b, np.float32) for b in self.biases])

    @property
    def input_size(self) -> int:
        """Number of inputs."""
        return int(self.sizes[0])

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Map one observation (in,) to one output (out,), both float32.

        Raises:
            ValueError: ``x`` is of another shape.
        """
        x = np.ascontiguousarray(x, np.float32)
        if x.shape != (self.sizes[0],):
            raise ValueError(f"input has shape {x.shape}; this network takes ({self.sizes[0]},)")
        return _forward(
            x,
            self.mean,
            self._inverse_std,
            np.float32(self.clip),
            self._weights_t,
            self._biases,
            self.sizes,
            self.activation == "tanh",
            OUTPUTS.index(self.output),
        )


def save_mlps(path: str | os.PathLike[str], mlps: Mapping[str, MLP], card: Mapping[str, Any]) -> None:
    """Write named networks to one safetensors file, with a JSON card inside it and beside it (``.json``).

    Args:
        path: the ``.safetensors`` file.
        mlps: name -> network, e.g. {"grasp": ..., "insert": ...}.
        card: what they are for and where they come from; at least "task", "kind" and "version".
    """
    from safetensors.numpy import save_file

    tensors, shapes = {}, {}
    for name, mlp in mlps.items():
        for i, (weight, bias) in enumerate(zip(mlp.weights, mlp.biases, strict=True)):
            tensors[f"{name}.layers.{i}.weight"] = np.ascontiguousarray(weight, np.float32)
            tensors[f"{name}.layers.{i}.bias"] = np.ascontiguousarray(bias, np.float32)
        tensors[f"{name}.mean"], tensors[f"{name}.std"] = mlp.mean, mlp.std
        shapes[name] = {"activation": mlp.activation, "output": mlp.output, "clip": mlp.clip}
    card = {**card, "format": FORMAT, "networks": shapes}
    path = Path(path)
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary), metadata={"card": json.dumps(card, sort_keys=True)})
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")


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
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no weights file {path}; train one, or name a file that exists")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a complete safetensors file ({error}); copy or train it again") from error
    try:
        card = json.loads(metadata.get("card", "{}"))
    except json.JSONDecodeError:
        card = {}
    if card.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is of format {card.get('format')!r}, not {FORMAT!r}; it was not written by this package"
        )
    for key, value in expected.items():
        if card.get(key) != value:
            raise WeightsError(
                f"{path} was made for {key} {card.get(key)!r}, but {value!r} is needed; train or choose weights for it"
            )
    try:
        return {name: _mlp(name, settings, tensors) for name, settings in card["networks"].items()}, card
    except (KeyError, IndexError, TypeError, AttributeError, WeightsError) as error:
        raise WeightsError(
            f"{path} does not hold the networks that its card names ({error}); train it again"
        ) from error


def _mlp(name: str, settings: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> MLP:
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
