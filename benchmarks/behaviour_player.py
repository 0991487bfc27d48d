"""What `same_behaviour.py` runs in each of the two checkouts that it compares.

Jobs come as JSON lines on standard input, and what happened goes back as JSON lines: exact, arrays as the bytes they are.
This file runs against any version of the project, so it uses only what all have: the registered ids, ``gym.make``, ``reset``,
``step``, the action space, the entries of info, and ``unwrapped.task.stages``.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

import reinforcegen_envs.agents
import reinforcegen_envs.wrappers  # noqa: F401

INFO = ("success", "reference_success", "stage", "stage_name", "predicates", "sim_steps", "failure")
PLANNER = ("status", "collision_checks")  # its milliseconds differ from run to run
HELD = 4  # control steps for which a random action stays, so that the arm gets somewhere


def make(job: dict[str, Any]) -> gym.Env:
    """The environment of a job."""
    env = gym.make(job["id"], disable_env_checker=True, **job["kwargs"])
    if not job["last_stage"]:
        return env
    stage = env.unwrapped.task.stages[-1].name  # type: ignore[attr-defined]
    env.close()
    return gym.make(job["id"], disable_env_checker=True, stage=stage, **job["kwargs"])


def plain(value: Any) -> Any:
    """``value`` as JSON has it, without loss: arrays by their bytes, numpy's scalars as Python's."""
    if isinstance(value, np.ndarray):
        return {"dtype": value.dtype.str, "shape": list(value.shape), "bytes": np.ascontiguousarray(value).data.hex()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {str(name): plain(entry) for name, entry in value.items()}
    return value


def record(at: str, obs: np.ndarray, info: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What is compared of one call."""
    entries = {name: info[name] for name in INFO}
    planner = {f"planner {name}": info["planner"][name] for name in PLANNER}
    return {"at": at} | {
        name: plain(value) for name, value in {"observation": obs, **more, **entries, **planner}.items()
    }


def trajectory(job: dict[str, Any]) -> list[dict[str, Any]]:
    """One record a call: a seeded reset, ``steps`` random actions, and a reset without a seed after every end."""
    env = make(job)
    space = env.action_space
    assert isinstance(space, gym.spaces.Box)
    rng = np.random.default_rng(job["seed"])
    obs, info = env.reset(seed=job["seed"])
    records = [record("reset 0", obs, info)]
    action = np.zeros(space.shape)
    resets = 0
    for step in range(job["steps"]):
        if step % HELD == 0:
            action = job["action_size"] * rng.uniform(space.low, space.high)
        obs, reward, terminated, truncated, info = env.step(action.astype(space.dtype))
        ends = {"reward": float(reward), "terminated": bool(terminated), "truncated": bool(truncated)}
        records.append(record(f"step {step}", obs, info, **ends))
        if terminated or truncated:
            resets += 1
            obs, info = env.reset()
            records.append(record(f"reset {resets}", obs, info))
    env.close()
    return records


def outcomes(job: dict[str, Any]) -> list[dict[str, Any]]:
    """One record an episode of zero actions: a Residual id's base policy alone."""
    env = make(job)
    assert env.action_space.shape is not None
    action = np.zeros(env.action_space.shape, env.action_space.dtype)
    records = []
    for seed in range(job["seed"], job["seed"] + job["episodes"]):
        obs, info = env.reset(seed=seed)
        observations = hashlib.sha256(obs.tobytes())
        length, control_steps, paid = 0, int(info["sim_steps"]), 0.0
        failure, reference, done = str(info["failure"]), False, False
        while not done:
            obs, reward, terminated, truncated, info = env.step(action)
            observations.update(obs.tobytes())
            length += 1
            control_steps += int(info["sim_steps"])
            paid += float(reward)
            failure = failure or str(info["failure"])
            reference |= bool(info["reference_success"])
            done = terminated or truncated
        records.append(
            {
                "at": f"seed {seed}",
                "success": bool(info["success"]),
                "reference_success": reference,
                "length": length,
                "control_steps": control_steps,
                "failure": failure,
                "return": paid,
                "observations": observations.hexdigest(),
            }
        )
    env.close()
    return records


def ids(job: dict[str, Any]) -> list[str]:
    """The registered ids of the project."""
    return sorted(name for name in gym.registry if name.startswith("ReinforceGen/"))


def strangers(root: Path) -> list[str]:
    """Modules of the project that were loaded from elsewhere than ``root``."""
    files = {n: getattr(m, "__file__", None) for n, m in list(sys.modules.items()) if n.startswith("reinforcegen_envs")}
    return [f"{name} ({file})" for name, file in files.items() if file and root not in Path(file).resolve().parents]


def main(root: Path) -> None:
    """Answer jobs until standard input ends, which it does when the process that asks is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who asks decides
    os.nice(10)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is no reply
    kinds = {"ids": ids, "trajectory": trajectory, "outcomes": outcomes}
    for line in sys.stdin:
        job = json.loads(line)
        try:
            reply = {"found": kinds[job["kind"]](job)}
            if elsewhere := strangers(root):
                raise ImportError(f"loaded from outside {root}: {', '.join(elsewhere)}")
        except Exception:
            reply = {"error": traceback.format_exc()}
        try:
            replies.write(json.dumps(reply) + "\n")
            replies.flush()
        except BrokenPipeError:  # nobody listens any more
            os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
