"""What the experiments that train share: pools of starts, and runs of the trainers, which go on where they were stopped."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cells import fingerprint, weights_of
from tqdm import tqdm

from reinforcegen_envs.agents.runs import RunError
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.workers import usable_cores
from reinforcegen_envs.wrappers import fill_pool

NOISE = (0.01, 0.0523599)  # 1 cm and 3 degrees per axis
HELD_OUT_SEED = 500_000


@dataclass(frozen=True)
class Training:
    """One run of a trainer.

    Args:
        algorithm: module of `reinforcegen_envs.agents`.
        arguments: of its command.
        folder: of the run.
    """

    algorithm: str
    arguments: Sequence[str]
    folder: Path

    @property
    def result(self) -> dict[str, Any] | None:
        """What the run came to; None while it is not done."""
        path = self.folder / "result.json"
        return json.loads(path.read_text()) if path.is_file() else None

    @property
    def command(self) -> list[str]:
        """The command's words after ``python``."""
        where = ["--runs-dir", str(self.folder.parent), "--run-name", self.folder.name]
        resume = ["--resume"] if (self.folder / "checkpoint.pt").is_file() else []
        return ["-m", f"reinforcegen_envs.agents.{self.algorithm}", *self.arguments, *where, *resume]

    def run(self) -> dict[str, Any]:
        """Train, unless that is done; returns the result.

        Raises:
            RunError: the trainer failed.
        """
        if self.result is None:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            log = self.folder.with_suffix(".log")
            tqdm.write(shlex.join(["python", *self.command]))
            with open(log, "w") as file:
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                command = [sys.executable, *self.command]
                status = subprocess.run(command, env=environment, stdout=file, stderr=file).returncode
            if status or self.result is None:
                raise RunError(f"{self.folder} failed; {log} ends with:\n{log.read_text()[-1500:]}")
        assert self.result is not None
        return self.result


def run_all(trainings: Sequence[Training], workers: int) -> None:
    """Run trainings side by side; 0 workers means one a core.

    Raises:
        RunError: one failed; the others that had begun are finished.
    """
    todo = [training for training in trainings if training.result is None]
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        list(tqdm(pool.map(Training.run, todo), total=len(todo), unit="run", disable=None))


def pools(
    out: Path, task: str, variant: str, stage: str, weights: str | None, counts: tuple[int, int], workers: int
) -> tuple[Path, Path]:
    """Training and held-out starts of a stage's skill, made if they are not there; their names tell the weights.

    Args:
        out: folder of the files.
        task, variant, stage: whose.
        weights: pattern of `weights_of`. The stages before are played by the tuned policy where there is one.
        counts: of training and of held-out starts.
        workers: processes; 0 means one a core.
    """
    folder = weights_of(weights, task)
    tuned = bool(Bundle.open(TASKS[task], folder).residual_files()) and TASKS[task].stage_index(stage) > 0
    policy = "tuned" if tuned else "base"
    name = f"pool-{variant.lower()}-{stage}-{fingerprint(task, policy, weights)}"
    paths = out / f"{name}-{counts[0]}-train.npz", out / f"{name}-{counts[1]}-held-out.npz"
    out.mkdir(parents=True, exist_ok=True)
    for path, count, seed in zip(paths, counts, (0, HELD_OUT_SEED), strict=True):
        if not path.is_file():
            fill_pool.fill(
                fill_pool.Args(
                    task=task, variant=(variant,), stage=stage, count=count, pose_noise=NOISE, seed=seed, weights=folder,
                    initiation="student", earlier_policy=policy, out=path, workers=workers,
                )
            )  # fmt: skip
    return paths
