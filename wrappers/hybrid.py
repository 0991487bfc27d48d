"""The hybrid decomposition: planned connects inside ``reset`` and ``step``, skills for the agent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol, cast

import gymnasium as gym
import numpy as np

from reinforcegen_envs.connect import Connect, Connector
from reinforcegen_envs.env import ManipulationEnv, checked_action
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.predictors import CONSECUTIVE
from reinforcegen_envs.poses import distance, invert, matrix_from, rotvec_to_matrix

TERMINATIONS = ("predicate", "sustained", "predictor")
INITIATIONS = ("teacher", "student")
NOISE_TRIES = 5  # draws of start-pose noise before the planner's failure counts
REPLAN_EVERY = 5  # control steps between two looks at where the goal is now
REPLAN_DISTANCE, REPLAN_ANGLE = 0.01, 0.1  # metres and radians that it must have moved for a new plan
MAX_REPLANS = 10


class Termination(Protocol):
    """What ends skills; see `Hybrid`."""

    count: int

    def reset(self) -> None: ...

    def __call__(self, obs: np.ndarray) -> bool: ...


class Sustained:
    """Ends a skill when it has been finished, by simulator truth, for `CONSECUTIVE` control steps more in a row.

    A policy that learns under it stays where it has finished, which the learned termination needs when it is deployed.
    """

    def __init__(self, core: ManipulationEnv):
        self._core = core
        self.count = 0

    def reset(self) -> None:
        """A new skill begins."""
        self.count = 0

    def __call__(self, obs: np.ndarray) -> bool:
        """Whether the skill is over, one control step later."""
        self.count = self.count + 1 if self._core.stage_finished else 0
        return self.count > CONSECUTIVE


class Hybrid(gym.Wrapper):
    """The agent has the control steps of skill segments; the planner has the rest.

    ``reset`` places the scene and connects to the first skill. A skill goes on until it is over; then ``step`` connects to
    the next one before it returns. The episode terminates with the last skill, when a connect fails or a skill's object is
    lost, and is truncated at a skill's or the task's horizon (control steps).

    Args:
        env: a plain environment.
        termination: "predicate" ends skills as soon as the simulator says so; "sustained" when it has gone on saying so for as
            long as the learned predictor takes to be sure; "predictor" by the learned termination predictor; a callable
            says itself: observation after a control step -> whether the skill is over. Its ``reset`` is called when a skill
            begins, and its ``count`` (int) is part of the environment's state.
        initiation: "teacher" takes the source whose key poses lie best within reach; "student" the learned predictor's choice.
        pose_noise: standard deviations, metres and radians per axis, of what is added to every initiation pose.
        replan: look at the goal while connecting and plan again when it has moved.
        weights: folder of predictors and skeleton; None means the shipped ones.

    Raises:
        ValueError: an argument is not one of the allowed values.
        WeightsError: weights are missing, damaged, or made for another task.
    """

    env: ManipulationEnv

    def __init__(
        self,
        env: ManipulationEnv,
        termination: str | Termination = "predicate",
        initiation: str = "teacher",
        pose_noise: tuple[float, float] = (0.0, 0.0),
        replan: bool = False,
        weights: str | None = None,
    ):
        super().__init__(env)
        if not callable(termination) and termination not in TERMINATIONS:
            raise ValueError(f"unknown termination {termination!r}; choose one of {TERMINATIONS}, or give a callable")
        if initiation not in INITIATIONS:
            raise ValueError(f"unknown initiation {initiation!r}; choose one of {INITIATIONS}")
        self.core = cast(ManipulationEnv, env.unwrapped)
        task = type(self.core.task)
        bundle = Bundle.open(task, weights)
        self._skeleton = bundle.skeleton()
        self._initiation = bundle.initiation() if initiation == "student" else None
        self._termination: Termination | None = None if isinstance(termination, str) else termination
        if termination == "sustained":
            self._termination = Sustained(self.core)
        elif termination == "predictor":
            self._termination = bundle.termination()
        self._pose_noise = checked_pose_noise(pose_noise)
        self._replan = replan
        self._connector: Connector | None = None
        self._steps = self._skill_steps = 0
        self._finished = False  # the current stage has been finished, by simulator truth
        self._paid = 0.0  # reward of this episode so far
        self._over = True
        self._last_connect: Connect | None = None
        self._source: int | None = None

    @property
    def connector(self) -> Connector:
        """Planner and executor of connects, made when first needed."""
        if self._connector is None:
            self._connector = Connector(self.core)
        return self._connector

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Reset the task and connect to the first skill; a failed connect is in info, and the first step terminates."""
        self.env.reset(seed=seed, options=options)
        self._begin_episode()
        failure = self._connect_to_skill()
        return self.core.observe(), self._info(self._last_steps(), failure)

    def _begin_episode(self) -> None:
        self._steps = 0
        self._paid = 0.0
        self._source = None
        self._over = False
        self._failure = ""

    def step(self, action):
        """One control step of a skill, and the connect to the next one if this ends it.

        Args:
            action: (7,) in [-1, 1] (cut to it): OSC_POSE delta in the world frame, gripper (+1 closes).

        Raises:
            ValueError: an action of another shape, or with NaN.
            gymnasium.error.ResetNeeded: the episode is over, or was never begun.
        """
        if self._over:
            raise gym.error.ResetNeeded("the episode is over (or was never begun); call reset()")
        action = checked_action(action)
        self._last_connect = None  # info tells of this call alone
        if self._failure:  # the first connect failed: nothing can be done
            self._over = True
            return self.core.observe(), 0.0, True, False, self._info(0, self._failure)
        return self._skill_step(action)

    def _skill_step(self, action: np.ndarray):
        core = self.core
        core.control_step(action)
        self._steps += 1
        self._skill_steps += 1
        steps = 1
        reward = 0.0
        last = core.stage == self._last_stage()
        if core.stage_finished and not self._finished and not last:
            self._finished = True
            reward = 1.0 / len(core.task.stages)
        failure = core.task.failure(core.sim, core.stage)
        terminated = bool(failure)
        truncated = False
        if not terminated and self._skill_over():
            if not core.stage_finished:
                failure = "termination"
            if last:
                terminated = True
            else:
                core.enter_stage(core.stage + 1)
                connect_failure = self._connect_to_skill()
                steps += self._last_steps()
                failure = failure or connect_failure
                terminated = bool(connect_failure)
        elif not terminated:
            horizon = core.task.stages[core.stage].horizon
            truncated = self._skill_steps >= horizon or self._steps >= core.task.horizon
            failure = "skill timeout" if truncated else ""
        self._over = terminated or truncated
        if self._over and last and core.stage_finished:
            # A learned termination may come after success was lost again, or skip a stage's reward: what is paid in the
            # end makes the return 1 with success and less without it.
            reward = 1.0 - self._paid
        self._paid += reward
        return core.observe(), reward, terminated, truncated, self._info(steps, failure)

    def _last_stage(self) -> int:
        return len(self.core.task.stages) - 1

    def _skill_over(self) -> bool:
        if self._termination is None:
            return self.core.stage_finished
        return self._termination(self.core.observe())

    def _last_steps(self) -> int:
        return 0 if self._last_connect is None else self._last_connect.steps

    def _info(self, steps: int, failure: str) -> dict[str, Any]:
        planner = None if self._last_connect is None else self._last_connect.plan.info()
        return self.core.info(steps, planner, failure)

    def _connect_to_skill(self) -> str:
        """Connect to where the current stage's skill starts; returns "" or why it failed."""
        core = self.core
        self._skill_steps = 0
        self._finished = False
        if self._termination is not None:
            self._termination.reset()
        self._last_connect = None
        connect = None
        steps = 0
        noisy = any(self._pose_noise)
        for source in self._ranked_sources():
            for _ in range(NOISE_TRIES if noisy else 1):
                connect = self._connect(source)
                steps += connect.steps  # a replan that fails comes after some
                if connect.plan.solved:
                    break
            assert connect is not None
            if connect.plan.solved:
                self._source = source
                break
        self._last_connect = None if connect is None else replace(connect, steps=steps)
        if connect is None:
            self._failure = "connect: no source within reach"
        else:
            self._steps += steps
            self._failure = f"connect: {connect.failure}" if connect.failure else ""
        core.judge_predicates()
        return self._failure

    def _ranked_sources(self) -> list[int]:
        """Source demonstrations within reach, the one to copy first; it stays that one until a stage that may have another."""
        core = self.core
        margins = self._skeleton.margins(core, self.connector.checker.kinematics, core.stage)
        ranked = (
            np.argsort(-margins, kind="stable") if self._initiation is None else self._initiation.rank(core.observe())
        )
        order = [int(i) for i in ranked if margins[i] > 0]
        # Another source's start may not suit the grasp of this one.
        if self._source in order and not core.task.stages[core.stage].new_source:
            order.remove(self._source)
            order.insert(0, self._source)
        return order

    def _goal(self, tool: np.ndarray) -> np.ndarray:
        """Grip-site pose, world, that brings the current stage's tool to ``tool`` in the reference frame."""
        core = self.core
        stage = core.task.stages[core.stage]
        goal = core.task.object_pose(core.sim, stage.reference) @ tool
        return goal if stage.held is None else goal @ invert(self.connector.in_hand(stage.held))

    def _connect(self, source: int) -> Connect:
        """Plan to a source's start pose, off by the pose noise, and follow the plan."""
        core = self.core
        stage = core.task.stages[core.stage]
        start, middle, end = self._skeleton.tools[source, core.stage]
        offset = self._noise()
        goal = self._goal(start) @ offset
        plan = self.connector.plan(goal, stage.held, (self._goal(middle), self._goal(end)))
        if not self._replan:
            return self.connector.follow(plan, goal, stage.held)
        return self._follow_replanning(plan, goal, start, offset, stage.held)

    def _follow_replanning(self, plan, goal, start, offset, held) -> Connect:
        """Follow a plan, and plan again whenever the goal has moved; the path's part already made is kept."""
        steps = 0
        for _ in range(MAX_REPLANS):
            connect = self.connector.follow(
                plan, goal, held, stop=lambda goal=goal: self._moved(goal, start, offset), every=REPLAN_EVERY
            )
            steps += connect.steps
            if connect.failure or not (connect.interrupted or self._moved(goal, start, offset)):
                return Connect(connect.plan, steps, connect.failure)
            goal = self._goal(start) @ offset
            plan = self.connector.plan(goal, held)
        return Connect(plan, steps, "goal keeps moving")

    def _moved(self, goal: np.ndarray, start: np.ndarray, offset: np.ndarray) -> bool:
        metres, radians = distance(goal, self._goal(start) @ offset)
        return metres > REPLAN_DISTANCE or radians > REPLAN_ANGLE

    def _noise(self) -> np.ndarray:
        metres, radians = self._pose_noise
        if not metres and not radians:
            return np.eye(4)
        rng = self.core.np_random
        return matrix_from(rotvec_to_matrix(rng.normal(0.0, radians, 3)), rng.normal(0.0, metres, 3))

    def get_state(self) -> dict[str, Any]:
        """The plain environment's state and this wrapper's counters: a bit-exact replay continues from here."""
        return {
            **self.core.get_state(),
            "steps": self._steps,
            "skill_steps": self._skill_steps,
            "finished": self._finished,
            "paid": self._paid,
            "source": -1 if self._source is None else self._source,
            "termination_count": 0 if self._termination is None else self._termination.count,
            "over": self._over,
            "failure": self._failure,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Return to a state of `get_state`.

        Raises:
            ValueError: keys are missing, or the state belongs to another scene.
        """
        self.core.set_state(state)
        self._steps, self._skill_steps = int(state.get("steps", 0)), int(state.get("skill_steps", 0))
        self._finished = bool(state.get("finished", False))
        self._paid = float(state.get("paid", 0.0))
        source = int(state.get("source", -1))
        self._source = None if source < 0 else source
        self._over = bool(state.get("over", False))
        self._failure = str(state.get("failure", ""))
        self._last_connect = None
        if self._termination is not None:
            self._termination.count = int(state.get("termination_count", 0))


def checked_pose_noise(pose_noise) -> tuple[float, float]:
    """``pose_noise`` as two floats.

    Raises:
        ValueError: it is anything but two finite numbers of at least 0.
    """
    try:
        metres, radians = (float(part) for part in pose_noise)
    except (TypeError, ValueError):
        metres = radians = -1.0
    if not (0.0 <= metres < np.inf and 0.0 <= radians < np.inf):
        raise ValueError(f"pose_noise {pose_noise!r} must be (metres, radians), both at least 0")
    return metres, radians
