"""Measure how wrong a camera estimator is while its policies play, and model its errors for training without pictures.

    python -m reinforcegen_envs.agents.measure --task Threading --weights weights --out runs/measure

Whole tasks are played from cameras. Two files are written: ``accuracy.json`` in the output folder, errors by stage, phase and
object in millimetres and degrees; and ``camera_errors.json`` in the folder of weights, the model that ``--perception
camera_errors`` draws from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.agents.playing import deployed, engine_of, play
from reinforcegen_envs.agents.recording import Accuracy, Tracks
from reinforcegen_envs.arguments import Count, CountOrZero, NotNegative, checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.files import atomic_path, check_output_folder
from reinforcegen_envs.perception.accuracy import Row, summarise
from reinforcegen_envs.perception.camera_errors import Track, fit, save_model
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.policy import act_one
from reinforcegen_envs.statistics import wilson_interval
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.workers import Workers

FIRST_SEED = 700_000  # of episodes that are played; those of `perceive` are below, evaluation begins at 1,000,000


@dataclass
class Args:
    """Measure a task's camera estimator."""

    task: str = "Threading"
    """task name"""
    weights: Path = Path("runs/weights")
    """folder of estimator and policies; the model of errors is written there"""
    out: Path = Path("runs/measure")
    """folder for the accuracy"""
    variant: str = "D2"
    """reset range of the episodes"""
    episodes: Count = 100
    """episodes"""
    first_seed: CountOrZero = FIRST_SEED
    """episode i is reset with first_seed + i"""
    pose_noise: tuple[NotNegative, NotNegative] = (0.003, 0.0175)
    """noise on the initiation poses: metres, radians"""
    workers: CountOrZero = 0
    """processes; 0: one for every core that this process may use"""
    quiet: bool = False
    """no progress bar"""


class Player:
    """Plays episodes in one process, and hears how wrong what is believed is."""

    def __init__(self, args: Args):
        self._env, policy = deployed(args.task, args.variant, args.weights, args.pose_noise, "camera")
        self._act = partial(act_one, policy)
        engine = engine_of(self._env)
        self._accuracy, self._tracks = Accuracy(engine), Tracks(engine)

    def play(self, seed: int) -> tuple[list[Row], list[Track], bool]:
        """Play one episode; returns its errors, twice, and its success."""
        success = play(self._env, self._act, seed)
        return self._accuracy.taken(), self._tracks.taken(), success


def main(args: Args) -> dict[str, Any]:
    """Play, measure and write; returns what was measured.

    Raises:
        InvalidArgument: unknown task or variant; no skill was reached.
        WeightsError: unusable weights, or no estimator.
        RenderingError: no OpenGL on this machine.
        WorkerError: a worker died.
    """
    args = checked(args)
    if args.task not in TASKS:
        raise InvalidArgument(f"unknown task {args.task!r}; choose one of {sorted(TASKS)}")
    task = TASKS[args.task]
    check_output_folder(args.out)
    bundle = Bundle.open(task, args.weights)
    rows: list[Row] = []
    tracks: list[Track] = []
    successes = 0
    seeds = [args.first_seed + i for i in range(args.episodes)]
    with Workers(args.workers, Player, (args,), jobs=len(seeds)) as workers:
        for some, more, success in tqdm(
            workers.map(Player.play, seeds), total=len(seeds), unit="episode", disable=args.quiet
        ):
            rows += some
            tracks += more
            successes += success
    model = fit(tracks, len(task.stages))
    low, high = wilson_interval(successes, len(seeds))
    measured = {
        "task": args.task, "variant": args.variant, "episodes": len(seeds), "first_seed": args.first_seed,
        "pose_noise": list(args.pose_noise), "success": round(successes / len(seeds), 4),
        "interval": [round(low, 4), round(high, 4)], "accuracy": summarise(rows, task),
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    with atomic_path(args.out / "accuracy.json") as temporary:
        temporary.write_text(json.dumps(measured, indent=2) + "\n")
    card = {
        "command": f"reinforcegen measure --task {args.task}", "variant": args.variant, "episodes": len(seeds),
        "first_seed": args.first_seed, "pose_noise": list(args.pose_noise),
    }  # fmt: skip
    save_model(bundle.path("camera_errors"), model, task, card)
    print(f"success {measured['success']:.3f} [{low:.3f}, {high:.3f}] in {len(seeds)} episodes")
    for row in measured["accuracy"]:
        if row["phase"] == "arrived":
            print(
                f"end of the connect to {row['stage']}: {row['object']} {row['mm']} mm, {row['degrees']} degrees "
                f"(95%: {row['mm_p95']}, {row['degrees_p95']})"
            )
    print(f"wrote {bundle.path('camera_errors')}")
    return measured


def command() -> None:
    """The command line."""
    cli.run(main, Args, __doc__, "--task Threading --weights runs/pipeline/weights --out runs/measure")


if __name__ == "__main__":
    command()
