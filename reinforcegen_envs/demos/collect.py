"""Collect source demonstrations with the scripted teleoperator.

python -m reinforcegen_envs.demos.collect --task Threading --count 10 --out source.hdf5
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, CountOrZero, checked
from reinforcegen_envs.demos.hdf5 import Demo, DemoWriter
from reinforcegen_envs.demos.replay import replay
from reinforcegen_envs.demos.segments import skill_bounds
from reinforcegen_envs.demos.teleoperator import Teleoperator
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.errors import ReinforceGenError
from reinforcegen_envs.files import check_output
from reinforcegen_envs.ids import env_id


class CollectionError(ReinforceGenError, RuntimeError):
    """Too few demonstrations succeeded."""


@dataclass
class Args:
    """Collect source demonstrations with the scripted teleoperator, through the ordinary action interface."""

    task: str = "Threading"
    """task name"""
    variant: str = "D0"
    """reset range of the demonstrations"""
    count: Count = 10
    """successful demonstrations to keep"""
    seed: CountOrZero = 0
    """seed of the first attempt; attempt i uses seed + i for the reset and for the operator's style"""
    out: Path = Path("source.hdf5")
    """file to write"""
    max_attempts: Count = 200
    """give up after so many attempts"""
    quiet: bool = False
    """no progress bar"""


def _fits(demo: Demo, env: ManipulationEnv) -> bool:
    """Whether every skill took well under its stage's horizon."""
    bounds = skill_bounds(demo, type(env.task))
    return all(end - begin < 0.85 * stage.horizon for stage, (begin, end) in zip(env.task.stages, bounds, strict=True))


def collect(args: Args) -> int:
    """Collect; returns the number of attempts it took.

    Raises:
        CollectionError: too few successes within ``max_attempts``; no file is written.
    """
    args = checked(args)
    check_output(args.out)
    env = ManipulationEnv(args.task, args.variant)
    env_args = {
        "env_name": env_id(args.task, args.variant),
        "env_version": "0",
        "type": 2,
        "env_kwargs": {"controller": "osc_pose"},
    }
    with DemoWriter(args.out, env_args) as writer, tqdm(total=args.count, unit="demo", disable=args.quiet) as bar:
        for attempt in range(args.max_attempts):
            if len(writer) == args.count:
                break
            seed = args.seed + attempt
            env.reset(seed=seed)
            style = len(writer) % env.task.styles  # every way that there is, in turn
            success, demo = Teleoperator(env, np.random.default_rng(seed)).play(style)
            # What is kept must also replay from what the file holds, and fit the stages' horizons.
            if success and _fits(demo, env) and replay(env, demo):
                demo.attrs["seed"] = seed  # type: ignore[index]
                writer.add(demo)
                bar.update()
            bar.set_postfix(attempts=attempt + 1, success=f"{len(writer) / (attempt + 1):.0%}")
        else:
            attempt = args.max_attempts
        if len(writer) < args.count:
            raise CollectionError(
                f"only {len(writer)} of {args.count} demonstrations succeeded in {args.max_attempts} attempts; "
                "raise --max-attempts or choose another --seed"
            )
    return attempt


def command() -> None:
    """The command line."""
    cli.run(collect, Args, example="--task Threading --count 10 --out source.hdf5")


if __name__ == "__main__":
    command()
