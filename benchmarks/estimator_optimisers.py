"""What teaches an estimator most in the same number of pictures: optimiser and batch size.

    reinforcegen perceive --task Threading --weights FOLDER --out runs/perceive
    python benchmarks/estimator_optimisers.py --folder runs/perceive --optimiser muon --batch-size 64

One row is added to benchmarks/results/estimator_optimisers.csv: negative log likelihood on held-out pictures, and median errors
of the first and the second object's position in the world's frame, millimetres.
"""

from __future__ import annotations

import csv
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from reinforcegen_envs.agents import estimating
from reinforcegen_envs.agents.estimator import estimator_for
from reinforcegen_envs.agents.perceive import HELD_OUT
from reinforcegen_envs.arguments import Count, Positive, checked
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.perception import fusion
from reinforcegen_envs.sim.cameras import SIZE
from reinforcegen_envs.tasks import TASKS

OUT = Path(__file__).parent / "results" / "estimator_optimisers.csv"
RATES = {"muon": 0.02, "adamw": 1e-3}


@dataclass
class Args:
    """Train once, note the result."""

    folder: Path
    """where reinforcegen perceive has left frames"""
    task: str = "Threading"
    """task name"""
    optimiser: str = "muon"
    """"muon" (with AdamW for what are no matrices) or "adamw\""""
    batch_size: Count = 64
    """frames in a batch"""
    frames: Count = 128_000
    """frames to learn from, those that come again included"""
    learning_rate: Positive | None = None
    """default: 0.02 for Muon, 0.001 for AdamW"""
    seed: int = 0
    """of weights and batches"""


def main(args: Args) -> None:
    """Train, measure, add a row."""
    args = checked(args)
    if args.optimiser not in RATES:
        raise InvalidArgument(f"unknown optimiser {args.optimiser!r}; choose one of {sorted(RATES)}")
    task = TASKS[args.task]
    rate = args.learning_rate or RATES[args.optimiser]
    if args.optimiser == "adamw":
        estimating.optimisers_of = lambda model, learning_rate: [
            torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=1e-4)
        ]
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    numbers = range(len(list(args.folder.glob("labels-*.npz"))))
    labels = [dict(np.load(args.folder / f"labels-{i}.npz")) for i in numbers]
    data = estimating.Data(
        [np.load(args.folder / f"frames-{i}.npy", mmap_mode="r") for i in numbers],
        np.concatenate([part["proprio"] for part in labels]),
        np.concatenate([part["labels"] for part in labels]),
    )
    held_out = np.random.default_rng(0).random(len(data)) < HELD_OUT
    model = estimator_for(task, SIZE)
    began = time.process_time()
    steps = args.frames // args.batch_size
    model = estimating.train(
        model, data, np.flatnonzero(~held_out), len(task.objects), steps, args.batch_size, rate, args.seed,
        args.folder / "comparison.pt", False, lambda *_: None,
    )  # fmt: skip
    seconds = time.process_time() - began
    mean, deviation = estimating.predict(model, data, np.flatnonzero(held_out), len(task.objects))
    error = mean - data.labels[held_out]
    positions = error[:, : len(task.objects) * 18].reshape(len(error), -1, 2, 3, 3)[:, :, 0, 0]
    millimetres = np.median(np.linalg.norm(positions, axis=-1), axis=0) * fusion.UNIT * 1e3
    row = {
        "task": args.task, "optimiser": args.optimiser, "learning_rate": rate, "batch_size": args.batch_size,
        "frames": args.frames, "nll": round(float(np.mean(0.5 * (error / deviation) ** 2 + np.log(deviation))), 3),
        "first_mm": round(float(millimetres[0]), 2), "second_mm": round(float(millimetres[1]), 2),
        "cpu_seconds": round(seconds),
    }  # fmt: skip
    fresh = not OUT.is_file()
    with open(OUT, "a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if fresh:
            writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
