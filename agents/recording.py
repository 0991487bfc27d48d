"""Listeners that keep what happens in an engine: the states that it visits, and how wrong it believes objects to be."""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.engine import Engine
from reinforcegen_envs.perception.accuracy import Row, errors
from reinforcegen_envs.perception.frames import States, touching_groups
from reinforcegen_envs.sim.kernel import GRIPPER


class Recorder:
    """Keeps an engine's state at every control step, until it is `taken`.

    Args:
        engine: what is played in.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self._rows: list[tuple] = []
        self._connecting = False
        self.seed = 0
        engine.events.subscribe("connect_begun", lambda *_: self._set(True))
        engine.events.subscribe("connect_ended", lambda *_: self._set(False))
        engine.events.subscribe("control_step", self._keep)

    def _set(self, connecting: bool) -> None:
        self._connecting = connecting

    def _keep(self) -> None:
        engine, data = self._engine, self._engine.sim.data
        self._rows.append((
            data.qpos.astype(np.float64), data.mocap_pos.copy(), data.mocap_quat.copy(), engine.sim.controller[GRIPPER],
            engine.stage, self._connecting, touching_groups(engine.sim, engine.task), self.seed,
        ))  # fmt: skip

    def taken(self) -> States | None:
        """What was kept, which is then forgotten; None if nothing was, as when nothing was within reach."""
        rows, self._rows = self._rows, []
        if not rows:
            return None
        return States(*(np.array(column) for column in zip(*rows, strict=True)))


class Accuracy:
    """Keeps the errors of an engine's belief at every control step, until they are `taken`.

    Args:
        engine: what is played in.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self._rows: list[Row] = []
        self._connecting = False
        engine.events.subscribe("connect_begun", lambda *_: self._set(True))
        engine.events.subscribe("connect_ended", lambda *_: self._arrived())
        engine.events.subscribe("control_step", lambda: self._keep("connect" if self._connecting else "skill"))

    def _set(self, connecting: bool) -> None:
        self._connecting = connecting

    def _arrived(self) -> None:
        self._set(False)
        self._keep("arrived")

    def _keep(self, phase: str) -> None:
        engine = self._engine
        self._rows += [
            Row(self._engine.stage, phase, n, *error)
            for n, error in enumerate(errors(engine.sim, engine.belief, engine.task))
        ]

    def taken(self) -> list[Row]:
        """What was kept, which is then forgotten."""
        rows, self._rows = self._rows, []
        return rows
