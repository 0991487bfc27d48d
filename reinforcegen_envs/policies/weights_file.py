"""Weights files: safetensors with a JSON card inside and beside, that say what they are and what they were made for."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mujoco
from numpy.typing import NDArray

from reinforcegen_envs.errors import ReinforceGenError
from reinforcegen_envs.files import as_path, atomic_path

Array = NDArray[Any]
CARD_VERSION = 0  # of the ids whose observations and actions networks are made for: raised when those change


class WeightsError(ReinforceGenError, ValueError):
    """A weights file is missing, damaged, or made for something else."""


def write_weights(path: str | os.PathLike[str], tensors: Mapping[str, Array], card: Mapping[str, Any]) -> None:
    """Write arrays to one safetensors file, with a JSON card inside it and beside it (``.json``).

    Args:
        path: the ``.safetensors`` file.
        tensors: name -> array.
        card: what they are for and where they come from; "format", by which `read_weights` knows them; "version", of the ids.
            "mujoco", MuJoCo's version, is the running one unless the card has it.
    """
    from safetensors.numpy import save_file  # pyright: ignore[reportUnknownVariableType] (no stubs)

    card = {"mujoco": mujoco.__version__, **card}
    path = Path(path)
    with atomic_path(path) as temporary:
        save_file(dict(tensors), str(temporary), metadata={"card": json.dumps(card, sort_keys=True)})
    with atomic_path(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(card, indent=2, sort_keys=True) + "\n")


def read_weights(
    path: str | os.PathLike[str], form: str | None, foreign: str, expected: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Read what `write_weights` wrote, and check what it was made for.

    Args:
        path: the ``.safetensors`` file.
        form: the "format" that its card must have; None: any.
        foreign: what to do with the file of another program, for the message.
        expected: card entries that must match.

    Returns:
        name -> array, and the card.

    Raises:
        WeightsError: no such file, not a readable safetensors file, not of this format, or made for something else.
    """
    from safetensors import SafetensorError, safe_open

    path = as_path(path, "weights file")
    if not path.is_file():
        raise WeightsError(f"no weights file {path}; train one, or name a file that exists")
    try:
        opened: Any = safe_open(str(path), framework="numpy")  # without types
        with opened as file:
            metadata: dict[str, str] = file.metadata() or {}
            tensors: dict[str, Array] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        if path.suffix != ".safetensors":
            raise WeightsError(f"{path} is not a safetensors file of this package ({error}); {foreign}") from error
        raise WeightsError(f"{path} is not a complete safetensors file ({error}); copy or train it again") from error
    try:
        card: dict[str, Any] = json.loads(metadata.get("card", "{}"))
    except json.JSONDecodeError:
        card = {}
    if "format" not in card or form not in (None, card["format"]):
        raise WeightsError(
            f"{path} is of format {card.get('format')!r}, not {form!r}; it was not written by this package; {foreign}"
        )
    for key, value in expected.items():
        plain = json.loads(json.dumps(value))  # JSON knows no tuples
        if card.get(key) != plain:
            raise WeightsError(
                f"{path} was made for {key} {card.get(key)!r}, but {value!r} is needed; train or choose weights for it"
            )
    _warn_of_mujoco(path, card)
    return tensors, card


_warned_of_mujoco = False


def _warn_of_mujoco(path: Path, card: Mapping[str, Any]) -> None:
    """Warn, once a process, that numbers were made with another MuJoCo: contacts differ from one minor version to the next."""
    global _warned_of_mujoco
    made, running = str(card.get("mujoco", mujoco.__version__)), mujoco.__version__
    if not _warned_of_mujoco and made.split(".")[:2] != running.split(".")[:2]:
        _warned_of_mujoco = True
        warnings.warn(
            f"{path} was made with MuJoCo {made}, this is {running}: success may differ from what is published; "
            f"install mujoco=={made}, or evaluate again",
            stacklevel=4,  # who asked for the networks
        )
