"""Cutting source demonstrations into skill segments, expressed in the frame of each stage's reference object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from reinforcegen_envs.demos.hdf5 import Demo, DemoFileError
from reinforcegen_envs.planning.skeleton import Skeleton
from reinforcegen_envs.poses import distance, invert, rotation
from reinforcegen_envs.tasks import Task
from reinforcegen_envs.tasks.base import Stage, source_run

PAUSE = (0.0008, 0.01)  # metres and radians: a target that moves less since the last kept step pauses
FINGER_STEPS = 12  # control steps that the fingers may need after a command
MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])  # y -> -y, of an object's frame and of the hand's
HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])  # of the hand about its approach axis


@dataclass(frozen=True)
class Segment:
    """One skill of one demonstration.

    Args:
        tool: (T, 4, 4) where the tool was asked to be, in the reference object's frame: the object in the hand if the
            stage has one, else the grip site. Once let go, the object is thought of as still in the hand, where it was.
        actual: (T, 4, 4) where the tool was at the same moments, in the same frame: how far it lagged.
        gripper: (T,) gripper actions.
    """

    tool: np.ndarray
    actual: np.ndarray
    gripper: np.ndarray

    def __len__(self) -> int:
        return len(self.gripper)

    @property
    def start(self) -> np.ndarray:
        """(4, 4) where the tool was when the skill began."""
        return self.actual[0]

    @property
    def middle(self) -> np.ndarray:
        """(4, 4) target farthest from both ends of the skill: where one that goes out and comes back turns."""
        places = self.tool[:, :3, 3]
        away = [np.linalg.norm(places - end, axis=1) for end in (places[0], places[-1])]
        return self.tool[int(np.argmax(np.minimum(*away)))]

    @property
    def release(self) -> int:
        """The step at which the fingers let go of what they held; the segment's length if they never do."""
        return release_step(self.gripper)

    @property
    def left(self) -> np.ndarray:
        """(4, 4) where the tool was when the hand opened, or at the end if it stayed closed."""
        return self.actual[min(self.release, len(self) - 1)]

    @property
    def freed(self) -> np.ndarray:
        """(4, 4) where the hand last was open after it had let go: the target, as ``tool``; at the end if it stayed closed."""
        shut = np.flatnonzero(self.gripper[self.release :] > 0)
        return self.tool[self.release + int(shut[0]) - 1 if len(shut) else len(self) - 1]

    def changed(self, before: np.ndarray, after: np.ndarray) -> Segment:
        """The same skill with every pose of the tool multiplied by two 4x4 matrices."""
        return Segment(before @ self.tool @ after, before @ self.actual @ after, self.gripper)


def release_step(gripper: np.ndarray) -> int:
    """First step at which closed fingers are told to open; the number of steps if there is none.

    Args:
        gripper: (T,) gripper actions.
    """
    opening = np.flatnonzero((gripper[1:] <= 0) & (gripper[:-1] > 0))
    return int(opening[0]) + 1 if len(opening) else len(gripper)


def skill_bounds(demo: Demo, task: type[Task]) -> list[tuple[int, int]]:
    """First and last-but-one step of every stage's skill.

    Annotated files say so (``datagen_info/stage`` and ``is_skill``). Else a skill starts when the hand last comes within
    the stage's ``skill_radius`` of where it is at the end signal, and goes on for ``end_offset`` steps after the signal.

    Raises:
        DemoFileError: a stage's end signal is missing or never rises, or a stage has no skill step.
    """
    annotated = "stage" in demo.datagen_info and "is_skill" in demo.datagen_info
    bounds = []
    begin = 0
    for index, stage in enumerate(task.stages):
        if annotated:
            skill = (demo.datagen_info["stage"] == index) & (demo.datagen_info["is_skill"] > 0)
            steps = np.flatnonzero(skill)
            if not len(steps):
                raise DemoFileError(f"{demo.name}: no step is marked as skill of stage {stage.name!r}; record it again")
            bounds.append((int(steps[0]), int(steps[-1]) + 1))
            continue
        if stage.signal is None:
            event, end = len(demo) - 1, len(demo)
        else:
            signal = demo.subtask_term_signals.get(stage.signal)
            rises = np.flatnonzero(np.asarray(signal)[begin:] > 0) if signal is not None else []
            if not len(rises):
                raise DemoFileError(
                    f"{demo.name}: subtask signal {stage.signal!r} is missing or never rises; "
                    "it must mark the end of stage " + repr(stage.name)
                )
            event = begin + int(rises[0])
            end = min(event + 1 + stage.end_offset, len(demo))
        away = np.linalg.norm(demo.eef_pose[begin : event + 1, :3, 3] - demo.eef_pose[event, :3, 3], axis=1)
        outside = np.flatnonzero(away > stage.skill_radius)
        start = begin + int(outside[-1]) + 1 if len(outside) else begin
        bounds.append((min(start, event), end))
        begin = end
    return bounds


def cut(demo: Demo, task: type[Task]) -> list[Segment]:
    """The skill segments of a demonstration, one a stage."""
    segments = []
    for stage, (begin, end) in zip(task.stages, skill_bounds(demo, task), strict=True):
        reference = demo.object_poses[stage.reference]
        # Without a held object the reference is read once, when the skill begins: it may leave with the hand.
        fixed = invert(reference[begin])
        tool, actual = [], []
        to_tool = np.eye(4)
        release = begin + release_step(demo.gripper_action[begin:end, 0])  # they may close again, on nothing
        for t in range(begin, end):
            frame = fixed if stage.held is None else invert(reference[t])
            if stage.held is not None and (t == begin or t < release):
                to_tool = invert(demo.eef_pose[t]) @ demo.object_poses[stage.held][t]
            tool.append(frame @ demo.target_pose[t] @ to_tool)
            actual.append(frame @ demo.eef_pose[t] @ to_tool)
        keep = without_pauses(np.stack(tool), demo.gripper_action[begin:end, 0])
        gripper = demo.gripper_action[begin:end, 0][keep]
        segments.append(Segment(np.stack(tool)[keep], np.stack(actual)[keep], gripper))
    return segments


def without_pauses(tool: np.ndarray, gripper: np.ndarray) -> np.ndarray:
    """Indices of the steps to keep of a skill: where the operator paused, only the last step.

    A policy without memory that learns a pause may never end it. The last step of a pause is where the hand had caught up
    with its target, so whoever waits for as little lag as it shows there is as well aligned as the operator was. Steps
    after the gripper command changed stay: fingers need time.

    Args:
        tool: (T, 4, 4) targets.
        gripper: (T,) gripper actions.
    """
    keep: list[int] = []
    moving_fingers = 0
    for t in range(len(tool)):
        if t > 0 and (gripper[t] > 0) != (gripper[t - 1] > 0):
            moving_fingers = FINGER_STEPS
        if keep and not moving_fingers:
            metres, radians = distance(tool[keep[-1]], tool[t])
            if metres < PAUSE[0] and radians < PAUSE[1] and gripper[keep[-1]] * gripper[t] > 0:
                keep[-1] = t
                continue
        moving_fingers = max(0, moving_fingers - 1)
        keep.append(t)
    return np.array(keep)


def cut_all(demos: Iterable[Demo], task: type[Task]) -> list[list[Segment]]:
    """The skill segments of every variant of every demonstration, see `variants`; a demonstration's variants stand together."""
    return [variant for demo in demos for variant in variants(cut(demo, task), task.stages)]


def variants(segments: list[Segment], stages: Sequence[Stage]) -> list[list[Segment]]:
    """What a demonstration shows, and what it shows turned and mirrored by the symmetries that its stages declare.

    The first is the demonstration itself. Stages up to one with ``new_source`` are combined: every grasp with every
    turn of what follows. Another such run of stages goes through its own combinations at the same time; where it has fewer,
    it repeats them.

    Args:
        segments: one a stage.
        stages: a task's.
    """
    parts = dict.fromkeys(source_run(stages, i) for i in range(len(stages)))
    runs = [_combinations(segments[part.start : part.stop], stages[part.start : part.stop]) for part in parts]
    count = max(len(run) for run in runs)
    return [[segment for run in runs for segment in run[i % len(run)]] for i in range(count)]


def _combinations(segments: Sequence[Segment], stages: Sequence[Stage]) -> list[list[Segment]]:
    """Every variant of stages that copy one source."""
    images = [list(segments)]
    if all(stage.mirrored for stage in stages):
        images.append([segment.changed(MIRROR, MIRROR) for segment in segments])
    return [list(choice) for image in images for choice in product(*map(_turned, image, stages))]


def _turned(segment: Segment, stage: Stage) -> list[Segment]:
    """A skill turned with its reference, and turned in the hand; itself first and unchanged."""
    hands = [np.eye(4), HALF_TURN] if stage.half_turn and stage.held is None else [np.eye(4)]
    turns = [rotation([0.0, 0.0, 2 * np.pi * i / stage.turns]) for i in range(stage.turns)]
    changes = [(turn, hand) for hand in hands for turn in turns]
    return [segment, *(segment.changed(*change) for change in changes[1:])]


def skeleton_of(sources: list[list[Segment]]) -> Skeleton:
    """The key poses of cut source demonstrations."""
    tools = [[[s.start, s.middle, s.tool[-1]] for s in segments] for segments in sources]
    in_hand = [[invert(s.tool[int(np.argmax(s.gripper > 0))]) for s in segments] for segments in sources]
    left = [[s.left for s in segments] for segments in sources]
    freed = [[s.freed for s in segments] for segments in sources]
    lengths = [[len(s) for s in segments] for segments in sources]
    return Skeleton(np.array(tools), np.array(in_hand), np.array(left), np.array(freed), np.array(lengths, np.int64))
