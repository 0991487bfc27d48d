"""Object poses from two cameras instead of the simulator, in three minutes on two cores.

    python examples/cameras.py

1. Plays the shipped policies on `ReinforceGen/D2-Threading-Residual-v0` as deployed, once with true object poses, once with those
   that the two cameras' pictures of 84 x 84 pixels give (needs OpenGL).
2. Prints how far what was believed was from what was true when the hand arrived where a skill starts.
3. Writes an MP4 of one episode: objects in green where they are believed to be, and red ellipsoids of two standard deviations.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import tyro

import reinforcegen_envs  # noqa: F401  (registers the ids)
from reinforcegen_envs import evaluate
from reinforcegen_envs.agents.recording import Accuracy
from reinforcegen_envs.evaluation.command import make
from reinforcegen_envs.evaluation.play import play
from reinforcegen_envs.perception.accuracy import summarise
from reinforcegen_envs.registration import env_id
from reinforcegen_envs.tasks import TASKS


@dataclasses.dataclass
class Args:
    """Compare, measure, film."""

    task: str = "Threading"
    """task name"""
    variant: str = "D2"
    """reset range"""
    episodes: int = 30
    """episodes of each comparison"""
    out: Path = Path("runs/cameras")
    """folder for the video"""


def main(args: Args) -> None:
    """All three parts."""
    args.out.mkdir(parents=True, exist_ok=True)
    name = env_id(args.task, args.variant, "Residual")
    print(f"1. {name}, {args.episodes} episodes")
    for perception in ("truth", "camera"):
        settings = evaluate.Args(env_id=name, policy="shipped", episodes=args.episodes, seeds=1, perception=perception)
        result = evaluate.evaluate(settings)
        low, high = result["interval"]
        print(f"  {perception:<7} {result['success']:.2f}  [{low:.2f}, {high:.2f}]  {result['failures']}")

    print("2. Errors of what is believed when a skill starts")
    settings = evaluate.Args(env_id=name, policy="shipped", perception="camera")
    env, policy = make(settings)
    accuracy = Accuracy(env.unwrapped.engine)  # type: ignore[attr-defined]
    rows = []
    for seed in range(10):
        play(env, policy, settings.first_seed + seed)
        rows += accuracy.taken()
    env.close()
    for line in summarise(rows, TASKS[args.task]):
        if line["phase"] == "arrived":
            print(f"  {line['stage']:<8} {line['object']:<8} median {line['mm']} mm, {line['degrees']} degrees")

    film = args.out / "episode.mp4"
    evaluate.write_video(dataclasses.replace(settings, video=film, video_every=2))
    print(f"3. wrote {film}")


if __name__ == "__main__":
    main(tyro.cli(Args))
