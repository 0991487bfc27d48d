"""A teacher of whole tasks that needs no planner: it steers to where a skill starts, and then acts as the tuned policy does.

It knows the objects' poses and which stages are done. What it says depends on little but the present state, so that it can tell a
student at any time what it would do there; and all that it says is an action of the plain environment.

Constants are ours, found on Threading and Coffee.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

from reinforcegen_envs.engine import Engine
from reinforcegen_envs.env import ask
from reinforcegen_envs.errors import InvalidArgument, is_one_of
from reinforcegen_envs.planning.connect import CLOSE, OPEN
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.poses import distance, matrix_to_rotvec
from reinforcegen_envs.sim.kernel import POSITION_SCALE, ROTATION_SCALE
from reinforcegen_envs.typing import Array
from reinforcegen_envs.wrappers.approach import Approach
from reinforcegen_envs.wrappers.counters import Counters

LINES = ("joint", "straight")
CLEAR = 1.06  # metres, world frame: height at which the hand passes over the table; at 1.02 it may rest against a coffee machine
CONE = (0.03, 2.0)  # metres beside a skill's start from which on the hand is higher than it, and by how much a metre
LOW = (0.03, 0.05)  # metres that the hand may be too low, and over which going on turns into going up
AHEAD = 0.2  # radians of a joint: how far along a line in joint space the hand is sent
# Parts of the action's range, of translation and rotation: the most, and the least while it is farther than that from a skill's
# start. Who slows down ever more comes to rest before it arrives, as soon as it is off by a little.
FASTEST, SLOWEST = (0.8, 0.5), (0.12, 0.12)
ARRIVED = (0.015, 0.15)  # metres and radians from a skill's start at which the skill is begun
BEGUN = (0.03, 0.3)  # the same where who is taught has begun it already
STRAYED = 0.11  # metres farther from a skill's start than the skill itself goes: the skill is given up


class Guide:
    """Says at every control step what to do next.

    Args:
        engine: of a plain environment; its stages go on by themselves.
        bundle: weights of the skills and the skeleton.
        lines: "joint": on the way to a skill the hand follows the line in joint space to the joints that reach its start;
            "straight": the line in space, which ends at a joint's limit now and then.

    Raises:
        InvalidArgument: unknown ``lines``.
        WeightsError: unusable weights.
    """

    def __init__(self, engine: Engine, bundle: Bundle, lines: str = "joint"):
        if not is_one_of(lines, LINES):
            raise InvalidArgument(f"unknown lines {lines!r}; choose one of {LINES}")
        self._engine, self._straight = engine, lines == "straight"
        self._skeleton = bundle.skeleton()
        self._policy = bundle.tuned_or_base()
        self._counters = Counters()
        self._approach = Approach(engine, self._skeleton, bundle.initiation(), self._counters, (0.0, 0.0), False)
        self.begin()

    def begin(self) -> None:
        """A new episode."""
        self._counters.begin()
        self._stage, self._begun = -1, False

    def __call__(self) -> Array:
        """(7,) action in [-1, 1], world frame."""
        engine = self._engine
        if engine.stage != self._stage:
            self._enter()
        start = engine.connector.goal(engine.stage, self._tools[0])
        metres, radians = distance(engine.sim.eef_pose(), start)
        near = BEGUN if self._begun else ARRIVED
        if metres < near[0] and radians < near[1]:
            self._in_skill = True
        elif metres > self._reach + STRAYED:
            self._in_skill = False
        if self._in_skill:
            return ask(self._policy, engine.observe(), engine.layout, "the tuned policy's action")
        return self._steer(start)

    @property
    def phase(self) -> int:
        """What it was about when it last acted: twice the stage, and one more in the skill."""
        return 2 * self._stage + self._in_skill

    @property
    def source(self) -> int:
        """The source demonstration whose start the hand goes to, or came from."""
        return self._counters.source or 0

    def follow(self, phase: int, source: int) -> None:
        """Agree with who is taught where that does no harm, if the stage is under way.

        Args:
            phase: what it is about; where it has begun the skill a little farther off, it has begun.
            source: whose start it goes to, if that one would do too.
        """
        self._begun = phase == 2 * self._engine.stage + 1
        if self._engine.stage == self._stage and source in self._would_do:
            self._choose(source)

    def _enter(self) -> None:
        """Choose a source for a stage that was just entered."""
        self._stage, self._in_skill = self._engine.stage, False
        self._policy.reset()
        ranked, alike = self._approach.ranked_sources(), self._approach.alike()
        self._would_do = ranked if alike is None else [source for source in ranked if alike[source]]
        self._choose(ranked[0] if ranked else self.source)

    def _choose(self, source: int) -> None:
        self._counters.source = source
        self._tools = self._skeleton.tools[source, self._stage]
        self._reach = float(np.linalg.norm(self._tools[1:, :3, 3] - self._tools[0, :3, 3], axis=1).max())

    def _steer(self, start: Array) -> Array:
        """Towards a skill's start (4x4): up if the hand is low and far from it, else over the table and down to it in a cone."""
        engine = self._engine
        hand = engine.sim.eef_pose()
        aside = float(np.linalg.norm((start - hand)[:2, 3]))
        goal = start.copy()
        goal[2, 3] = min(max(CLEAR, start[2, 3]), start[2, 3] + CONE[1] * max(aside - CONE[0], 0.0))
        rising = np.clip((goal[2, 3] - LOW[0] - hand[2, 3]) / LOW[1], 0.0, 1.0)
        ahead = goal if self._straight else self._ahead(goal)
        move = (1.0 - rising) * (ahead - hand)[:3, 3] + rising * np.array([0.0, 0.0, goal[2, 3] - hand[2, 3]])
        turn = (1.0 - rising) * matrix_to_rotvec(ahead[:3, :3] @ hand[:3, :3].T)
        gripper = OPEN if engine.task.stages[engine.stage].held is None else CLOSE
        parts = ((move, ARRIVED[0], POSITION_SCALE), (turn, ARRIVED[1], ROTATION_SCALE))
        out = []
        for (part, near, scale), least, most in zip(parts, SLOWEST, FASTEST, strict=True):
            far = max(float(np.linalg.norm(part)), 1e-9)
            size = min(max(far / scale, least if far > near else 0.0), most)
            out.append(part * size / far)
        return np.concatenate([*out, [gripper]])

    def _ahead(self, goal: Array) -> Array:
        """Where the hand is (4x4) a little on along the line in joint space to a pose; the pose if near, or out of reach."""
        engine = self._engine
        kinematics = engine.connector.checker.kinematics
        kinematics.follow(engine.sim)
        posture = engine.sim.posture.copy()
        solution = kinematics.solve(goal, posture, posture)
        away = solution.joints - engine.sim.joints
        farthest = float(np.abs(away).max())
        if not solution.reached or farthest <= AHEAD:
            return goal
        return kinematics.forward(engine.sim.joints + away * AHEAD / farthest)


class Unaided(gym.Wrapper[Any, Any, Any, Any]):
    """A plain environment for who has pictures alone: which stage it is cannot be seen, and what cannot succeed any more ends.

    Args:
        env: of no mode, whose observations are pictures.
    """

    def __init__(self, env: gym.Env[Any, Any]):
        super().__init__(env)
        core: Any = env.unwrapped
        self._core = core
        self._stage = core.proprio_layout.slices["stage"]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """See the environment."""
        observation, info = super().reset(seed=seed, options=options)
        return self._hidden(observation), info

    def step(self, action: Any):
        """See the environment; terminated as well when the judge sees a failure."""
        observation, reward, terminated, truncated, info = super().step(action)
        failure = None if terminated else self._core.engine.judge.failure()
        if failure is not None:
            terminated, info = True, {**info, "failure": str(failure)}
        return self._hidden(observation), reward, terminated, truncated, info

    def label(self, guide: Guide) -> Array:
        """What a guide would do now, as an action of this environment."""
        return guide()

    def _hidden(self, observation: Any) -> Any:
        observation["proprio"][self._stage] = 0.0
        return observation
