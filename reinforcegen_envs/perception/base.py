"""A belief, and the perception that fills it.

The robot knows its own joints; where objects are it must be told. Planner, collision checker, initiation, termination,
policies and observations read a `CellState`: with truth as perception that is the simulation itself, at no cost; any other
perception fills a `Belief`, a state of the same cell in which objects are where they are believed to be.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import mujoco
import numpy as np

from reinforcegen_envs.policies.policy import Memory
from reinforcegen_envs.sim.simulation import CellState, Simulation
from reinforcegen_envs.tasks.base import Task


class Belief(CellState):
    """A cell as it is believed to be: the robot as it is, objects where a perception puts them; nothing moves by itself."""

    def __init__(self, model: mujoco.MjModel):
        super().__init__(model)
        robot = [name for name in _joint_names(model) if name.startswith(("robot0_", "gripper0_"))]
        self._robot_qpos = np.array([model.joint(name).qposadr[0] for name in robot])
        self._robot_dof = np.array([model.joint(name).dofadr[0] for name in robot])

    def _make(self, model: mujoco.MjModel, state: dict[str, Any]) -> None:
        Belief.__init__(self, model)

    def follow_robot(self, truth: Simulation) -> None:
        """Take over what the robot knows of itself: joints, fingers, their velocities, and the controller's state."""
        self.data.time = truth.data.time
        self.data.qpos[self._robot_qpos] = truth.data.qpos[self._robot_qpos]
        self.data.qvel[self._robot_dof] = truth.data.qvel[self._robot_dof]
        self.controller[:] = truth.controller

    def follow(self, truth: Simulation) -> None:
        """Take over everything, objects included."""
        self.data.time = truth.data.time
        self.data.qpos[:] = truth.data.qpos
        self.data.qvel[:] = truth.data.qvel
        self.data.mocap_pos[:] = truth.data.mocap_pos
        self.data.mocap_quat[:] = truth.data.mocap_quat
        self.controller[:] = truth.controller


def _joint_names(model: mujoco.MjModel) -> list[str]:
    return [model.joint(i).name for i in range(model.njnt)]


class Perception(ABC):
    """Fills one environment's belief; an environment has a copy of its own.

    ``name`` says what it is in messages and snapshots. What it remembers from one control step to the next goes through
    `get_memory` and `set_memory`; the belief itself is kept by whoever takes the snapshot.
    """

    name: str

    def believe(self, truth: Simulation, task: Task) -> CellState:
        """The state that it will fill, of a task: one over the simulation's model."""
        return Belief(truth.model)

    @abstractmethod
    def reset(self, truth: Simulation, belief: CellState, task: Task, rng: np.random.Generator) -> None:
        """Fill the belief in a new scene.

        Args:
            truth: the simulation, which a perception may look at in the way that its sensors would.
            belief: what `believe` made; the caller evaluates it afterwards.
            task: names the objects.
            rng: a generator for this episode, apart from the environment's: perception changes nobody else's draws.
        """

    @abstractmethod
    def update(self, truth: Simulation, belief: CellState, task: Task, stage: int = 0) -> None:
        """Fill the belief one control step later; arguments as in `reset`, and the index of the current stage."""

    def reseed(self, rng: np.random.Generator) -> None:  # noqa: B027 (most draw nothing)
        """Draw what is still to come from another generator; what is remembered and believed stays."""

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Free what it draws with; it may be used on."""

    def doubt(self, belief: CellState, task: Task, name: str) -> tuple[float, float]:
        """How far off an object's believed pose may be: standard deviations, metres and radians. Most do not say: 0."""
        return 0.0, 0.0

    def get_memory(self) -> Memory:
        """What it remembers, as a copy."""
        return {}

    def set_memory(self, memory: Memory) -> None:  # noqa: B027 (most remember nothing)
        """Remember what `get_memory` gave."""


class Truth(Perception):
    """Object poses are known exactly: the belief is the simulation."""

    name = "truth"

    def believe(self, truth: Simulation, task: Task) -> CellState:
        """The simulation itself."""
        return truth

    def reset(self, truth: Simulation, belief: CellState, task: Task, rng: np.random.Generator) -> None:
        """Nothing to fill."""

    def update(self, truth: Simulation, belief: CellState, task: Task, stage: int = 0) -> None:
        """Nothing to fill."""
