"""The tasks, by name."""

from reinforcegen_envs.tasks.base import Placement, PlacementError, Shape, Stage, Task
from reinforcegen_envs.tasks.coffee import CoffeeTask
from reinforcegen_envs.tasks.threading import ThreadingTask

TASKS: dict[str, type[Task]] = {task.name: task for task in (ThreadingTask, CoffeeTask)}

__all__ = ["TASKS", "CoffeeTask", "Placement", "PlacementError", "Shape", "Stage", "Task", "ThreadingTask"]
