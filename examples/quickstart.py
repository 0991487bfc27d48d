"""See the whole idea in a few minutes on two cores.

    python examples/quickstart.py

1. Makes `ReinforceGen/D2-Threading-Residual-v0` and plays a few episodes: the planner connects, the skills run.
2. Compares the frozen base policy with the shipped fine-tuned residual, as deployed, when skills start 2 cm and 6 degrees off.
3. Trains a residual for the insertion skill with PPO for a few minutes, with live progress, and plots its curve.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro

import reinforcegen_envs

gym.register_envs(reinforcegen_envs)

ENV_ID = "ReinforceGen/D2-Threading-Residual-v0"
NOISE = (0.02, float(np.deg2rad(6)))


@dataclasses.dataclass
class Args:
    """Compare, then train."""

    episodes: int = 40
    """episodes of each policy in the comparison"""
    train_steps: int = 60_000
    """control steps of PPO; 0 skips training"""
    out: Path = Path("runs/quickstart")
    """folder for the curve, the video and the run"""
    seed: int = 1
    """seed of the training run"""


def first_look() -> None:
    """Three episodes of the base policy: a zero action is the base policy."""
    env = gym.make(ENV_ID)
    print(f"{ENV_ID}: observation {env.observation_space.shape}, action {env.action_space.shape}")
    for seed in range(3):
        obs, info = env.reset(seed=seed)
        steps, done, connects = info["sim_steps"], False, [info["planner"]["status"]]
        while not done:
            obs, reward, terminated, truncated, info = env.step(np.zeros(7, np.float32))
            steps += info["sim_steps"]
            if info["planner"]["status"] != "none":  # a skill has ended, and the planner has connected to the next
                connects.append(info["planner"]["status"])
            done = terminated or truncated
        outcome = "success" if info["success"] else info["failure"]
        print(f"  seed {seed}: {steps} control steps, {outcome}; connects: {connects}")
    env.close()


def compare(args: Args) -> None:
    """Success of base and fine-tuned policy under start-pose noise, as deployed."""
    from reinforcegen_envs import evaluate

    for policy in ("base", "shipped"):
        settings = evaluate.Args(policy=policy, episodes=args.episodes, seeds=1, pose_noise=NOISE)
        result = evaluate.evaluate(settings)
        low, high = result["interval"]
        print(f"  {policy:<8} {result['success']:.2f}  [{low:.2f}, {high:.2f}]  {result['failures']}")


def record(args: Args) -> None:
    """Write an MP4 of the fine-tuned policy, connects included, where OpenGL and imageio are there."""
    from reinforcegen_envs import evaluate
    from reinforcegen_envs.sim.rendering import RenderingError

    try:
        evaluate.write_video(evaluate.Args(video=args.out / "episode.mp4", video_every=2))
        print(f"  wrote {args.out / 'episode.mp4'}")
    except (RenderingError, ImportError) as error:
        print(f"  no video: {error}")


def train(args: Args) -> None:
    """PPO on the insertion skill; resets come from a pool of snapshots made here."""
    from reinforcegen_envs.agents import ppo_residual
    from reinforcegen_envs.agents.plotting import plot_curves
    from reinforcegen_envs.wrappers import fill_pool

    pool = args.out / "pool.npz"
    fill_pool.fill(fill_pool.Args(stage="insert", count=160, pose_noise=NOISE, out=pool))
    ppo_residual.main(
        ppo_residual.Args(
            env_id=ENV_ID, stage="insert", pool=pool, total_steps=args.train_steps, eval_every=20_000,
            eval_episodes=60, final_episodes=100, seed=args.seed, runs_dir=args.out, run_name="ppo", overwrite=True,
        )
    )  # fmt: skip
    curve = args.out / "curve.png"
    plot_curves(curve, {"PPO residual, insert": [args.out / "ppo" / "progress.csv"]}, f"{ENV_ID}, stage insert")
    print(f"  wrote {curve}")


def main(args: Args) -> None:
    """All parts, with their wall clock."""
    args.out.mkdir(parents=True, exist_ok=True)
    began = time.time()
    print("1. First look")
    first_look()
    print("2. Base against fine-tuned, skills starting 2 cm and 6 degrees off")
    compare(args)
    record(args)
    if args.train_steps:
        print("3. Training a residual with PPO")
        train(args)
    print(f"done in {(time.time() - began) / 60:.1f} min")


if __name__ == "__main__":
    main(tyro.cli(Args))
