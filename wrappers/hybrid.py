"""The hybrid decomposition: planned connects inside ``reset`` and ``step``, skills for the agent."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np

from reinforcegen_envs.engine import Engine, Failure, Snapshot
from reinforcegen_envs.engine.engine import OPEN_ENOUGH
from reinforcegen_envs.engine.judge import Judge
from reinforcegen_envs.env import ManipulationEnv, checked_action
from reinforcegen_envs.errors import InvalidArgument, checked_flag, is_count, is_one_of
from reinforcegen_envs.observations import to_world
from reinforcegen_envs.planning.connect import CLOSE, OPEN, Connect
from reinforcegen_envs.planning.motion import Plan
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.policy import Memory, Policy, as_termination
from reinforcegen_envs.policies.predictors import CONSECUTIVE
from reinforcegen_envs.poses import distance, matrix_from, rotvec_to_matrix
from reinforcegen_envs.typing import Array, Flags, Observations

TERMINATIONS = ("predicate", "sustained", "predictor")
INITIATIONS = ("teacher", "student")
NOISE_TRIES = 5  # draws of start-pose noise before the planner's failure counts
COMFORT = 0.12  # radians to every joint limit: the student's choice among sources that keep it comes first
REPLAN_EVERY = 5  # control steps between two looks at where the goal is now
REPLAN_DISTANCE, REPLAN_ANGLE = 0.01, 0.1  # metres and radians that it must have moved for a new plan
MAX_REPLANS = 10
# Metres within which the hand has stayed for so many control steps: the skill will not get on.
STILL, STALLED = 0.002, 30
TRAIL = 0.02  # radians of a joint between two points of what the hand came by
SLIPPED = 0.03  # metres from where a source had it in the hand: what is farther off is no longer held


class Sustained(Policy):
    """Ends a skill when it has been finished, by simulator truth, for `CONSECUTIVE` control steps more in a row.

    A policy that learns under it stays where it has finished, which the learned termination needs when it is deployed.
    """

    def __init__(self, judge: Judge):
        self._judge = judge
        self._count = 0

    def reset(self, env_indices: Any = None) -> None:
        """A new skill begins."""
        self._count = 0

    def act(self, observations: Observations, env_indices: Any = None) -> Flags:
        """Whether the skill is over, one control step later, (1,)."""
        self._count = self._count + 1 if self._judge.finished else 0
        return np.array([self._count > CONSECUTIVE])

    def get_memory(self, env_index: int = 0) -> Memory:
        return {"count": self._count}

    def set_memory(self, memory: Memory, env_index: int = 0) -> None:
        self._count = int(memory["count"])


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

    def watch(self, position: Array, joints: Array) -> None:
        """Where the hand is after a control step of a skill: its position (3,), metres, and the arm's joints (7,), radians."""
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
            {name: fresh[name] for name in ("retries", "tried", "still", "anchor", "trail")}
            | {"reached": -1}
            | dict(memory)
        )
        if set(memory) != set(vars(self)):
            raise InvalidArgument(f"counters {sorted(memory)} are not {sorted(vars(self))}")
        vars(self).update(memory)
        self.tried = tuple(int(source) for source in memory["tried"])
        self.anchor = tuple(float(part) for part in memory["anchor"])
        self.trail = np.array(memory["trail"], np.float64).reshape(-1, 7)
        if memory["failure"] is not None:
            self.failure = Failure(*memory["failure"])


class Hybrid(gym.Wrapper[Any, Any, Any, Any]):
    """The agent has the control steps of skill segments; the planner has the rest.

    ``reset`` places the scene and connects to the first skill. A skill goes on until it is over; then ``step`` connects to
    the next one before it returns. The episode terminates with the last skill, when a connect fails or a skill's object is
    lost, and is truncated at a skill's or the task's horizon (control steps).

    Args:
        env: the plain environment itself. Other wrappers go around this one: connects run on the engine beneath, and what
            is between would not see them.
        termination: "predicate" ends skills as soon as the simulator says so; "sustained" when it has gone on saying so for as
            long as the learned predictor takes to be sure; "predictor" by the learned termination predictor; a callable or
            `Policy` says itself: observation after a control step -> whether the skill is over.
        initiation: "teacher" takes the source whose key poses lie best within reach; "student" the learned predictor's choice.
        pose_noise: standard deviations, metres and radians per axis, of what is added to every initiation pose.
        replan: look at the goal while connecting and plan again when it has moved.
        retries: how often in an episode a skill whose horizon is over, or in which the hand no longer moves (less than 2 mm in
            30 control steps), is begun again, within the task's horizon: the planner opens the hand, unless the skill came with
            something in it, backs out, and connects anew, to the start of another source where there is one. What the skill
            came with and is believed to have let go of is grasped anew first, and so is what cannot be carried to where its
            skill starts. A last skill after which the believed poses pass the task's reference check is left alone.
        weights: folder of predictors and skeleton; None means the shipped ones.

    Attributes:
        engine: the plain environment's.
        bundle: the weights.
        skeleton: key poses of the source demonstrations.
        initiation, termination: the predictors' policies, or None.
        counters: what it remembers of the episode.
        observation: the last one, of the state, flat; policies act on it in every obs_mode.

    Raises:
        InvalidArgument: an argument is not one of the allowed values, or another wrapper is in between.
        WeightsError: weights are missing, damaged, or made for another task.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        termination: Any = "predicate",
        initiation: str = "teacher",
        pose_noise: tuple[float, float] = (0.0, 0.0),
        replan: bool = False,
        retries: int = 0,
        weights: str | os.PathLike[str] | None = None,
    ):
        super().__init__(env)
        if not isinstance(env, ManipulationEnv):
            raise InvalidArgument(
                f"{type(self).__name__} takes the plain environment itself, not {env}: connects run beneath every wrapper "
                "in between. Give it env.unwrapped and put other wrappers around it"
            )
        if isinstance(termination, str) and termination not in TERMINATIONS:
            raise InvalidArgument(
                f"unknown termination {termination!r}; choose one of {TERMINATIONS}, or give a callable"
            )
        if not is_one_of(initiation, INITIATIONS):
            raise InvalidArgument(f"unknown initiation {initiation!r}; choose one of {INITIATIONS}")
        self.core = env
        self.engine: Engine = env.engine
        self.bundle = Bundle.open(type(self.engine.task), weights, self.engine.perception.name)
        self.skeleton = self.bundle.skeleton()
        self.initiation: Policy | None = self.bundle.initiation() if initiation == "student" else None
        self.termination = self._make_termination(termination)
        self._pose_noise = checked_pose_noise(pose_noise)
        self._replan = checked_flag(replan, "replan")
        self._retries = checked_retries(retries)
        self.counters = Counters()
        self.observation: Observations = np.zeros(0, np.float32)
        self._last_connect: Connect | None = None
        self.engine.keep("counters", self.counters)
        for name, policy in (("initiation", self.initiation), ("termination", self.termination)):
            if policy is not None:
                self.engine.keep(name, policy)

    def _make_termination(self, termination: Any) -> Policy | None:
        if not isinstance(termination, str):
            return as_termination(termination)
        if termination == "predicate":
            return None
        return Sustained(self.engine.judge) if termination == "sustained" else self.bundle.termination()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Reset the task and connect to the first skill; a failed connect is in info, and the first step terminates."""
        info = self.begin(seed, options)
        return self.core.present(self.engine.layout, self.observation), info

    def begin(self, seed: int | None = None, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """`reset` for a wrapper that presents ``observation`` itself; returns info."""
        self.core.begin(seed, options)
        self.counters.begin()
        failure = self._connect_to_skill()
        self._observe()
        return self._info(self._last_steps(), failure)

    def step(self, action: Any):
        """One control step of a skill, and the connect to the next one if this ends it.

        Args:
            action: (7,) in [-1, 1] (cut to it): OSC_POSE delta in the world frame, gripper (+1 closes).

        Raises:
            InvalidArgument: an action of another shape, or with NaN.
            gymnasium.error.ResetNeeded: the episode is over, or was never begun.
        """
        self._require_episode()
        reward, terminated, truncated, info = self.advance(checked_action(action))
        return self.core.present(self.engine.layout, self.observation), reward, terminated, truncated, info

    def advance(self, action: Array) -> tuple[float, bool, bool, dict[str, Any]]:
        """`step` for a wrapper that presents ``observation`` itself.

        Args:
            action: (7,) float64 in [-1, 1], checked, world frame.

        Returns:
            reward, terminated, truncated, info.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or was never begun.
        """
        self._require_episode()
        counters = self.counters
        self._last_connect = None  # info tells of this call alone
        if counters.failure is not None:  # the first connect failed: nothing can be done
            counters.over = True
            self._observe()
            return 0.0, True, False, self._info(0, counters.failure)
        return self._skill_step(action)

    def _skill_step(self, action: Array) -> tuple[float, bool, bool, dict[str, Any]]:
        engine, judge, counters = self.engine, self.engine.judge, self.counters
        engine.act(action)
        self.observation = engine.observe()
        counters.steps += 1
        counters.skill_steps += 1
        if self._retries:
            counters.watch(engine.belief.eef_pose()[:3, 3], engine.belief.joints)
        steps = 1
        reward = 0.0
        last = engine.stage == self._last_stage()
        if judge.finished and not counters.finished and not last and engine.stage >= counters.reached:
            counters.finished = True
            reward = 1.0 / len(engine.task.stages)
        failure = judge.failure()
        terminated = failure is not None
        truncated = False
        if not terminated and self._skill_over():
            if not judge.finished:
                failure = judge.skill_failure("termination")
            if last:
                terminated = True
            else:
                self._enter_stage(engine.stage + 1)
                connect_failure = self._begin_stage()
                self.observation = engine.observe()
                steps += self._last_steps()
                failure = failure or connect_failure
                terminated = connect_failure is not None
        elif not terminated:
            late = counters.steps >= engine.task.horizon
            timeout = counters.skill_steps >= engine.task.stages[engine.stage].horizon
            if not late and (timeout or counters.still >= STALLED):
                if self._may_retry():
                    failure = self._retry(self._lost())
                    self.observation = engine.observe()
                    steps += self._last_steps()
                    terminated = failure is not None
                else:
                    late = timeout
            if late:
                truncated, failure = True, judge.skill_failure("skill timeout")
        counters.over = terminated or truncated
        if counters.over and last and judge.finished:
            # A learned termination may come after success was lost again, or skip a stage's reward: what is paid in the
            # end makes the return 1 with success and less without it.
            reward = self._worth() - counters.paid
        counters.paid += reward
        return reward, terminated, truncated, self._info(steps, failure)

    def _worth(self) -> float:
        """The return of an episode that has just ended with success."""
        return 1.0

    def _require_episode(self) -> None:
        if self.counters.over:
            raise gym.error.ResetNeeded("the episode is over (or was never begun); call reset()")

    def ask(self, policy: Policy, observation: Observations, name: str) -> Array:
        """A policy's action on an observation (layout.size,), as it is executed: (7,) float64 in [-1, 1], world frame.

        Raises:
            InvalidArgument: it is not 7 finite numbers; the message calls it ``name``.
        """
        action = policy.act(observation[None])[0]
        if policy.frame == "reference":
            frame = observation[self.engine.layout.slices["ref_rot6d_world"]].astype(np.float64)
            action = to_world(np.asarray(action, np.float64), frame)
        return checked_action(action, name)

    def _observe(self) -> None:
        self.observation = self.engine.observe()

    def _last_stage(self) -> int:
        return len(self.engine.task.stages) - 1

    def _skill_over(self) -> bool:
        if self.termination is None:
            return self.engine.judge.finished
        return bool(self.termination.act(self.observation[None])[0])

    def _last_steps(self) -> int:
        return 0 if self._last_connect is None else self._last_connect.steps

    def _info(self, steps: int, failure: Failure | None) -> dict[str, Any]:
        planner = None if self._last_connect is None else self._last_connect.plan.info()
        return {**self.core.info(steps, planner, failure), "retries": self.counters.retries}

    def _enter_stage(self, stage: int) -> None:
        self.engine.enter_stage(stage)
        self.counters.enter_stage(stage)

    def _begin_stage(self) -> Failure | None:
        """Connect to the skill of a stage that was just entered, or take anew what it needs; returns None or why it failed."""
        if self._may_retry() and (grasp := self._lost()) is not None:
            return self._retry(grasp)  # the grasp has failed, though its end was announced
        failure = self._connect_to_skill()
        if failure is not None and self.engine.judge.failure() is None and self._may_retry():
            if (grasp := self._grasp()) is not None:
                return self._retry(grasp)  # taken otherwise it may be within reach
        return failure

    def _may_retry(self) -> bool:
        engine = self.engine
        if self.counters.retries >= self._retries or self.counters.steps >= engine.task.horizon:
            return False
        # What is believed to pass the literature's check is not taken apart again, though nobody has said that it is done.
        believed: Any = engine.belief  # has all that the check reads, though no contacts
        return not (engine.judge.last_stage and engine.task.reference_success(believed))

    def _retry(self, grasp: int | None) -> Failure | None:
        """Begin the current stage's skill again, or go back to stage ``grasp`` first; returns None or why it cannot be."""
        engine, counters = self.engine, self.counters
        counters.retries += 1
        stage, source, way_back = engine.stage, counters.source, counters.trail[::-1]
        before, failure = counters.steps, None
        # Where it cannot be taken anew it may be where it belongs already, as a pod under a lid.
        for target in (stage,) if grasp is None else (grasp, stage):
            if target != engine.stage:
                self._enter_stage(target)
            if source is not None:
                counters.tried += (source,)
            empty = engine.task.stages[target].held is None
            if empty:
                counters.steps += engine.open_hand()
            failure = self._connect_to_skill()
            if self._last_connect is not None and self._last_connect.plan.status == "start_collision" and len(way_back):
                counters.steps += engine.retrace(way_back, OPEN if empty else CLOSE)  # what it came by is free
                way_back = way_back[:0]
                failure = self._connect_to_skill()
            if failure is None or engine.judge.failure() is not None:
                break
        if self._last_connect is not None:
            self._last_connect = replace(self._last_connect, steps=counters.steps - before)
        return failure

    def _grasp(self) -> int | None:
        """The stage that takes what the current one comes with; None if it comes with nothing, or no stage says that it does."""
        stages, held = self.engine.task.stages, self.engine.task.stages[self.engine.stage].held
        found = [i for i in range(self.engine.stage) if stages[i].held is None and stages[i].reference == held]
        return found[-1] if found else None

    def _lost(self) -> int | None:
        """The stage that takes what the current one came with, if that is believed to be no longer in the hand; or None."""
        engine, source = self.engine, self.counters.source
        grasp = self._grasp()
        if grasp is None or engine.belief.gripper_opening() > OPEN_ENOUGH:
            return grasp
        there = engine.connector.in_hand(engine.task.stages[grasp].reference)
        lost = source is not None and distance(self.skeleton.in_hand[source, grasp], there)[0] > SLIPPED
        return grasp if lost else None

    def _connect_to_skill(self) -> Failure | None:
        """Connect to where the current stage's skill starts; returns None or why it failed."""
        engine, counters = self.engine, self.counters
        counters.begin_skill()
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
                counters.source = source
                break
        self._last_connect = None if connect is None else replace(connect, steps=steps)
        if connect is None:
            counters.failure = engine.judge.connect_failure("no source within reach")
        else:
            counters.steps += steps
            counters.failure = engine.judge.connect_failure(connect.failure) if connect.failure else None
        engine.judge.look()
        engine.begin_skill()
        return counters.failure

    def _ranked_sources(self) -> list[int]:
        """Source demonstrations within reach, the one to copy first; it stays that one until a stage that may have another."""
        engine, source = self.engine, self.counters.source
        tried = Counter(self.counters.tried)  # what others did comes before what has not helped
        margins = self.skeleton.margins(engine.belief, engine.task, engine.connector.checker.kinematics, engine.stage)
        if self.initiation is None:
            ranked = np.argsort(-margins, kind="stable")
        else:
            # What only just is within reach may not be it when the hand comes there, or holds something a little otherwise.
            ranked = self.initiation.act(engine.observe()[None])[0]
            ranked = sorted(ranked, key=lambda i: margins[i] <= COMFORT)
        order = [int(i) for i in ranked if margins[i] > 0]
        if source is not None and engine.stage > 0 and not engine.task.stages[engine.stage].new_source:
            # Another source's start may not suit the grasp of this one, unless it would have grasped in the same way.
            alike = self.skeleton.alike(source, engine.task, engine.stage)
            order.sort(key=lambda i: (not alike[i], tried[i], i != source))
        else:
            order.sort(key=lambda i: tried[i])
        return order

    def _connect(self, source: int) -> Connect:
        """Plan to a source's start pose, off by the pose noise, and follow the plan."""
        engine = self.engine
        start, middle, end = self.skeleton.tools[source, engine.stage]
        offset = self._noise()
        goal = self._goal(start) @ offset
        plan = engine.plan(goal, (self._goal(middle), self._goal(end)))
        if not self._replan:
            return engine.follow(plan, goal)
        return self._follow_replanning(plan, goal, start, offset)

    def _goal(self, tool: Array) -> Array:
        return self.engine.connector.goal(self.engine.stage, tool)

    def _follow_replanning(self, plan: Plan, goal: Array, start: Array, offset: Array) -> Connect:
        """Follow a plan, and plan again whenever the goal has moved; the path's part already made is kept."""
        steps = 0
        for _ in range(MAX_REPLANS):
            connect = self.engine.follow(
                plan, goal, stop=lambda goal=goal: self._moved(goal, start, offset), every=REPLAN_EVERY
            )
            steps += connect.steps
            if connect.failure or not (connect.interrupted or self._moved(goal, start, offset)):
                return Connect(connect.plan, steps, connect.failure)
            goal = self._goal(start) @ offset
            plan = self.engine.plan(goal)
        return Connect(plan, steps, "goal keeps moving")

    def _moved(self, goal: Array, start: Array, offset: Array) -> bool:
        metres, radians = distance(goal, self._goal(start) @ offset)
        return metres > REPLAN_DISTANCE or radians > REPLAN_ANGLE

    def _noise(self) -> Array:
        metres, radians = self._pose_noise
        if not metres and not radians:
            return np.eye(4)
        rng = self.engine.rng
        return matrix_from(rotvec_to_matrix(rng.normal(0.0, radians, 3)), rng.normal(0.0, metres, 3))

    def get_state(self) -> Snapshot:
        """See `ManipulationEnv.get_state`: it holds what wrappers and policies remember too."""
        return self.core.get_state()

    def set_state(self, state: Snapshot) -> None:
        """See `ManipulationEnv.set_state`."""
        self.core.set_state(state)


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


def checked_retries(retries: Any) -> int:
    """``retries`` as a number.

    Raises:
        InvalidArgument: it is anything but an integer of at least 0.
    """
    if not is_count(retries, 0):
        raise InvalidArgument(f"retries {retries!r} must be a whole number, at least 0")
    return retries
