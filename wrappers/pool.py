"""Reset pools: snapshots at the start of a skill, made by really running the stages before it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reinforcegen_envs.files import atomic_path

FORMAT = "reinforcegen-pool-1"
_SCALARS = ("stage", "steady", "steps", "skill_steps", "finished", "source", "over")


class PoolError(ValueError):
    """A reset pool is missing, damaged, empty, or made for something else."""


class StartPool:
    """Snapshots of one task, variant and stage, all at the first control step of the skill.

    Args:
        simulation: (N, S) simulation states.
        scalars: name -> (N,) the counters that go with them.
        manifest: "task", "variant", "stage" and how the pool was made.
    """

    def __init__(self, simulation: np.ndarray, scalars: dict[str, np.ndarray], manifest: dict[str, Any]):
        self._simulation, self._scalars, self.manifest = simulation, scalars, manifest

    def __len__(self) -> int:
        return len(self._simulation)

    @classmethod
    def of(cls, states: Sequence[dict[str, Any]], manifest: dict[str, Any]) -> StartPool:
        """Make a pool of states of `Hybrid.get_state`.

        Raises:
            PoolError: no states.
        """
        if not states:
            raise PoolError("a pool needs at least one snapshot; none was made")
        scalars = {name: np.array([state[name] for state in states]) for name in _SCALARS}
        return cls(np.stack([state["simulation"] for state in states]), scalars, {**manifest, "format": FORMAT})

    @classmethod
    def load(cls, path: str | os.PathLike[str], **expected: Any) -> StartPool:
        """Read a pool file.

        Args:
            path: an ``.npz`` file made by `save`.
            expected: manifest entries that must match: task, variant, stage.

        Raises:
            PoolError: no such file, not a pool, empty, or made for another task, variant or stage.
        """
        path = Path(path)
        if not path.is_file():
            raise PoolError(f"no pool file {path}; make one with python -m reinforcegen_envs.wrappers.fill_pool")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                manifest = json.loads(str(arrays["manifest"]))
                simulation = arrays["simulation"]
                scalars = {name: arrays[name] for name in _SCALARS}
        except Exception as error:  # a damaged archive raises a dozen different ones
            raise PoolError(f"{path} is not a complete pool file ({error}); make it again") from error
        if manifest.get("format") != FORMAT:
            raise PoolError(f"{path} is of format {manifest.get('format')!r}, not {FORMAT!r}; make it again")
        for key, value in expected.items():
            if manifest.get(key) != value:
                raise PoolError(f"{path} was made for {key} {manifest.get(key)!r}, but {value!r} is needed")
        if not len(simulation):
            raise PoolError(f"{path} holds no snapshots; fill it with at least one")
        return cls(simulation, scalars, manifest)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pool and its manifest to one ``.npz`` file."""
        with atomic_path(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                manifest=np.array(json.dumps(self.manifest)),
                simulation=self._simulation,
                **self._scalars,  # type: ignore[arg-type]
            )

    def draw(self, rng: np.random.Generator) -> dict[str, Any]:
        """A snapshot for `Hybrid.set_state`, without random generator: the environment keeps its own."""
        index = int(rng.integers(len(self)))
        state: dict[str, Any] = {name: values[index].item() for name, values in self._scalars.items()}
        return {**state, "simulation": self._simulation[index]}
