"""Playing a recorded demonstration back through the environment."""

from __future__ import annotations

import numpy as np

from reinforcegen_envs.demos.hdf5 import Demo, DemoFileError
from reinforcegen_envs.env import ManipulationEnv


def restore_first_state(env: ManipulationEnv, demo: Demo) -> None:
    """Put the environment where the demonstration began: time, qpos, qvel of its first stored state.

    Raises:
        DemoFileError: the demonstration has no states, or states of another scene.
    """
    size = 1 + env.model.nq + env.model.nv
    if demo.states is None or demo.states.shape[1] != size:
        found = None if demo.states is None else demo.states.shape[1]
        raise DemoFileError(
            f"{demo.name}: states of {found} numbers; replaying in {env.task.name} needs {size} "
            "(time, qpos, qvel): use a demonstration recorded in this scene"
        )
    env.reset(seed=0)
    state = demo.states[0]
    env.data.time = state[0]
    env.data.qpos[:] = state[1 : 1 + env.model.nq]
    env.data.qvel[:] = state[1 + env.model.nq :]
    env.sim.posture[:] = env.sim.joints
    env.refresh()


def replay(env: ManipulationEnv, demo: Demo) -> bool:
    """Play a demonstration's actions through ``env.step``; returns strict success at any step."""
    restore_first_state(env, demo)
    for action in demo.actions:
        if env.step(action.astype(np.float32))[2]:
            return True
    return False
