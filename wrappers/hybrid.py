"""The hybrid decomposition: planned connects inside ``reset`` and ``step``, skills for the agent."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from reinforcegen_envs.engine import Engine, Failure, Snapshot
from reinforcegen_envs.engine.judge import Judge
from reinforcegen_envs.env import ManipulationEnv, ask, checked_action
from reinforcegen_envs.errors import InvalidArgument, is_one_of
from reinforcegen_envs.observations import ACTION_SIZE
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.policy import Memory, Policy, as_termination
from reinforcegen_envs.policies.predictors import CONSECUTIVE
from reinforcegen_envs.typing import Array, Flags, Observations
from reinforcegen_envs.wrappers.approach import Approach
from reinforcegen_envs.wrappers.counters import Counters
from reinforcegen_envs.wrappers.retries import Retries

TERMINATIONS = ("predicate", "sustained", "predictor")
INITIATIONS = ("teacher", "student")
REST = 10  # control steps within which what moves at the end of a skill comes to rest (ours)


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
            `Policy` says itself: observation after a control step -> whether the skill is over. When the task's last skill is,
            the hand is held still until success is certain, for 10 control steps at most: what was let go of may still move.
        initiation: "teacher" takes the source whose key poses lie best within reach; "student" the learned predictor's choice.
        pose_noise: standard deviations, metres and radians per axis, of what is added to every initiation pose.
        replan: look at the goal while connecting and plan again when it has moved, by more than is not known of it; or by how
            much: (metres, radians, standard deviations), see `Replanning`.
        retries: how often in an episode a skill that gets nowhere is begun again, within the task's horizon: its horizon is
            over, or it takes 60 control steps longer than its source's, or the hand no longer moves (less than 2 mm in 30 control
            steps), or is 10 cm farther from the reference object than any source's, or what it came with has slipped out of the
            fingers. The planner opens the hand, unless the skill came with something in it, backs out, and connects anew, to the
            start of another source where there is one. What the skill came with and is believed to have lost is grasped anew
            first, and so is what cannot be carried to where its skill starts; what it has let go of where it belongs stays there,
            and the open hand goes to where a source is clear of it. Where some source lets go (within 3 mm), the hand that rests
            opens, and the skill goes on from there; so it does where no plan leads to its start. A last skill that gets nowhere
            is over if the believed poses pass the task's reference check; one that ``termination`` ends though they do not is
            begun again as well, and so is any other after which what it came with is not believed to be where it belongs.
        weights: folder of predictors and skeleton; None means the shipped ones.

    Attributes:
        engine: the plain environment's.
        bundle: the weights.
        skeleton: key poses of the source demonstrations.
        initiation, termination: the predictors' policies, or None.
        counters: what it remembers of the episode.

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
        self.counters = Counters()
        self._approach = Approach(self.engine, self.skeleton, self.initiation, self.counters, pose_noise, replan)
        self._retries = Retries(self.engine, self.skeleton, self.counters, self._approach, retries)
        self._observation: Observations = np.zeros(0, np.float32)
        self._observed_in = -1  # which of the states that the engine was put into that is of
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
        return self.observe(), info

    def begin(self, seed: int | None = None, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """`reset` for a wrapper that presents ``observation`` itself; returns info."""
        self.core.begin(seed, options)
        self.counters.begin()
        failure = self._approach.connect()
        self._observe()
        return self._info(self.counters.steps, failure)

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
        return self.observe(), reward, terminated, truncated, info

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
        self._approach.last = None  # info tells of this call alone
        if counters.failure is not None:  # the first connect failed: nothing can be done
            counters.over = True
            self._observe()
            return 0.0, True, False, self._info(0, counters.failure)
        return self._skill_step(action)

    def _skill_step(self, action: Array) -> tuple[float, bool, bool, dict[str, Any]]:
        engine, judge, counters, retries = self.engine, self.engine.judge, self.counters, self._retries
        before, last = counters.steps, engine.stage == self._last_stage()
        engine.act(action)
        self._observe()
        counters.steps += 1
        counters.skill_steps += 1
        if retries.count or not last:
            counters.watch(engine.belief.eef_pose()[:3, 3], engine.belief.joints, float(action[-1]))
        over = judge.failure() is None and (self._skill_over() or retries.done())
        if over and retries.allowed():
            self._hold_still(action[-1], lambda: not retries.in_vain())  # what was let go of may still fall
        reward = 0.0
        if judge.finished and not counters.finished and not last and engine.stage >= counters.reached:
            counters.finished = True
            reward = 1.0 / len(engine.task.stages)
        failure, truncated = judge.failure(), False
        terminated = failure is not None
        if not terminated:
            in_vain = over and retries.in_vain()
            if over and not in_vain:
                terminated, failure = self._end_skill(action[-1], last)
            else:
                terminated, truncated, failure = self._continue_skill(in_vain)
        counters.over = terminated or truncated
        if counters.over and last and judge.finished:
            # A learned termination may come after success was lost again, or skip a stage's reward: what is paid in the
            # end makes the return 1 with success and less without it.
            reward = self._worth() - counters.paid
        counters.paid += reward
        return reward, terminated, truncated, self._info(counters.steps - before, failure)

    def _end_skill(self, gripper: float, last: bool) -> tuple[bool, Failure | None]:
        """The end of a skill, and the connect to the next one; returns terminated, failure."""
        engine, judge, counters = self.engine, self.engine.judge, self.counters
        if last and judge.last_stage:
            self._hold_still(gripper, lambda: judge.finished)
        failure = None if judge.finished else judge.failure() or judge.skill_failure("termination")
        if last:
            return True, failure
        counters.steps += engine.ease(counters.trail[::-1])
        self._approach.enter_stage(engine.stage + 1)
        connect_failure = self._begin_stage()
        self._observe()
        return connect_failure is not None, failure or connect_failure

    def _continue_skill(self, in_vain: bool) -> tuple[bool, bool, Failure | None]:
        """A skill that goes on, begun again if need be, or if it ended ``in_vain``; returns terminated, truncated, failure."""
        engine, judge, counters = self.engine, self.engine.judge, self.counters
        late = counters.steps >= engine.task.horizon
        timeout = counters.skill_steps >= engine.task.stages[engine.stage].horizon
        if not late and (in_vain or timeout or self._retries.hopeless()):
            if self._retries.allowed():
                failure = self._retries.once_more()
                self._observe()
                return failure is not None, False, failure
            late = timeout
        return False, late, judge.skill_failure("skill timeout") if late else None

    def _hold_still(self, gripper: float, until: Callable[[], bool]) -> None:
        """Hold still at the announced end of a skill until something is so, `REST` control steps at most."""
        engine, judge, counters = self.engine, self.engine.judge, self.counters
        still = np.zeros(ACTION_SIZE)
        still[-1] = gripper
        for _ in range(REST):
            if until() or judge.failure() is not None or counters.steps >= engine.task.horizon:
                break
            engine.act(still)
            counters.steps += 1
        self._observe()

    def _worth(self) -> float:
        """The return of an episode that has just ended with success."""
        return 1.0

    def _require_episode(self) -> None:
        if self.counters.over:
            raise gym.error.ResetNeeded("the episode is over (or was never begun); call reset()")

    def ask(self, policy: Policy, observation: Observations, name: str) -> Array:
        """See `reinforcegen_envs.env.ask`."""
        return ask(policy, observation, self.engine.layout, name)

    @property
    def retries(self) -> int:
        """How often in an episode a skill may be begun again."""
        return self._retries.count

    @property
    def pose_noise(self) -> tuple[float, float]:
        """On initiation poses: metres and radians per axis."""
        return self._approach.pose_noise

    @property
    def observation(self) -> Observations:
        """The last one, of the state, flat: policies act on it in every obs_mode. After `set_state`, the restored state's."""
        if self._observed_in != self.engine.restored:
            self._observe()
        return self._observation

    def observe(self) -> Any:
        """The last observation as `step` returned it, e.g. after `set_state`."""
        return self.core.present(self.engine.layout, self.observation)

    def _observe(self) -> None:
        self._observation, self._observed_in = self.engine.observe(), self.engine.restored

    def _last_stage(self) -> int:
        return len(self.engine.task.stages) - 1

    def _skill_over(self) -> bool:
        if self.termination is None:
            return self.engine.judge.finished
        return bool(self.termination.act(self.observation[None])[0])

    def _info(self, steps: int, failure: Failure | None) -> dict[str, Any]:
        planner = None if self._approach.last is None else self._approach.last.plan.info()
        return {**self.core.info(steps, planner, failure), "retries": self.counters.retries}

    def _begin_stage(self) -> Failure | None:
        """Connect to the skill of a stage that was just entered, or take anew what it needs; returns None or why it failed."""
        if self._retries.allowed() and (grasp := self._retries.lost()) is not None:
            return self._retries.begin_again(grasp)  # the grasp has failed, though its end was announced
        failure = self._approach.connect()
        if failure is not None and self.engine.judge.failure() is None and self._retries.allowed():
            if (grasp := self._retries.grasp()) is not None:
                return self._retries.begin_again(grasp)  # taken otherwise it may be within reach
        return failure

    def get_state(self) -> Snapshot:
        """See `ManipulationEnv.get_state`: it holds what wrappers and policies remember too."""
        return self.core.get_state()

    def set_state(self, state: Snapshot) -> None:
        """See `ManipulationEnv.set_state`."""
        self.core.set_state(state)
