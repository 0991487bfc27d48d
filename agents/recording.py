"""Listeners that keep what happens in an engine: the states that it visits, and how wrong it believes objects to be."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from reinforcegen_envs.engine import Engine
from reinforcegen_envs.perception.accuracy import Row, errors, offsets
from reinforcegen_envs.perception.camera import CameraPerception
from reinforcegen_envs.perception.camera_errors import Track
from reinforcegen_envs.perception.frames import States, touching_groups
from reinforcegen_envs.sim.kernel import GRIPPER
from reinforcegen_envs.typing import Array


class Listener(ABC):
    """Hears of every control step of an engine, and knows whether it is a connect's.

    Args:
        engine: what is played in.
    """

    def __init__(self, engine: Engine):
        self._engine = engine
        self._connecting = False
        engine.events.subscribe("connect_begun", lambda *_: self._begin())
        engine.events.subscribe("connect_ended", lambda *_: self._end())
        engine.events.subscribe("control_step", lambda: self._keep("connect" if self._connecting else "skill"))

    def _begin(self) -> None:
        self._connecting = True

    def _end(self) -> None:
        self._connecting = False

    @abstractmethod
    def _keep(self, phase: str) -> None:
        """Keep what there is now; ``phase`` as in `Row`."""


class Recorder(Listener):
    """Keeps an engine's state at every control step, until it is `taken`."""

    def __init__(self, engine: Engine):
        super().__init__(engine)
        self._rows: list[tuple] = []
        self.seed = 0

    def _keep(self, phase: str) -> None:
        engine, data = self._engine, self._engine.sim.data
        self._rows.append((
            data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy(), engine.sim.controller[GRIPPER],
            engine.stage, phase == "connect", touching_groups(engine.sim, engine.task), self.seed,
        ))  # fmt: skip

    def taken(self) -> States | None:
        """What was kept, which is then forgotten; None if nothing was, as when nothing was within reach."""
        rows, self._rows = self._rows, []
        if not rows:
            return None
        return States(*(np.array(column) for column in zip(*rows, strict=True)))


class Accuracy(Listener):
    """Keeps the errors of an engine's belief at every control step, until they are `taken`."""

    def __init__(self, engine: Engine):
        super().__init__(engine)
        self._rows: list[Row] = []

    def _end(self) -> None:
        super()._end()
        self._keep("arrived")

    def _keep(self, phase: str) -> None:
        engine = self._engine
        off = errors(engine.sim, engine.belief, engine.task)
        self._rows += [Row(engine.stage, phase, n, *error) for n, error in enumerate(off)]

    def taken(self) -> list[Row]:
        """What was kept, which is then forgotten."""
        rows, self._rows = self._rows, []
        return rows


class Tracks(Listener):
    """Keeps the errors of an engine's belief during skills, as an error model is fitted to, until they are `taken`.

    What follows when a skill has let go of its object is left out: where a nut falls to matters to no policy, and belief is far
    behind.
    """

    def __init__(self, engine: Engine):
        super().__init__(engine)
        self._rows: list[tuple[int, Array]] = []

    def _keep(self, phase: str) -> None:
        engine, camera = self._engine, self._engine.perception
        assert isinstance(camera, CameraPerception)
        if phase == "skill" and not camera.released:
            self._rows.append((engine.stage, offsets(engine.sim, engine.belief, engine.task, engine.stage)))

    def taken(self) -> list[Track]:
        """What was kept, a track a stage, which is then forgotten; skills of a single control step are left out."""
        rows, self._rows = self._rows, []
        stages = sorted({stage for stage, _ in rows})
        tracks = [Track(stage, np.array([errors for of, errors in rows if of == stage])) for stage in stages]
        return [track for track in tracks if len(track.errors) > 1]
