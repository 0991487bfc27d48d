"""One stage's skill as an environment of its own, with planner-driven resets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.wrappers.hybrid import Hybrid
from reinforcegen_envs.wrappers.pool import StartPool

MAX_RESETS = 100  # scenes tried for one reset


class SkillResetError(RuntimeError):
    """The stages before the skill did not succeed in any of many scenes."""


class Skill(Hybrid):
    """One stage's skill segment: ``reset`` ends where the skill starts, and the episode ends with the skill.

    Without a pool, a reset runs the earlier stages with ``earlier_policy`` and all connects with the planner, in a new
    scene if one of them fails. With a pool, it restores one of the pool's snapshots: a copy of a state. Pose noise acts on
    live resets; a pool was made with its own.

    Args:
        env: a plain environment.
        stage: name of the stage; None means the first.
        pool: file of snapshots, or None.
        earlier_policy: observation -> action (7,) in the world frame, for the stages before; None means the base policy
            of ``weights``, loaded when first needed.
        hybrid: further arguments of `Hybrid`.

    Raises:
        ValueError: the task has no such stage.
        PoolError: the pool is unusable.
    """

    def __init__(
        self,
        env: ManipulationEnv,
        stage: str | None = None,
        pool: str | None = None,
        earlier_policy: Callable[[np.ndarray], np.ndarray] | None = None,
        **hybrid: Any,
    ):
        super().__init__(env, **hybrid)
        task = type(self.core.task)
        self.stage = 0 if stage is None else task.stage_index(stage)
        self._weights = hybrid.get("weights")
        self._earlier_policy = earlier_policy
        self._pool = None
        if pool is not None:
            names = {"task": task.name, "variant": self.core.variant, "stage": task.stages[self.stage].name}
            self._pool = StartPool.load(pool, **names)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """Go to the start of the skill.

        Raises:
            SkillResetError: the earlier stages failed in 100 scenes in a row.
            ValueError: options that the plain environment does not have, or any with a pool.
        """
        if self._pool is not None:
            if options:
                raise ValueError(f"reset options {sorted(options)} have no effect with a pool; use pool=None")
            if seed is not None:
                self.env.reset(seed=seed)  # starts the generator anew; the scene is replaced below
            self.set_state(self._pool.draw(self.core.np_random))
            return self.core.observe(), self._info(0, "")
        for attempt in range(MAX_RESETS):
            self.env.reset(seed=seed if attempt == 0 else None, options=options)
            self._begin_episode()
            steps, ready = self._run_earlier_stages()
            if ready:
                self._steps = 0
                return self.core.observe(), self._info(steps, "")
        raise SkillResetError(
            f"the stages before {self.core.task.stages[self.stage].name!r} failed in {MAX_RESETS} scenes in a row; "
            "use a better base policy, less pose_noise, or a pool"
        )

    def _run_earlier_stages(self) -> tuple[int, bool]:
        """Connect, and play every stage before this one; returns control steps and whether the skill can start."""
        core = self.core
        if self._connect_to_skill():
            return 0, False
        steps = self._last_steps()
        while core.stage < self.stage:
            if self._earlier_policy is None:
                self._earlier_policy = Bundle.open(type(core.task), self._weights).base()
            core.control_step(np.asarray(self._earlier_policy(core.observe()), np.float64))
            steps += 1
            self._skill_steps += 1
            timeout = self._skill_steps >= core.task.stages[core.stage].horizon
            if timeout or core.task.failure(core.sim, core.stage):
                return steps, False
            if core.stage_finished:
                core.enter_stage(core.stage + 1)
                if self._connect_to_skill():
                    return steps, False
                steps += self._last_steps()
        return steps, True

    def _last_stage(self) -> int:
        return self.stage

    def _info(self, steps: int, failure: str) -> dict[str, Any]:
        info = super()._info(steps, failure)
        # The episode is this skill: its success is the stage's.
        info["success"] = info["is_success"] = self.core.stage == self.stage and self.core.stage_finished
        return info
