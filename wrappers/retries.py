"""Skills that have run out of time, come to rest or ended in vain are begun again."""

from __future__ import annotations

from typing import Any

import numpy as np

from reinforcegen_envs.engine import Engine, Failure
from reinforcegen_envs.engine.engine import OPEN_ENOUGH
from reinforcegen_envs.errors import InvalidArgument, is_count
from reinforcegen_envs.perception.camera import UPRIGHT
from reinforcegen_envs.planning.connect import CLOSE, OPEN
from reinforcegen_envs.planning.skeleton import Skeleton
from reinforcegen_envs.poses import invert
from reinforcegen_envs.sim.simulation import EMPTY
from reinforcegen_envs.typing import Array, Flags
from reinforcegen_envs.wrappers.approach import Approach
from reinforcegen_envs.wrappers.counters import STALLED, Counters

PATIENCE = 60  # control steps that a skill may take beyond its source's: about what beginning it again costs (ours)
SLIPPED = 0.03  # metres from the fingers of what any source had between them: what is farther off is no longer held
# How far from where any source lets go of it what a skill came with lies that has been brought: metres aside, above and below,
# as it may have slid down. It leans no more than what beliefs take to stand, `UPRIGHT`.
BROUGHT_ASIDE, BROUGHT_ABOVE, BROUGHT_BELOW = 0.015, 0.01, 0.1
# The same of what is still in the hand: a hand that gets nowhere so near to where a source lets go does it there, and does not
# come again from the skill's start.
LET_GO_ASIDE, LET_GO_ABOVE, LET_GO_BELOW = 0.003, 0.003, 0.005
ASTRAY = 0.1  # metres that the hand may be farther from the reference object than any source's is in the skill (ours)


class Retries:
    """Begins skills again, as `Hybrid` says under ``retries``.

    Args:
        engine, skeleton, counters: of the environment.
        approach: connects.
        count: how often in an episode.

    Attributes:
        count: as given, checked.

    Raises:
        InvalidArgument: a count that is no whole number of at least 0.
    """

    def __init__(self, engine: Engine, skeleton: Skeleton, counters: Counters, approach: Approach, count: Any):
        self._engine, self._skeleton, self._counters, self._approach = engine, skeleton, counters, approach
        self.count = checked_retries(count)

    def allowed(self) -> bool:
        """Whether the current skill may be begun again now."""
        counters = self._counters
        if counters.retries >= self.count or counters.steps >= self._engine.task.horizon:
            return False
        # What is believed to be done is not taken apart again, though nobody has said that it is.
        return not self._looks_done()

    def done(self) -> bool:
        """Whether the last skill gets nowhere any more, and the task is believed to be done, though nobody has said so."""
        return self.count > 0 and self._looks_done() and self._idle()

    def hopeless(self) -> bool:
        """Whether the current skill gets nowhere, see `_idle`, and retries are left."""
        return self._counters.retries < self.count and self._idle()

    def _idle(self) -> bool:
        """Whether the current skill takes long, the hand rests or has gone astray, or what it had is lost."""
        counters = self._counters
        lengths = self._skeleton.lengths[:, self._engine.stage]
        patience = int(lengths.max() if counters.source is None else lengths[counters.source]) + PATIENCE
        late = counters.skill_steps >= patience or counters.still >= STALLED
        return late or self._emptied() or self._astray()

    def _looks_done(self) -> bool:
        """Whether this is the last skill, and what is believed passes the literature's check."""
        believed: Any = self._engine.belief  # has all that the check reads
        return self._engine.judge.last_stage and self._engine.task.looks_done(believed)

    def in_vain(self) -> bool:
        """Whether the current skill, which was said to be over, is believed not to be, and may be begun again.

        Of the last one the belief tells, see `allowed`; of the others it tells what leans where sources leave it upright, and
        what is not where it belongs.
        """
        return self.allowed() and (self._engine.judge.last_stage or self._leans() or not self.placed())

    def placed(self) -> bool:
        """Whether what the current skill came with is believed to be where it belongs; see `Task.looks_placed`."""
        believed: Any = self._engine.belief  # has all that the check reads
        return self._engine.task.looks_placed(believed, self._engine.stage)

    def once_more(self) -> Failure | None:
        """Begin the current skill again, what it came with in the hand; returns None or why it cannot go on.

        Where no plan leads to its start it goes on from where the hand is: it may be done, and only believed not to be. So it
        does where all that it lacks is to let go.
        """
        if self.arrived():
            self._let_go()
            return None
        failure = self.begin_again(self.lost())
        connect = self._approach.last
        if self._engine.judge.failure() is None and (connect is None or not connect.plan.solved):
            self._counters.failure = failure = None
        return failure

    def begin_again(self, grasp: int | None) -> Failure | None:
        """Begin the current stage's skill again, or go back to stage ``grasp`` first; returns None or why it cannot be."""
        engine, counters = self._engine, self._counters
        counters.retries += 1
        stage, source, way_back = engine.stage, counters.source, counters.trail[::-1]
        failure = None
        freed = self.grasp() if self.brought() else None
        # Where it cannot be taken anew it may be where it belongs already, as a pod under a lid.
        for target in (stage,) if grasp is None else (grasp, stage):
            if target != engine.stage:
                self._approach.enter_stage(target)
            if source is not None:
                counters.tried += (source,)
            empty = freed is not None or engine.task.stages[target].held is None
            if empty:
                counters.steps += engine.open_hand()
            failure = self._approach.connect(freed)
            if (
                self._approach.last is not None
                and self._approach.last.plan.status == "start_collision"
                and len(way_back)
            ):
                counters.steps += engine.retrace(way_back, OPEN if empty else CLOSE)  # what it came by is free
                way_back = way_back[:0]
                failure = self._approach.connect(freed)
            if failure is None or engine.judge.failure() is not None:
                break
        counters.opened = freed is not None or grasp not in (None, engine.stage)  # nothing is in the hand, as is known
        return failure

    def _let_go(self) -> None:
        """Open the hand where it is, and begin the skill again from there."""
        engine, counters = self._engine, self._counters
        counters.retries += 1
        counters.steps += engine.open_hand()
        counters.begin_skill()
        counters.opened = True
        engine.judge.look()
        engine.begin_skill()

    def grasp(self) -> int | None:
        """The stage that takes what the current one comes with; None if it comes with nothing, or no stage says that it does."""
        stages, held = self._engine.task.stages, self._engine.task.stages[self._engine.stage].held
        found = [i for i in range(self._engine.stage) if stages[i].held is None and stages[i].reference == held]
        return found[-1] if found else None

    def lost(self) -> int | None:
        """The stage that takes what the current one came with, if that is neither in the hand nor where it belongs."""
        engine, grasp = self._engine, self.grasp()
        if grasp is None or self.brought():
            return None
        if not EMPTY <= engine.belief.gripper_opening() <= OPEN_ENOUGH:
            return grasp
        # A mug swings about the rim by which it is held, and its middle with it; and a policy may take it as another source did.
        there = engine.connector.in_hand(engine.task.stages[grasp].reference)
        moved = [there @ invert(held) for held in self._skeleton.in_hand[:, grasp]]
        return grasp if min(np.linalg.norm(motion[:3, 3]) for motion in moved) > SLIPPED else None

    def brought(self) -> bool:
        """Whether what the skill came with was let go of, and lies where sources leave it, or a little lower."""
        near = self._counters.opened and self._beside_place(BROUGHT_ASIDE, BROUGHT_ABOVE, BROUGHT_BELOW)
        return near and self.placed()

    def arrived(self) -> bool:
        """Whether what the skill came with is still in the hand, and is where sources let go of it."""
        return not self._counters.opened and self._beside_place(LET_GO_ASIDE, LET_GO_ABOVE, LET_GO_BELOW)

    def _beside_place(self, aside: float, above: float, below: float) -> bool:
        """Whether what the current stage begins with in the hand is within so many metres of where some source lets go of it."""
        if (there := self._there()) is None:
            return False
        off = there[:3, 3] - self._skeleton.left[:, self._engine.stage, :3, 3]
        near = np.hypot(off[:, 0], off[:, 1]) < aside
        near &= (-below < off[:, 2]) & (off[:, 2] < above)
        return bool((near & self._upright(there)).any())

    def _leans(self) -> bool:
        """Whether what the current skill came with was let go of, and leans as no source leaves it."""
        there = self._there() if self._counters.opened else None
        return there is not None and not self._upright(there).any()

    def _there(self) -> Array | None:
        """Pose of what the current stage begins with in the hand in the reference object's frame; None if that is nothing."""
        engine = self._engine
        stage = engine.task.stages[engine.stage]
        if stage.held is None:
            return None
        reference, held = (engine.task.object_pose(engine.belief, name) for name in (stage.reference, stage.held))
        return invert(reference) @ held

    def _upright(self, there: Array) -> Flags:
        """(sources,) whether something that is so in the reference object's frame leans about as sources leave it."""
        return self._skeleton.left[:, self._engine.stage, :3, 2] @ there[:3, 2] > UPRIGHT

    def _astray(self) -> bool:
        """Whether the hand is farther from the reference object than sources have it: imitation does not find back from there."""
        engine, skeleton, grasp = self._engine, self._skeleton, self.grasp()
        reference = engine.task.object_pose(engine.belief, engine.task.stages[engine.stage].reference)
        tools = np.linalg.norm(skeleton.tools[:, engine.stage, :, :3, 3], axis=-1).max()
        held = 0.0 if grasp is None else np.linalg.norm(skeleton.in_hand[:, grasp, :3, 3], axis=-1).max()
        return bool(np.linalg.norm(engine.belief.eef_pose()[:3, 3] - reference[:3, 3]) > tools + held + ASTRAY)

    def _emptied(self) -> bool:
        """Whether what the current skill came with has been lost before it was to be let go of: the fingers meet."""
        return not self._counters.opened and self._engine.belief.gripper_opening() < EMPTY and self.lost() is not None


def checked_retries(retries: Any) -> int:
    """``retries`` as a number.

    Raises:
        InvalidArgument: it is anything but an integer of at least 0.
    """
    if not is_count(retries, 0):
        raise InvalidArgument(f"retries {retries!r} must be a whole number, at least 0")
    return retries
