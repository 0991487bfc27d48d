"""The id table: ``ReinforceGen/{variant}-{task}[-{mode}]-v0``.

``Hybrid``, ``Skill`` and ``Residual`` use the weights that are shipped in ``policies/weights/{task, lower case}/``, or those that
``weights=`` names.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.tasks import TASKS

NAMESPACE = "ReinforceGen"
VERSION = 0
MODES = (None, "Hybrid", "Skill", "Residual")
VARIANTS = ("D0", "D1", "D2")

_PLAIN = ("obs_mode", "perception", "controller", "render_mode", "camera", "width", "height")
_HYBRID = ("termination", "initiation", "pose_noise", "replan", "weights")
ARGUMENTS = {
    None: _PLAIN,
    "Hybrid": _PLAIN + _HYBRID,
    "Skill": (*_PLAIN, *_HYBRID, "stage", "pool", "earlier_policy"),
    "Residual": (*_PLAIN, *_HYBRID, "stage", "pool", "earlier_policy", "residual_scale", "base_policy"),
}


def env_id(task: str, variant: str, mode: str | None = None) -> str:
    """The id of a task, variant and mode."""
    return f"{NAMESPACE}/{variant}-{task}{f'-{mode}' if mode else ''}-v{VERSION}"


def make_env(task: str, variant: str, mode: str | None = None, **kwargs: Any) -> gym.Env:
    """Build an environment; the entry point of every id, and the way to a mode without one (see the module).

    Args:
        task, variant, mode: which id.
        kwargs: arguments of `ManipulationEnv`, `Hybrid`, `Skill` and `Residual`, as far as the mode has them
            (``residual_scale`` is Residual's ``scale``).

    Raises:
        ValueError: unknown mode, an argument the mode does not have, or a value that is not allowed.
    """
    if mode not in MODES:
        raise ValueError(f"unknown mode {mode!r}; choose one of {MODES}")
    if unknown := set(kwargs) - set(ARGUMENTS[mode]):
        name = env_id(task, variant, mode)
        raise ValueError(f"{name} has no argument {sorted(unknown)}; it takes {sorted(ARGUMENTS[mode])}")
    env: gym.Env = ManipulationEnv(task, variant, **{k: v for k, v in kwargs.items() if k in _PLAIN})
    if mode is None:
        return env
    from reinforcegen_envs.wrappers import Hybrid, Residual, Skill

    hybrid = {k: v for k, v in kwargs.items() if k in _HYBRID}
    whole = mode == "Hybrid" or (mode == "Residual" and kwargs.get("stage") is None)
    if whole:
        if staged := {"pool", "earlier_policy"} & {k for k, v in kwargs.items() if v is not None}:
            raise ValueError(f"{sorted(staged)} belong to one stage's skill; name it with stage=")
        env = Hybrid(env, **hybrid)  # type: ignore[arg-type]
    else:
        staged_kwargs = {k: kwargs[k] for k in ("stage", "pool", "earlier_policy") if k in kwargs}
        env = Skill(env, **staged_kwargs, **hybrid)  # type: ignore[arg-type]
    if mode == "Residual":
        residual = {"scale": kwargs["residual_scale"]} if "residual_scale" in kwargs else {}
        env = Residual(env, base_policy=kwargs.get("base_policy"), **residual)  # type: ignore[arg-type]
    return env


def register_envs() -> None:
    """Register every id with Gymnasium; importing `reinforcegen_envs` does it."""
    for name, task in TASKS.items():
        for variant in VARIANTS:
            for mode in MODES:
                if env_id(name, variant, mode) in gym.registry:
                    continue
                gym.register(
                    env_id(name, variant, mode),
                    entry_point="reinforcegen_envs.registration:make_env",
                    kwargs={"task": name, "variant": variant, "mode": mode},
                    # The other modes count control steps, hidden ones included, themselves.
                    max_episode_steps=task.horizon if mode is None else None,
                )
