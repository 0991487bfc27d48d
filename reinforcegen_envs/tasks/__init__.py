"""The tasks, by name; `registration.register_task` adds others."""

from reinforcegen_envs.tasks.base import Placement, PlacementError, Shape, Stage, Symmetry, Task
from reinforcegen_envs.tasks.coffee import CoffeeTask
from reinforcegen_envs.tasks.coffee_preparation import CoffeePreparationTask
from reinforcegen_envs.tasks.nut_assembly import NutAssemblyTask
from reinforcegen_envs.tasks.square import SquareTask
from reinforcegen_envs.tasks.threading import ThreadingTask
from reinforcegen_envs.tasks.three_piece_assembly import ThreePieceAssemblyTask

PACKAGE_TASKS: tuple[type[Task], ...] = (
    ThreadingTask,
    SquareTask,
    NutAssemblyTask,
    CoffeeTask,
    ThreePieceAssemblyTask,
    CoffeePreparationTask,
)
TASKS: dict[str, type[Task]] = {task.name: task for task in PACKAGE_TASKS}

__all__ = [
    "PACKAGE_TASKS",
    "TASKS",
    "CoffeePreparationTask",
    "CoffeeTask",
    "NutAssemblyTask",
    "Placement",
    "PlacementError",
    "Shape",
    "SquareTask",
    "Stage",
    "Symmetry",
    "Task",
    "ThreadingTask",
    "ThreePieceAssemblyTask",
]
