"""What `Hybrid` remembers of an episode from one control step to the next."""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.engine import Failure
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.policies.policy import Memory
from reinforcegen_envs.typing import Array

# Metres within which the hand has stayed for so many control steps: the skill will not get on.
STILL, STALLED = 0.002, 30
TRAIL = 0.02  # radians of a joint between two points of what the hand came by


class Counters:
    """What `Hybrid` remembers of an episode.

    Attributes:
        steps, skill_steps: control steps of the episode, and of the current skill.
        reached: the furthest stage that was entered.
        finished: that stage has been finished, by simulator truth.
        paid: reward of this episode so far.
        over: the episode has ended, or was never begun.
        source: the source demonstration that is copied, or None.
        still, anchor: control steps of the current skill for which the hand has been where it was, and where, metres.
        trail: (n, 7) joints, radians, by which the hand came where it is in the current skill.
        opened: the hand was told to open in the current skill, or is known to have nothing in it.
        tried: sources from whose starts the current skill was begun in vain.
        retries: how often a skill has been begun again.
        failure: why the connect to the current skill failed, or None.
    """

    def __init__(self) -> None:
        self.begin()
        self.over = True

    def begin(self) -> None:
        """A new episode."""
        self.steps = self.skill_steps = self.reached = 0
        self.finished = self.over = False
        self.paid = 0.0
        self.source: int | None = None
        self.still = 0
        self.anchor: tuple[float, ...] = ()
        self.trail = np.empty((0, 7))
        self.opened = False
        self.tried: tuple[int, ...] = ()
        self.retries = 0
        self.failure: Failure | None = None

    def enter_stage(self, stage: int) -> None:
        """Another stage; what has been paid for is not paid again when a retry comes back to it."""
        self.tried = ()
        if stage > self.reached:
            self.reached = stage
            self.finished = False

    def begin_skill(self) -> None:
        """A skill begins."""
        self.skill_steps = self.still = 0
        self.anchor = ()
        self.trail = np.empty((0, 7))
        self.opened = False

    def watch(self, position: Array, joints: Array, gripper: float) -> None:
        """A control step of a skill: where the hand is after it, position (3,), metres, and the arm's joints (7,), radians, and
        the gripper's action (positive closes)."""
        self.opened |= gripper <= 0
        if len(self.trail) == 0 or np.abs(joints - self.trail[-1]).max() > TRAIL:
            self.trail = np.append(self.trail, joints[None], axis=0)
        if self.anchor and np.abs(position - self.anchor).max() < STILL:
            self.still += 1
        else:
            self.still, self.anchor = 0, tuple(position.tolist())

    def get_memory(self) -> Memory:
        """The counters as a snapshot holds them."""
        failure = None if self.failure is None else [self.failure.stage, self.failure.segment, self.failure.reason]
        return {**vars(self), "failure": failure}

    def set_memory(self, memory: Memory) -> None:
        """Go on from what `get_memory` gave."""
        fresh = vars(Counters())  # snapshots of before there were retries lack what belongs to them
        memory = (
            {name: fresh[name] for name in ("retries", "tried", "still", "anchor", "trail", "opened")}
            | {"reached": -1}
            | dict(memory)
        )
        if set(memory) != set(vars(self)):
            raise InvalidArgument(f"counters {sorted(memory)} are not {sorted(vars(self))}")
        vars(self).update(memory)
        self.tried = tuple(int(source) for source in memory["tried"])
        self.opened = bool(memory["opened"])
        self.anchor = tuple(float(part) for part in memory["anchor"])
        self.trail = np.array(memory["trail"], np.float64).reshape(-1, 7)
        if memory["failure"] is not None:
            self.failure = Failure(*memory["failure"])
