"""Where the source demonstrations of a task are."""

from __future__ import annotations

from pathlib import Path

from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.tasks import TASKS

SHIPPED = Path(__file__).with_name("source")


def source_file(task: str) -> Path:
    """The source demonstrations that come with a task: those that it names itself, or else the package's.

    Raises:
        InvalidArgument: it comes with none.
    """
    named = TASKS[task].sources if task in TASKS else None
    path = SHIPPED / f"{task.lower()}.hdf5" if named is None else Path(named)
    if not path.is_file():
        raise InvalidArgument(
            f"{task} comes without source demonstrations (there is no {path}); make some with "
            f"python -m reinforcegen_envs.demos.collect --task {task} --out FILE and name them with --source FILE"
        )
    return path
