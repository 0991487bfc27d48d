"""How much a residual must explore: PPO on a cheap model of an insertion, by the std that it starts with.

    python benchmarks/exploration.py --out runs/exploration --results benchmarks/results

The base policy leads a peg beside a hole, by an offset that depends on where the episode starts; where it misses, the peg jams,
and the episode ends with its time-out. The residual, a tenth of the action range, can put that right, but only before the jam.
As in the real stages, the base succeeds in about 0.7 to 0.9 of the episodes. Runs that are complete are kept.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import tyro

from reinforcegen_envs.agents import ppo_residual
from reinforcegen_envs.agents.plotting import plot_curves
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.statistics import wilson_interval

ID = "benchmarks/Jam-v0"
STEP = 0.015  # metres that an action of 1 moves the peg
HOLE, MOUTH = 0.005, 0.004  # metres: radius inside, and at the mouth


class Jam(gym.Env[Any, Any]):
    """A peg, 7-D actions of which three move it, and a base policy whose aim is off; reward 1 and the end when it is in."""

    residual_scale = 0.1

    def __init__(self):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (36,), np.float32)
        self.action_space = gym.spaces.Box(-1, 1, (7,), np.float32)
        rng = np.random.default_rng(0)
        self._features, self._aim = rng.normal(size=(8, 6)), rng.normal(size=(2, 8))
        self._distraction = rng.normal(size=(20, 6)) / 2

    def _observe(self) -> np.ndarray:
        base = np.zeros(7)
        base[:2] = 18.0 * (self._offset - self._peg[:2])
        base[2] = -0.25 if self._peg[2] > 0.02 else -0.15
        self._base = np.clip(base, -1, 1)
        parts = [20 * self._peg, self._start, self._distraction @ self._start, self._base]
        return np.concatenate(parts, dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._start = self.np_random.normal(size=6)
        self._offset = 0.0013 * self._aim @ np.tanh(self._features @ self._start)
        self._peg = np.array([*(0.02 * self._start[:2]), 0.05 + 0.01 * abs(self._start[2])])
        self._inside = 0
        return self._observe(), {"success": False}

    def step(self, action: np.ndarray):
        move = STEP * np.clip(self._base + self.residual_scale * np.asarray(action), -1, 1)[:3]
        after = self._peg + move + self.np_random.normal(0, 0.0002, 3)
        if after[2] < 0 and (np.hypot(*self._peg[:2]) > MOUTH or np.hypot(*after[:2]) > HOLE):
            after[:2] = self._peg[:2]  # against the wall, or jammed on the surface
            if self._peg[2] >= -0.001:
                after[2] = 0.0
        self._peg = after
        self._inside = self._inside + 1 if after[2] < -0.02 else 0
        success = self._inside > 5
        return self._observe(), float(success), success, False, {"success": success}


gym.register(ID, lambda **_: Jam(), max_episode_steps=100)


@dataclass
class Args:
    """PPO by initial std."""

    log_stds: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5)
    """logarithms of the stds"""
    seeds: int = 2
    """runs a std"""
    steps: int = 60_000
    """control steps a run"""
    out: Path = Path("runs/exploration")
    """folder of runs"""
    results: Path = Path("benchmarks/results")
    """folder of the PNG and CSV"""


def run(args: Args, log_std: float, seed: int) -> Path:
    """Train once, unless that is done; the run's folder."""
    folder = args.out / f"{log_std:g}-{seed}"
    if not (folder / "result.json").is_file():
        ppo_residual.main(
            ppo_residual.Args(
                env_id=ID, seed=seed, initial_log_std=log_std, total_steps=args.steps, eval_every=20_000, num_threads=1,
                runs_dir=args.out, run_name=folder.name, overwrite=True, quiet=True,
            )
        )  # fmt: skip
    return folder


def main(args: Args) -> None:
    """Train, and write table and curves."""
    groups = {s: [run(args, s, seed) for seed in range(1, args.seeds + 1)] for s in args.log_stds}
    curves = {f"std {np.exp(s):.2g}": [folder / "progress.csv" for folder in folders] for s, folders in groups.items()}
    plot_curves(args.results / "exploration.png", curves, "Residual PPO on a jamming peg, by initial std")
    with atomic_path(args.results / "exploration.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["std", "base", "success", "success_low", "success_high", "episodes", "each_seed"])
        for log_std, folders in groups.items():
            results = [json.loads((folder / "result.json").read_text()) for folder in folders]
            won, episodes = sum(r["successes"] for r in results), sum(r["episodes"] for r in results)
            low, high = wilson_interval(won, episodes)
            seeds = " ".join(f"{r['success']:.3f}" for r in results)
            base = results[0]["base"]["success"]
            writer.writerow(
                [f"{np.exp(log_std):.2f}", base, f"{won / episodes:.3f}", f"{low:.3f}", f"{high:.3f}", episodes, seeds]
            )


if __name__ == "__main__":
    main(tyro.cli(Args))
