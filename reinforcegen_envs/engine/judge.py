"""The judge: reads the simulation, never a belief, and says how far the task has got."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reinforcegen_envs.engine.failure import Failure
from reinforcegen_envs.sim.simulation import Simulation
from reinforcegen_envs.tasks.base import Task
from reinforcegen_envs.typing import Array

STAGE_STEPS = 3  # consecutive control steps for which an intermediate stage must look finished (ours)
STILL = 0.005  # metres that no object may have moved within the steps for which strict success is held (ours)


@dataclass(frozen=True)
class Verdict:
    """A judge's counters.

    Args:
        stage: index of the current stage.
        steady: consecutive control steps for which it has looked finished.
        held: (steps, objects, 3) of those, in the last stage, where the objects were, metres, world frame.
    """

    stage: int
    steady: int
    held: Array


class Judge:
    """Predicates, stage progress, success and failures of one simulation.

    Args:
        sim: what is judged.
        task: by whose rules.
    """

    def __init__(self, sim: Simulation, task: Task):
        self._sim, self._task = sim, task
        self.stage = 0
        self.predicates: dict[str, bool] = {}
        self.finished = False  # the current stage has looked finished for long enough
        self._steady = 0
        self._held: list[Array] = []

    @property
    def last_stage(self) -> bool:
        """Whether the current stage is the task's last."""
        return self.stage == len(self._task.stages) - 1

    @property
    def success(self) -> bool:
        """Strict success: in the last stage, all predicates have held for the required steps."""
        return self.finished and self.last_stage

    def enter(self, stage: int) -> None:
        """Make ``stage`` the current one."""
        self.stage = stage
        self._held, self._steady = [], 0
        self.finished = False

    def look(self) -> None:
        """Evaluate the predicates without counting a control step: for connects, and after a reset."""
        self.predicates = self._task.predicates(self._sim)

    def step(self) -> None:
        """Evaluate the predicates, one control step after the last time."""
        self.look()
        if not self.last_stage:
            self._steady = self._steady + 1 if self._task.stage_done(self._sim, self.stage) else 0
        elif all(self.predicates.values()):
            # Success must be held still: speeds jitter with the actions, so what counts is how far objects have got.
            positions = self._sim.data.xpos[self._task.bodies]
            self._held = [p for p in self._held if np.abs(positions - p).max() <= STILL][1 - self._task.success_steps :]
            self._held.append(positions)
            self._steady = len(self._held)
        else:
            self._held, self._steady = [], 0
        self._conclude()

    def restart(self) -> None:
        """Judge a state that was written anew: what was counted belongs to another one."""
        self._held, self._steady = [], 0
        self.step()

    def failure(self) -> Failure | None:
        """Why the current stage can no longer be finished, or None."""
        reason = self._task.failure(self._sim, self.stage)
        return self.skill_failure(reason) if reason else None

    def skill_failure(self, reason: str) -> Failure:
        """A failure of the current stage's skill."""
        return Failure(self._task.stages[self.stage].name, "skill", reason)

    def connect_failure(self, reason: str) -> Failure:
        """A failure of the connect to the current stage's skill."""
        return Failure(self._task.stages[self.stage].name, "connect", reason)

    def reference_success(self) -> bool:
        """Whether the literature's check holds now."""
        return self._task.reference_success(self._sim)

    def get_verdict(self) -> Verdict:
        """The counters, as a copy."""
        return Verdict(self.stage, self._steady, np.array(self._held).reshape(-1, len(self._task.bodies), 3))

    def set_verdict(self, verdict: Verdict) -> None:
        """Go on from counters; the simulation is in their state already."""
        self.stage, self._steady = verdict.stage, verdict.steady
        self._held = [np.array(positions, np.float64) for positions in verdict.held]
        self.look()
        self._conclude()

    def _conclude(self) -> None:
        """What follows from how long the stage has looked finished."""
        self.finished = self._steady >= (self._task.success_steps if self.last_stage else STAGE_STEPS)
