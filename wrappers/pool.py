"""Reset pools: snapshots at the start of a skill, made by really running the stages before it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reinforcegen_envs.engine import Snapshot
from reinforcegen_envs.errors import ReinforceGenError
from reinforcegen_envs.files import as_path, atomic_path
from reinforcegen_envs.typing import Array

FORMAT = "reinforcegen-pool-2"


class PoolError(ReinforceGenError, ValueError):
    """A reset pool is missing, damaged, empty, or made for something else."""


class StartPool:
    """Snapshots of one task, variant and stage, all at the first control step of the skill.

    Args:
        arrays: `Snapshot.to_arrays` of every snapshot, stacked: name -> (N, ...).
        manifest: "task", "variant" (a list), "stage", "perception" and how the pool was made.
    """

    def __init__(self, arrays: dict[str, Array], manifest: dict[str, Any]):
        self._arrays, self.manifest = arrays, manifest
        self._snapshots: dict[int, Snapshot] = {}  # those that were asked for

    def __len__(self) -> int:
        return len(self._arrays["document"])

    def __getitem__(self, index: int) -> Snapshot:
        """A snapshot, without random generator: whoever restores it keeps theirs."""
        if index not in self._snapshots:
            arrays = {name: array[index] for name, array in self._arrays.items()}
            self._snapshots[index] = Snapshot.from_arrays(arrays)
        return self._snapshots[index]

    @property
    def variants(self) -> list[str]:
        """Reset ranges that the starts are from."""
        made_for = self.manifest["variant"]
        return [made_for] if isinstance(made_for, str) else list(made_for)

    @classmethod
    def of(cls, snapshots: Sequence[Snapshot], manifest: dict[str, Any]) -> StartPool:
        """Make a pool of snapshots taken at the start of a skill.

        Raises:
            PoolError: no snapshots, or such that do not hold the same arrays.
        """
        if not snapshots:
            raise PoolError("a pool needs at least one snapshot; none was made")
        flat = [snapshot.without_rng().to_arrays() for snapshot in snapshots]
        shapes = [{name: array.shape for name, array in arrays.items()} for arrays in flat]
        if any(other != shapes[0] for other in shapes):
            raise PoolError("the snapshots' memories are of different shapes; a pool holds states of one kind")
        stacked = {name: np.stack([arrays[name] for arrays in flat]) for name in flat[0]}
        perception = snapshots[0].perception
        return cls(stacked, {**manifest, "perception": perception, "format": FORMAT})

    @classmethod
    def load(cls, path: str | os.PathLike[str], **expected: Any) -> StartPool:
        """Read a pool file.

        Args:
            path: an ``.npz`` file made by `save`.
            expected: manifest entries that must match: task, variant, stage, perception. Where the manifest has a list, as
                of the variants that the starts are from, it must be in it.

        Raises:
            PoolError: no such file, not a pool, empty, or made for another task, variant, stage or perception.
        """
        path = as_path(path, "pool")
        if not path.is_file():
            raise PoolError(f"no pool file {path}; make one with python -m reinforcegen_envs.wrappers.fill_pool")
        try:
            with np.load(path, allow_pickle=False) as file:
                manifest = json.loads(str(file["manifest"]))
                if manifest.get("format") != FORMAT:
                    raise PoolError(f"{path} is of format {manifest.get('format')!r}, not {FORMAT!r}; make it again")
                pool = cls({name: file[name] for name in file.files if name != "manifest"}, manifest)
                if len(pool):
                    pool[0]  # complains of missing parts now rather than at some reset
        except PoolError:
            raise
        except Exception as error:  # a damaged archive raises a dozen different ones
            raise PoolError(f"{path} is not a complete pool file ({error}); make it again") from error
        for key, value in expected.items():
            made_for = manifest.get(key)
            if value not in made_for if isinstance(made_for, list) else value != made_for:
                raise PoolError(f"{path} was made for {key} {made_for!r}, but {value!r} is needed")
        if not len(pool):
            raise PoolError(f"{path} holds no snapshots; fill it with at least one")
        return pool

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pool and its manifest to one ``.npz`` file."""
        with atomic_path(Path(path)) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(
                file,
                manifest=np.array(json.dumps(self.manifest, default=str)),
                **self._arrays,  # type: ignore[arg-type]
            )

    def draw(self, rng: np.random.Generator, seed: int | None = None) -> Snapshot:
        """One of the snapshots: number ``seed`` modulo their number, so that seeds one after the other are different starts.

        Without a seed it is drawn.
        """
        if seed is not None:
            return self[seed % len(self)]
        return self[int(rng.integers(len(self)))]  # pyright: ignore[reportUnknownMemberType] (numpy's stub)
