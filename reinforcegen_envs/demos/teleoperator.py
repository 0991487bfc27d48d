"""A scripted teleoperator: steers through keyframes with the ordinary action interface, at 20 Hz, as a person would.

It stands in for the human of the paper, and the documentation says so: its speed, pauses, approach, grasp and small
corrections vary from demonstration to demonstration, but it is a script that reads object poses from the simulator.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from reinforcegen_envs.demos.hdf5 import Demo
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.poses import (
    distance,
    invert,
    matrix_from,
    matrix_to_rotvec,
    rotvec_to_matrix,
)
from reinforcegen_envs.sim.kernel import POSITION_SCALE, ROTATION_SCALE
from reinforcegen_envs.tasks.recipe import Keyframe

MAX_KEYFRAME_STEPS = 120
TREMOR = 0.0012  # metres: standard deviation of the slow drift of the operator's hand
TREMOR_MEMORY = 0.9
PAUSE_CHANCE = 0.004  # a control step
GRAIN = 2.0**-30  # metres and radians: states and poses are kept as multiples of it, which compress well


def action_to_pose(eef: np.ndarray, target: np.ndarray, gripper: float, gain: float = 1.0) -> np.ndarray:
    """The OSC_POSE delta action (7,) that asks for ``target`` (4x4, world), cut to [-1, 1].

    A ``gain`` above 1 asks for more than the error that is left, which stiffens the hand against what pushes it aside.
    """
    action = np.empty(7)
    action[:3] = gain * (target[:3, 3] - eef[:3, 3]) / POSITION_SCALE
    turn = matrix_to_rotvec(np.ascontiguousarray(target[:3, :3] @ eef[:3, :3].T))
    action[3:6] = gain * turn / ROTATION_SCALE
    action[6] = gripper
    return np.clip(action, -1.0, 1.0)


def _rounded(array: np.ndarray) -> np.ndarray:
    """What lies still in contact trembles in its last bits, which do not compress; they are cut off."""
    return np.round(array / GRAIN) * GRAIN


def pose_of_action(eef: np.ndarray, action: np.ndarray) -> np.ndarray:
    """The 4x4 pose that an OSC_POSE delta action asks for; the inverse of `action_to_pose` within its range."""
    turn = rotvec_to_matrix(ROTATION_SCALE * np.asarray(action[3:6], np.float64))
    return matrix_from(turn @ eef[:3, :3], eef[:3, 3] + POSITION_SCALE * np.asarray(action[:3]))


@dataclass
class Recorder:
    """Collects what a demonstration file holds about every control step, before its action."""

    env: ManipulationEnv
    steps: list[dict] = field(default_factory=list)

    def before(self, action: np.ndarray, stage: int, skill: bool) -> None:
        """Note the state before ``action``."""
        env = self.env
        eef = env.sim.eef_pose()
        signals = {
            s.signal: env.engine.stage > i or env.task.stage_done(env.sim, i)
            for i, s in enumerate(env.task.stages)
            if s.signal
        }
        self.steps.append(
            {
                "action": np.asarray(action, np.float64),
                "state": np.concatenate([[env.data.time], env.data.qpos, env.data.qvel]),
                "eef": eef,
                "objects": {name: env.task.object_pose(env.sim, name) for name in env.task.objects},
                "target": pose_of_action(eef, action),
                "signals": signals,
                "stage": stage,
                "skill": skill,
                "obs": env.engine.observe(),
            }
        )

    def demo(self, attrs: dict) -> Demo:
        """Everything noted, as one demonstration."""
        steps = self.steps

        def stack(key: str) -> np.ndarray:
            return np.stack([s[key] for s in steps])

        actions = stack("action")
        return Demo(
            name="",
            actions=actions,
            states=_rounded(stack("state")),
            obs={"state": stack("obs")},
            eef_pose=_rounded(stack("eef")),
            target_pose=_rounded(stack("target")),
            gripper_action=actions[:, 6:],
            object_poses={n: _rounded(np.stack([s["objects"][n] for s in steps])) for n in self.env.task.objects},
            subtask_term_signals={n: np.array([s["signals"][n] for s in steps], np.int64) for n in steps[0]["signals"]},
            datagen_info={"stage": stack("stage").astype(np.int64), "is_skill": stack("skill").astype(np.int64)},
            attrs=attrs,
        )


class Teleoperator:
    """Plays one demonstration.

    Args:
        env: a plain environment (no mode), just reset.
        rng: style and tremor of this demonstration.
    """

    def __init__(self, env: ManipulationEnv, rng: np.random.Generator):
        self._env, self._rng = env, rng
        self._recorder = Recorder(env)
        self._tremor = np.zeros(3)

    def play(self, style: int = 0) -> tuple[bool, Demo]:
        """Steer through all keyframes; returns strict success and the recording.

        Args:
            style: which of the task's ``styles``.

        Raises:
            InvalidArgument: the task has no recipe.
        """
        task = self._env.task
        for keyframe in task.recipe(self._rng, style) if task.styles > 1 else task.recipe(self._rng):
            if not self._reach(keyframe):
                break
        return self._env.engine.judge.success, self._recorder.demo({"scripted": True})

    def _goal(self, keyframe: Keyframe, frame: np.ndarray) -> np.ndarray:
        """Grip-site pose, world, that puts the keyframe's tool where it belongs."""
        goal = frame @ keyframe.pose
        if keyframe.tool == "eef":
            return goal
        env = self._env
        in_hand = invert(env.sim.eef_pose()) @ env.task.object_pose(env.sim, keyframe.tool)
        return goal @ invert(in_hand)

    def _reach(self, keyframe: Keyframe) -> bool:
        """Steer to one keyframe; False when the episode is over or time ran out."""
        env, rng = self._env, self._rng
        frame = env.task.object_pose(env.sim, keyframe.frame)
        carrot = env.sim.eef_pose()
        dwelt = 0
        for _ in range(MAX_KEYFRAME_STEPS):
            if keyframe.track_frame:
                frame = env.task.object_pose(env.sim, keyframe.frame)
            goal = self._goal(keyframe, frame)
            eef = env.sim.eef_pose()
            metres, radians = distance(eef, goal)
            arrived = metres < keyframe.tolerance[0] and radians < keyframe.tolerance[1]
            if dwelt or arrived:
                if dwelt >= keyframe.dwell and arrived:
                    return True
                dwelt += 1
            pause = 0 if rng.random() > PAUSE_CHANCE else int(rng.integers(2, 7))
            carrot = self._advance(carrot, goal, keyframe.speed)
            for _ in range(1 + pause):
                if not self._step(keyframe, carrot):
                    return False
        return dwelt > 0

    def _advance(self, carrot: np.ndarray, goal: np.ndarray, speed: float) -> np.ndarray:
        """Move the steered-for pose towards the goal by at most ``speed`` metres and a matching turn."""
        metres, radians = distance(carrot, goal)
        part = min(1.0, speed / max(metres, radians * 0.12, 1e-9))
        turn = matrix_to_rotvec(np.ascontiguousarray(goal[:3, :3] @ carrot[:3, :3].T))
        return matrix_from(
            rotvec_to_matrix(part * turn) @ carrot[:3, :3], carrot[:3, 3] + part * (goal[:3, 3] - carrot[:3, 3])
        )

    def _step(self, keyframe: Keyframe, target: np.ndarray) -> bool:
        env, rng = self._env, self._rng
        self._tremor = TREMOR_MEMORY * self._tremor + TREMOR * np.sqrt(1 - TREMOR_MEMORY**2) * rng.normal(size=3)
        shaken = target.copy()
        # The hand steadies where precision is called for.
        shaken[:3, 3] += self._tremor * min(1.0, keyframe.tolerance[0] / 0.006)
        action = action_to_pose(env.sim.eef_pose(), shaken, keyframe.gripper).astype(np.float32)
        self._recorder.before(action, keyframe.stage, keyframe.skill)
        _, _, terminated, _, _ = env.step(action)
        return not terminated
