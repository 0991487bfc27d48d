"""The tasks, by name."""

from reinforcegen_envs.tasks.base import Placement, PlacementError, Shape, Stage, Task
from reinforcegen_envs.tasks.threading import ThreadingTask
from reinforcegen_envs.tasks.three_piece_assembly import ThreePieceAssemblyTask

TASKS: dict[str, type[Task]] = {task.name: task for task in (ThreadingTask, ThreePieceAssemblyTask)}

__all__ = [
    "TASKS",
    "Placement",
    "PlacementError",
    "Shape",
    "Stage",
    "Task",
    "ThreadingTask",
    "ThreePieceAssemblyTask",
]
