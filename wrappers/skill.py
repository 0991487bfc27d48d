"""One stage's skill as an environment of its own, with planner-driven resets."""

from __future__ import annotations

import hashlib
import inspect
import os
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym

from reinforcegen_envs.engine import Failure
from reinforcegen_envs.env import ManipulationEnv, reset_options
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError, is_count
from reinforcegen_envs.policies.policy import Policy, as_policy
from reinforcegen_envs.policies.predictors import ForesightPredictor
from reinforcegen_envs.tasks.base import Task
from reinforcegen_envs.typing import Array
from reinforcegen_envs.workers import usable_cores
from reinforcegen_envs.wrappers.hybrid import Hybrid
from reinforcegen_envs.wrappers.pool import StartPool
from reinforcegen_envs.wrappers.stored_pool import AUTO, SIZE, stored_pool

MAX_RESETS = 100  # scenes tried for one reset


def _digest(thing: object) -> str:
    """What tells things with other parameters or networks apart, as text.

    Raises:
        InvalidArgument: it cannot be pickled.
    """
    try:
        return hashlib.sha256(pickle.dumps(thing)).hexdigest()
    except Exception as error:  # whatever an attribute that cannot be pickled raises
        raise InvalidArgument(
            f"pool={AUTO!r} is kept under what {thing!r} is made of, which cannot be pickled ({error}); make a file of starts, "
            "or do without a pool (pool=None)"
        ) from error


def _source(task: type[Task]) -> list[Path]:
    """The file that a task is in; none if it was typed in."""
    try:
        return [Path(inspect.getfile(task))]
    except (TypeError, OSError):
        return []


class SkillResetError(ReinforceGenError, RuntimeError):
    """The stages before the skill did not succeed in any of many scenes."""


class Skill(Hybrid):
    """One stage's skill segment: ``reset`` ends where the skill starts, and the episode ends with the skill.

    Without a pool, a reset runs the earlier stages with ``earlier_policy`` and all connects with the planner, in a new
    scene if one of them fails. With a pool, it restores one of the pool's snapshots: a copy of a state; a reset with a seed takes
    the one whose number is the seed modulo their number, a reset without draws one. With an earlier pool, of starts of an
    earlier stage, it plays on from one of those, from another one if that fails.

    With foresight, the reward for success is not 1 but how likely the later stages are to succeed from where the skill has
    ended, as a learned predictor says. What else there is stays as it is, ``info["success"]`` first of all.

    Args:
        env: the plain environment itself.
        stage: name of the stage; None means the first.
        pool: file of snapshots, "auto", or None. "auto" is a pool that is made when it is first asked for, with a progress bar,
            and kept in the user's cache folder (`stored_pool`): of this task, reset range, stage, weights, pose noise,
            initiation, replanning, perception and controller, by the base policy of ``weights``.
        earlier_pool: file of snapshots of an earlier stage, or None.
        earlier_policy: a `Policy`, or a callable: observation -> action (7,) in the world frame, for the stages before;
            None means the base policy of ``weights``, loaded when first needed.
        foresight: True multiplies the reward for success with what the predictor in ``weights`` says; a path names another
            file of such a predictor.
        pool_size: how many starts the pool "auto" has; None means 200.
        hybrid: further arguments of `Hybrid`.

    Raises:
        InvalidArgument: the task has no such stage, pose noise is given with a pool's file, which has its own, both pools are
            given, or the earlier one is of no earlier stage; "auto" is asked for with an earlier policy, or a pool size
            without it.
        PoolError: a pool is unusable.
        CacheError: the pool "auto" is not there yet, and the cache folder cannot be written.
        SkillResetError: the pool "auto" cannot be made: the earlier stages failed in 100 scenes in a row.
        WeightsError: foresight is asked for, and the predictor is missing, damaged, or made for another task.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        stage: str | None = None,
        pool: str | os.PathLike[str] | None = None,
        earlier_policy: Any = None,
        earlier_pool: str | os.PathLike[str] | None = None,
        foresight: bool | str | os.PathLike[str] = False,
        pool_size: int | None = None,
        **hybrid: Any,
    ):
        super().__init__(env, **hybrid)
        task = type(self.engine.task)
        self.stage = 0 if stage is None else task.stage_index(stage)
        self._earlier: Policy | None = None
        if earlier_policy is not None:
            self._play_earlier(as_policy(earlier_policy, "earlier_policy"))
        self._foresight: ForesightPredictor | None = None
        if isinstance(foresight, (str, os.PathLike)):
            self._foresight = ForesightPredictor.load(foresight, task)
        elif foresight is True:
            self._foresight = self.bundle.foresight()
        elif foresight is not False:
            raise InvalidArgument(f"foresight {foresight!r} must be True, False or a file of foresight weights")
        if pool is not None and earlier_pool is not None:
            raise InvalidArgument(
                "pool holds starts of this stage, earlier_pool such that lead to it; give one of them"
            )
        self._pool = self._earlier_pool = None
        if earlier_pool is not None:
            self._earlier_pool = self._load(earlier_pool)
            if task.stage_index(self._earlier_pool.manifest["stage"]) >= self.stage:
                raise InvalidArgument(
                    f"earlier_pool {earlier_pool} is of stage {self._earlier_pool.manifest['stage']!r}, which does not come "
                    f"before {task.stages[self.stage].name!r}"
                )
        auto = isinstance(pool, str) and pool == AUTO
        if pool_size is not None and not auto:
            raise InvalidArgument(
                f"pool_size {pool_size} is of pool={AUTO!r}, and pool is {pool!r}; leave one of them out"
            )
        if auto:
            if earlier_policy is not None:
                raise InvalidArgument(
                    f"pool={AUTO!r} is made by the base policy, and earlier_policy is given; leave one of them out, or make a "
                    "pool with it (reinforcegen pool)"
                )
            pool = self._stored(SIZE if pool_size is None else pool_size, hybrid)
        elif pool is not None:
            if any(self._approach.pose_noise):
                raise InvalidArgument(
                    f"pose_noise {self._approach.pose_noise} has no effect with a pool, whose starts were made with its own; "
                    "leave it out, or fill the pool with it (--pose-noise)"
                )
        if pool is not None:
            self._pool = self._load(pool, stage=task.stages[self.stage].name)

    @property
    def starts(self) -> int | None:
        """How many starts the pool has; None without a pool."""
        return None if self._pool is None else len(self._pool)

    def _stored(self, size: Any, hybrid: dict[str, Any]) -> Path:
        """The file of the pool "auto", of ``size`` starts; ``hybrid`` are the arguments of `Hybrid`."""
        if not is_count(size, 1):
            raise InvalidArgument(f"pool_size {size!r} must be a number of starts, at least 1")
        engine, bundle = self.engine, self.bundle
        task = type(engine.task)
        stage = task.stages[self.stage].name
        student = self.initiation is not None
        settings = {
            "task": task.name, "variant": engine.variant, "stage": stage, "count": size, "pose_noise": self._approach.pose_noise,
            "initiation": "student" if student else "teacher", "replan": self._approach.replan,
            "controller": engine.sim.controller_name,
            "perception": engine.perception.name, "perception_state": _digest(engine.perception),
        }  # fmt: skip
        parts = ["base", "skeleton", *(["initiation"] if student else [])]
        files = [*(bundle.path(part) for part in parts), *_source(task)]
        # How skills end is nothing that a start depends on: the stages before end as soon as the simulator says so.
        same = {name: value for name, value in hybrid.items() if name != "termination"}

        def make() -> Skill:
            env = ManipulationEnv(
                task.name,
                engine.variant,
                perception=engine.perception,  # of which it takes a copy
                controller=engine.sim.controller_name,
            )
            return Skill(env, stage, **same)

        return stored_pool(settings, files, make, usable_cores())

    def _load(self, path: str | os.PathLike[str], **expected: str) -> StartPool:
        """A pool for this task, reset range and perception."""
        engine = self.engine
        expected |= {"task": engine.task.name, "variant": engine.variant, "perception": engine.perception.name}
        return StartPool.load(path, **expected)

    def _play_earlier(self, policy: Policy) -> Policy:
        self._earlier = policy
        self.engine.keep("earlier_policy", policy)
        return policy

    def begin(self, seed: int | None = None, options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Go to the start of the skill; what `reset` does before it presents ``observation``. Returns info.

        Raises:
            SkillResetError: the earlier stages failed in 100 scenes in a row.
            InvalidArgument: options that the plain environment does not have, or any with a pool.
        """
        if self._pool is not None or self._earlier_pool is not None:
            if given := reset_options(options):
                raise InvalidArgument(f"reset options {sorted(given)} have no effect with a pool; use pool=None")
        if self._pool is not None:
            self.core.start_from(self._pool.draw, seed)
            self._approach.last = None
            self.engine.begin_skill()
            self._observe()
            return self._info(0, None)
        for attempt in range(MAX_RESETS):
            if self._start(seed if attempt == 0 else None, options) and self._run_earlier_stages():
                steps, self.counters.steps = self.counters.steps, 0
                self._observe()
                return self._info(steps, None)
        self.counters.over = True  # there is nothing that could be stepped
        raise SkillResetError(
            f"the stages before {self.engine.task.stages[self.stage].name!r} failed in {MAX_RESETS} scenes in a row; "
            "use a better base policy, less pose_noise, or a pool"
        )

    def _start(self, seed: int | None, options: dict[str, Any] | None) -> bool:
        """Go to the start of the first stage, or of the earlier pool's; returns whether its skill can start."""
        if self._earlier_pool is not None:
            self.core.start_from(self._earlier_pool.draw, seed)
            self.counters.steps = 0
            self.engine.begin_skill()
            return True
        self.core.begin(seed, options)
        self.counters.begin()
        return self._approach.connect() is None

    def _run_earlier_stages(self) -> bool:
        """Play every stage before this one; returns whether the skill can start."""
        engine, judge, counters = self.engine, self.engine.judge, self.counters
        while engine.stage < self.stage:
            engine.act(self._earlier_action())
            counters.steps += 1
            counters.skill_steps += 1
            timeout = counters.skill_steps >= engine.task.stages[engine.stage].horizon
            if timeout or judge.failure() is not None:
                return False
            if judge.finished:
                self._approach.enter_stage(engine.stage + 1)
                if self._approach.connect() is not None:
                    return False
        return True

    def _earlier_action(self) -> Array:
        """The earlier policy's action now, (7,) float64, world frame."""
        policy = self._earlier or self._play_earlier(self.bundle.base())
        return self.ask(policy, self.engine.observe(), "the earlier policy's action")

    def _last_stage(self) -> int:
        return self.stage

    def _worth(self) -> float:
        return 1.0 if self._foresight is None else float(self._foresight.act(self.observation[None])[0])

    def _info(self, steps: int, failure: Failure | None) -> dict[str, Any]:
        info = super()._info(steps, failure)
        # The episode is this skill: its success is the stage's.
        info["success"] = info["is_success"] = self.engine.stage == self.stage and self.engine.judge.finished
        return info
