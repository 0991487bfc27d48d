"""Where the weights that come with the package are."""

from __future__ import annotations

import os
from pathlib import Path

from reinforcegen_envs.policies.mlp import WeightsError
from reinforcegen_envs.tasks import Task

SHIPPED = Path(__file__).with_name("weights")


def weights_folder(task: type[Task], folder: str | os.PathLike[str] | None = None) -> Path:
    """The folder of a task's weights: the given one, or the shipped one.

    Raises:
        WeightsError: there is no such folder.
    """
    path = Path(folder) if folder is not None else SHIPPED / task.name.lower()
    if not path.is_dir():
        if folder is None:
            shipped = sorted(p.name for p in SHIPPED.glob("*") if p.is_dir())
            raise WeightsError(
                f"no weights are shipped for {task.name} (there are some for {shipped}); "
                "train them with python -m reinforcegen_envs.agents.bc and name their folder (weights=...)"
            )
        raise WeightsError(f"no weights folder {path}; train one with python -m reinforcegen_envs.agents.bc")
    return path
