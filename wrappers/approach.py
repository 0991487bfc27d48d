"""The connect to where a skill starts: which source demonstration's start, how far off it, and planned anew where it moves."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from reinforcegen_envs.engine import Engine, Failure
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.planning.connect import Connect
from reinforcegen_envs.planning.motion import Plan
from reinforcegen_envs.planning.skeleton import Skeleton
from reinforcegen_envs.policies.policy import Policy
from reinforcegen_envs.poses import invert, matrix_from, rotvec_to_matrix
from reinforcegen_envs.typing import Array, Flags
from reinforcegen_envs.wrappers.counters import Counters
from reinforcegen_envs.wrappers.replanning import Replanning, checked_replan

NOISE_TRIES = 5  # draws of start-pose noise before the planner's failure counts
COMFORT = 0.12  # radians to every joint limit: the student's choice among sources that keep it comes first
REPLAN_EVERY = 5  # control steps between two looks at where the goal is now
MAX_REPLANS = 10


class Approach:
    """Brings the hand to where skills start.

    Args:
        engine: what it moves.
        skeleton: key poses of the source demonstrations.
        initiation: ranks sources; None ranks them by their distance to joint limits.
        counters: of the episode; sources, steps and failures are written there.
        pose_noise: standard deviations of what is added to a start pose, metres and radians per axis.
        replan: whether to look at the goal on the way and plan again when it has moved, or by how much it must have: see
            `Replanning`.

    Attributes:
        pose_noise: as given, checked.
        replan: likewise; None: never.
        last: the last connect, or None where none could be planned, or nobody has connected in the current call.

    Raises:
        InvalidArgument: pose noise that is not two numbers of at least 0, or ``replan`` neither a truth value nor three.
    """

    def __init__(
        self,
        engine: Engine,
        skeleton: Skeleton,
        initiation: Policy | None,
        counters: Counters,
        pose_noise: Any,
        replan: Any,
    ):
        self._engine, self._skeleton, self._initiation, self._counters = engine, skeleton, initiation, counters
        self.pose_noise = checked_pose_noise(pose_noise)
        self.replan = checked_replan(replan)
        self.last: Connect | None = None

    def enter_stage(self, stage: int) -> None:
        """What is connected to from now on."""
        self._engine.enter_stage(stage)
        self._counters.enter_stage(stage)

    def connect(self, grasp: int | None = None) -> Failure | None:
        """Connect to where the current stage's skill starts; returns None or why it failed.

        Args:
            grasp: the stage that took what the current one has let go of: an empty hand is to be brought to where the skill has
                it clear of that, and not to its start.
        """
        engine, counters = self._engine, self._counters
        counters.begin_skill()
        self.last = None
        connect = None
        steps = 0
        noisy = any(self.pose_noise) and grasp is None
        for source in self.ranked_sources() if grasp is None else self._untried_sources():
            for _ in range(NOISE_TRIES if noisy else 1):
                connect = self._connect(source) if grasp is None else self._connect_freed(source, grasp)
                steps += connect.steps  # a replan that fails comes after some
                if connect.plan.solved:
                    break
            assert connect is not None
            if connect.plan.solved:
                counters.source = source
                break
        self.last = connect
        if connect is None:
            counters.failure = engine.judge.connect_failure("no source within reach")
        else:
            counters.steps += steps
            counters.failure = engine.judge.connect_failure(connect.failure) if connect.failure else None
        engine.judge.look()
        engine.begin_skill()
        return counters.failure

    def ranked_sources(self) -> list[int]:
        """Source demonstrations within reach, the one to copy first; it stays that one until a stage that may have another."""
        engine, source = self._engine, self._counters.source
        tried = Counter(self._counters.tried)  # what others did comes before what has not helped
        margins = self._skeleton.margins(engine.belief, engine.task, engine.connector.checker.kinematics, engine.stage)
        if self._initiation is None:
            ranked = np.argsort(-margins, kind="stable")
        else:
            # What only just is within reach may not be it when the hand comes there, or holds something a little otherwise.
            ranked = self._initiation.act(engine.observe()[None])[0]
            ranked = sorted(ranked, key=lambda i: margins[i] <= COMFORT)
        order = [int(i) for i in ranked if margins[i] > 0]
        if (alike := self.alike()) is not None:
            order.sort(key=lambda i: (not alike[i], tried[i], i != source))
        else:
            order.sort(key=lambda i: tried[i])
        return order

    def alike(self) -> Flags | None:
        """(sources,) which would have grasped as the present one has; None where a stage may copy any of them.

        Another source's start may not suit the present one's grasp.
        """
        engine, source = self._engine, self._counters.source
        if source is None or engine.stage == 0 or engine.task.stages[engine.stage].new_source:
            return None
        return self._skeleton.alike(source, engine.task, engine.stage)

    def _connect(self, source: int) -> Connect:
        """Plan to a source's start pose, off by the pose noise, and follow the plan."""
        offset = self._noise()
        goal, plan = self._plan(source, offset)
        if self.replan is None:
            return self._engine.follow(plan, goal)
        return self._follow_replanning(self.replan, plan, goal, source, offset)

    def _plan(self, source: int, offset: Array) -> tuple[Array, Plan]:
        """Where a source's skill starts now, 4x4 of the hand, world, off by ``offset`` (4, 4), and a plan that leads there."""
        start, middle, end = self._skeleton.tools[source, self._engine.stage]
        goal = self._goal(start) @ offset
        return goal, self._engine.plan(goal, (self._goal(middle), self._goal(end)))

    def _connect_freed(self, source: int, grasp: int) -> Connect:
        """Plan to where a source's hand is clear of what it took in stage ``grasp`` and has let go of, and follow the plan."""
        engine, skeleton = self._engine, self._skeleton
        reference = engine.task.object_pose(engine.belief, engine.task.stages[engine.stage].reference)
        goal = reference @ skeleton.freed[source, engine.stage] @ invert(skeleton.in_hand[source, grasp])
        return engine.follow(engine.plan(goal, empty=True), goal, empty=True)

    def _untried_sources(self) -> list[int]:
        """All sources, the least tried first, and of those the present one."""
        tried = Counter(self._counters.tried)
        return sorted(range(len(self._skeleton.freed)), key=lambda i: (tried[i], i != self._counters.source))

    def _goal(self, tool: Array) -> Array:
        return self._engine.connector.goal(self._engine.stage, tool)

    def _follow_replanning(self, past: Replanning, plan: Plan, goal: Array, source: int, offset: Array) -> Connect:
        """Follow a plan, and plan again whenever the goal has moved; the path's part already made is kept."""
        engine, start, steps = self._engine, self._skeleton.tools[source, self._engine.stage, 0], 0

        def moved() -> bool:
            return past.due(engine, goal, self._goal(start) @ offset)

        for _ in range(MAX_REPLANS):
            connect = engine.follow(plan, goal, stop=moved, every=REPLAN_EVERY)
            steps += connect.steps
            if connect.failure or not (connect.interrupted or moved()):
                return Connect(connect.plan, steps, connect.failure)
            goal, plan = self._plan(source, offset)
        return Connect(plan, steps, "goal keeps moving")

    def _noise(self) -> Array:
        metres, radians = self.pose_noise
        if not metres and not radians:
            return np.eye(4)
        rng = self._engine.rng
        return matrix_from(rotvec_to_matrix(rng.normal(0.0, radians, 3)), rng.normal(0.0, metres, 3))


def checked_pose_noise(pose_noise: Any) -> tuple[float, float]:
    """``pose_noise`` as two floats.

    Raises:
        InvalidArgument: it is anything but two finite numbers of at least 0.
    """
    try:
        metres, radians = (float(part) for part in pose_noise)
    except (TypeError, ValueError):
        metres = radians = -1.0
    if not (0.0 <= metres < np.inf and 0.0 <= radians < np.inf):
        raise InvalidArgument(f"pose_noise {pose_noise!r} must be (metres, radians), both at least 0")
    return metres, radians
