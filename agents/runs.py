"""The folder of a training run: logs, checkpoint, exported actor, result."""

from __future__ import annotations

import csv
import dataclasses
import json
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.envs.registration import parse_env_id
from torch import nn

from reinforcegen_envs.agents.common import RunArgs
from reinforcegen_envs.agents.evaluation import Evaluation
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.policies.mlp import MLP, save_mlps

MAY_CHANGE_ON_RESUME = {
    "resume", "overwrite", "total_steps", "log_every", "eval_every", "eval_episodes", "final_episodes",
    "checkpoint_every", "num_threads", "torch_threads", "runs_dir", "run_name", "eval_pool",
}  # fmt: skip


def to_mlp(network: nn.Sequential, mean: torch.Tensor, std: torch.Tensor, activation: str, output: str) -> MLP:
    """The same function as ``network`` behind ``clip((x - mean) / std)``, without torch."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().numpy().copy() for layer in layers]
    biases = [layer.bias.detach().numpy().copy() for layer in layers]
    return MLP(weights, biases, mean.numpy().copy(), std.numpy().copy(), activation=activation, output=output)


def commit() -> str | None:
    """Commit of the source tree that this file belongs to, "-dirty" with local changes; None outside one."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    try:
        subprocess.run([*git, "ls-files", "--error-unmatch", "runs.py"], check=True, capture_output=True)
        describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(describe, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def command_line(args: RunArgs, algorithm: str) -> str:
    """The command that starts this run from its beginning: every argument that is not the default."""
    words = ["python", "-m", f"reinforcegen_envs.agents.{algorithm}"]
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        if value == field.default or field.name in ("resume", "overwrite"):
            continue
        name = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        else:
            words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
    return shlex.join(words)


class Run:
    """One run's folder: progress.csv, TensorBoard events, checkpoint.pt, actor.safetensors, result.json.

    Args:
        args: arguments of the run.
        algorithm: the trainer's module name.
        metrics: names of the columns of progress.csv after ``step`` and ``seconds``.

    Raises:
        FileExistsError: a new run would overwrite an older one.
        FileNotFoundError: there is no checkpoint to resume from.
        ValueError: the checkpoint was made with other arguments.
    """

    def __init__(self, args: RunArgs, algorithm: str, metrics: Sequence[str]):
        from torch.utils.tensorboard import SummaryWriter

        self.args, self.algorithm = args, algorithm
        default_name = "-".join([args.env_id.replace("/", "-").replace(":", "-"), args.stage or "all", algorithm])
        self.folder = Path(args.runs_dir) / (args.run_name or f"{default_name}-seed{args.seed}")
        self.columns = ["step", "seconds", *metrics]
        self.checkpoint: dict[str, Any] | None = None
        path = self.folder / "checkpoint.pt"
        if args.resume:
            if not path.is_file():
                raise FileNotFoundError(f"no checkpoint {path} to resume from; start the run without --resume")
            self.checkpoint = checkpoint = torch.load(path, weights_only=True)
            self._check_same_arguments(checkpoint["args"])
        elif path.exists() and not args.overwrite:
            raise FileExistsError(f"{path} exists; go on with --resume, choose another --run-name, or --overwrite it")
        self.command, self.commit = command_line(args, algorithm), commit()
        saved = self.checkpoint or {"step": 0, "seconds": 0.0}
        step = saved["step"]
        self.start = time.monotonic() - saved["seconds"]
        self._start_csv(step)
        self._mark = (step, time.monotonic())
        if not args.resume:
            for old in self.folder.glob("events.out.tfevents.*"):
                old.unlink()
        self.writer = SummaryWriter(str(self.folder), purge_step=step if args.resume else None)
        self.writer.add_text("command", self.command)

    @property
    def seconds(self) -> float:
        """Wall seconds since the start, earlier parts of a resumed run included, pauses between them not."""
        return time.monotonic() - self.start

    def speed(self, step: int) -> float:
        """Control steps a second since the last call of `log`, for charts/steps_per_second."""
        last_step, last_time = self._mark
        return (step - last_step) / max(time.monotonic() - last_time, 1e-9)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write one row of progress.csv and the same scalars to TensorBoard."""
        with open(self.folder / "progress.csv", "a", newline="") as file:
            row = {"step": step, "seconds": f"{self.seconds:.1f}"}
            csv.DictWriter(file, self.columns).writerow(row | {name: f"{value:.6g}" for name, value in values.items()})
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)
        self._mark = (step, time.monotonic())

    def save_checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """Write checkpoint.pt: ``state`` with the step, the time and the arguments."""
        args = dataclasses.asdict(self.args)
        with atomic_path(self.folder / "checkpoint.pt") as path:
            torch.save({**state, "step": step, "seconds": self.seconds, "args": args}, path)

    def export(self, mlp: MLP, step: int, scale: float, result: Evaluation | None = None) -> None:
        """Write actor.safetensors with its card."""
        namespace, name, version = parse_env_id(self.args.env_id.rpartition(":")[2])
        card = {
            "kind": "residual",
            "task": name.split("-")[1] if namespace == "ReinforceGen" else name,
            "version": version,
            "stage": self.args.stage or "all",
            "env_id": self.args.env_id,
            "residual_scale": scale,
            "observation_size": mlp.input_size,
            "seed": self.args.seed,
            "steps": step,
            "command": self.command,
        }
        if self.commit is not None:
            card["commit"] = self.commit
        if result is not None:
            card["evaluation"] = dataclasses.asdict(result)
        save_mlps(self.folder / "actor.safetensors", {self.args.stage or "all": mlp}, card)

    def finish(self, step: int, base: Evaluation | Mapping[str, Any], result: Evaluation) -> dict[str, Any]:
        """Print and write the result, and close the logs; ``base`` is the untrained agent's evaluation."""
        document = {
            "algorithm": self.algorithm,
            "env_id": self.args.env_id,
            "stage": self.args.stage or "all",
            "seed": self.args.seed,
            "steps": step,
            "seconds": round(self.seconds, 1),
            **dataclasses.asdict(result),
            "base": base if isinstance(base, Mapping) else dataclasses.asdict(base),
            "command": self.command,
            "commit": self.commit,
        }
        with atomic_path(self.folder / "result.json") as path:
            path.write_text(json.dumps(document, indent=2) + "\n")
        low, high = result.interval
        print(
            f"{self.folder}: success {result.success:.3f} [{low:.3f}, {high:.3f}] in {result.episodes} "
            f"episodes, seeds from {result.first_seed}; {step} control steps, {self.seconds:.0f} s"
        )
        self.writer.close()
        return document

    def _check_same_arguments(self, old: Mapping[str, Any]) -> None:
        now = dataclasses.asdict(self.args)
        changed = [name for name in now if name not in MAY_CHANGE_ON_RESUME and now[name] != old.get(name)]
        if changed:
            both = ", ".join(f"{name} {old.get(name)!r} -> {now[name]!r}" for name in changed)
            raise ValueError(f"{self.folder} was started with other arguments ({both}); resume with the same ones")

    def _start_csv(self, step: int) -> None:
        """Write the header; keep the rows of an interrupted run up to the checkpoint that it resumes from."""
        path = self.folder / "progress.csv"
        rows: list[dict[str, str]] = []
        if self.args.resume and path.is_file():
            with open(path, newline="") as file:
                rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)


def random_state(rng: np.random.Generator) -> dict[str, Any]:
    """State of the run's generator and of torch's, for `set_random_state`."""
    return {"numpy": rng.bit_generator.state, "torch": torch.get_rng_state()}


def set_random_state(rng: np.random.Generator, state: Mapping[str, Any]) -> None:
    """Undo whatever was drawn since ``state`` was taken."""
    rng.bit_generator.state = state["numpy"]
    torch.set_rng_state(state["torch"])
