"""The folder of a training run: logs, checkpoint, exported actor, result."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shlex
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from reinforcegen_envs.agents.arguments import RunArgs, saved_arguments
from reinforcegen_envs.agents.common import env_spec, residual_scale
from reinforcegen_envs.agents.evaluation import METRICS, evaluate
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.policies.bundle import TRUTH, Bundle
from reinforcegen_envs.policies.mlp import MLP, save_mlps
from reinforcegen_envs.provenance import commit
from reinforcegen_envs.registration import NAMESPACE
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

MAY_CHANGE_ON_RESUME = {
    "resume", "overwrite", "total_steps", "log_every", "eval_every", "eval_episodes", "final_episodes",
    "checkpoint_every", "num_threads", "torch_threads", "runs_dir", "run_name", "eval_pool", "quiet",
}  # fmt: skip


CHARTS = ("charts/success", "charts/episodes", "charts/steps_per_second")  # what `Run.report` adds
RECENT = 100  # episodes that charts/success is the mean of


class RunError(ReinforceGenError, RuntimeError):
    """A run cannot begin in its folder, or cannot go on from what is there."""


class Stateful(Protocol):
    """What checkpoints can hold: a network, an optimiser, a buffer."""

    def state_dict(self) -> Mapping[str, Any]:
        """The state, as tensors and plain Python values."""
        ...

    def load_state_dict(self, state: Any, /) -> Any:
        """Return to a state of `state_dict`."""
        ...


class OwnFile(Protocol):
    """A policy that is not an `MLP` and knows how to write itself."""

    def __call__(self, observation: Any, /) -> np.ndarray:
        """One observation to one action."""
        ...

    def save(self, path: Path, card: Mapping[str, Any]) -> None:
        """Write safetensors with the card, completed."""
        ...


Policy: TypeAlias = MLP | OwnFile


def to_mlp(
    network: nn.Sequential, mean: torch.Tensor, std: torch.Tensor, activation: str, output: str, clip: float
) -> MLP:
    """The same function as ``network`` behind ``clip((x - mean) / std)``, without torch."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear)]
    weights = [layer.weight.detach().numpy().copy() for layer in layers]
    biases = [layer.bias.detach().numpy().copy() for layer in layers]
    return MLP(weights, biases, mean.numpy().copy(), std.numpy().copy(), clip, activation, output)


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


@dataclasses.dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    """control steps, all environments together"""
    updates: int = 0
    """calls of the trainer's ``update``"""
    episodes: int = 0
    """training episodes that ended"""
    recent: list[bool] = dataclasses.field(default_factory=list)
    """whether each of the newest ones succeeded"""
    base: dict[str, Any] | None = None
    """evaluation of the untrained agent"""

    def advance(self, steps: int, successes: Iterable[bool]) -> None:
        """Count control steps, and the episodes that ended in them."""
        successes = list(successes)
        self.step += steps
        self.episodes += len(successes)
        self.recent = [*self.recent, *successes][-RECENT:]


class Run:
    """One run's folder: progress.csv, TensorBoard events, checkpoint.pt, actor.safetensors, result.json.

    Args:
        args: arguments of the run.
        algorithm: the trainer's module name.
        metrics: names of the columns of progress.csv that are the trainer's own.
        envs: the training environments.
        kind: what the trained actor is, for its card.

    Raises:
        RunError: a new run would overwrite an older one, or there is no checkpoint that it can resume from.
        InvalidArgument: the checkpoint was made with other arguments.
    """

    def __init__(
        self, args: RunArgs, algorithm: str, metrics: Sequence[str], envs: ThreadVectorEnv, kind: str = "residual"
    ):
        self.args, self.algorithm, self.stage, self.kind = args, algorithm, args.stage or "all", kind
        self.spec, self.scale = env_spec(envs), residual_scale(args, envs)
        default_name = "-".join([args.env_id.replace("/", "-").replace(":", "-"), self.stage, algorithm])
        self.folder = args.runs_dir / (args.run_name or f"{default_name}-seed{args.seed}")
        self.columns = ["step", "seconds", *CHARTS, *metrics, *METRICS]
        self.command, self.commit = command_line(args, algorithm), commit()
        if self._belongs_to_weights() and not os.access(str(args.weights), os.W_OK):
            raise RunError(f"{args.weights} cannot be written, and the residual is to be put there; copy the folder")
        self.progress = Progress()
        self._previous_step = 0  # before the last `advance`
        self._checkpoint = self.folder / "checkpoint.pt"
        self._saved: dict[str, Any] | None = None
        if args.resume:
            self._saved = self._load()
        elif self._checkpoint.exists() and not args.overwrite:
            raise RunError(
                f"{self._checkpoint} exists; go on with --resume, choose another --run-name, or --overwrite it"
            )

    def begin(self, rng: np.random.Generator, **parts: Stateful) -> None:
        """Say what checkpoints hold, return to the last one if the run resumes, and open the logs.

        Args:
            rng: the trainer's generator; torch's goes with it.
            parts: name -> whatever else has a state.

        Raises:
            RunError: the checkpoint does not hold all that; nothing was written.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._rng, self._parts = rng, parts
        seconds = self._restore()
        self._start = time.monotonic() - seconds
        self._mark = (self.progress.step, time.monotonic())
        if not self.args.resume:
            for pattern in ("checkpoint.pt", "result.json", "actor.*", "events.out.tfevents.*"):
                for old in self.folder.glob(pattern):
                    old.unlink()
        self._start_csv()
        self._writer = SummaryWriter(str(self.folder), purge_step=self.progress.step if self.args.resume else None)
        self._writer.add_text("command", self.command)

    @property
    def seconds(self) -> float:
        """Wall seconds since the start, earlier parts of a resumed run included, pauses between them not."""
        return time.monotonic() - self._start

    @property
    def unfinished(self) -> bool:
        """Whether control steps are left to do."""
        return self.progress.step < self.args.total_steps

    def bar(self) -> tqdm:
        """A progress bar over the control steps."""
        total, step = self.args.total_steps, self.progress.step
        return tqdm(total=total, initial=step, unit="step", smoothing=0.05, disable=self.args.quiet)

    def evaluate_base(self, policy: Policy) -> None:
        """Evaluate the untrained agent, unless the run resumes and knows the result."""
        if self.progress.base is None:
            result = evaluate(self.args, policy, self.args.final_episodes)
            self.progress.base = dataclasses.asdict(result)
            self.log(result.metrics())

    def advance(self, steps: int, successes: Iterable[bool]) -> None:
        """Count control steps, and the episodes that ended in them."""
        self._previous_step = self.progress.step
        self.progress.advance(steps, successes)

    def due(self, every: int) -> bool:
        """Whether the last `advance` reached or passed a multiple of ``every`` control steps; never for 0."""
        return every > 0 and self.progress.step // every > self._previous_step // every

    def report(self, policy: Policy, values: Mapping[str, float]) -> dict[str, float]:
        """Log what the trainer measured with the counters, and an evaluation if one is due; return all of it."""
        progress, (marked_step, marked_time) = self.progress, self._mark
        speed = (progress.step - marked_step) / max(time.monotonic() - marked_time, 1e-9)
        values = {**values, "charts/episodes": progress.episodes, "charts/steps_per_second": speed}
        if progress.recent:
            values["charts/success"] = float(np.mean(progress.recent))
        if self.due(self.args.eval_every) and self.unfinished:
            values |= evaluate(self.args, policy, self.args.eval_episodes).metrics()
        self.log(values)
        return values

    def log(self, values: Mapping[str, float]) -> None:
        """Write one row of progress.csv and the same scalars to TensorBoard."""
        step = self.progress.step
        with open(self.folder / "progress.csv", "a", newline="") as file:
            row = {"step": step, "seconds": f"{self.seconds:.1f}"}
            csv.DictWriter(file, self.columns).writerow(row | {name: f"{value:.6g}" for name, value in values.items()})
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._mark = (step, time.monotonic())

    def checkpoint(self) -> None:
        """Write checkpoint.pt: progress, time and arguments, all parts and generators."""
        saved = {
            "algorithm": self.algorithm,
            "args": saved_arguments(self.args),
            "seconds": self.seconds,
            "progress": dataclasses.asdict(self.progress),
            "random": {"numpy": self._rng.bit_generator.state, "torch": torch.get_rng_state()},
            "parts": {name: part.state_dict() for name, part in self._parts.items()},
        }
        with atomic_path(self._checkpoint) as path:
            torch.save(saved, path)

    def export(self, policy: Policy) -> None:
        """Write actor.safetensors with its card."""
        self._write(policy, self._card(policy))

    def finish(self, policy: Policy) -> dict[str, Any]:
        """Evaluate the trained agent, write and print the result, and close the logs; return what result.json holds."""
        self.checkpoint()
        result = evaluate(self.args, policy, self.args.final_episodes)
        card = {**self._card(policy), "evaluation": dataclasses.asdict(result)}
        self._write(policy, card)
        self.log(result.metrics())
        document = {
            "algorithm": self.algorithm,
            "env_id": self.args.env_id,
            "stage": self.stage,
            "seed": self.args.seed,
            "steps": self.progress.step,
            "seconds": round(self.seconds, 1),
            **dataclasses.asdict(result),
            "base": self.progress.base,
            "command": self.command,
            "commit": self.commit,
        }
        with atomic_path(self.folder / "result.json") as path:
            path.write_text(json.dumps(document, indent=2) + "\n")
        low, high = result.interval
        trained_on = ", the starts that it was trained on" if self.args.pool and not self.args.eval_pool else ""
        print(
            f"{self.folder}: success {result.success:.3f} [{low:.3f}, {high:.3f}] in {result.episodes} "
            f"episodes{trained_on}, seeds from {result.first_seed}; {self.progress.step} control steps, {self.seconds:.0f} s"
        )
        if self.args.weights is not None and self._belongs_to_weights() and isinstance(policy, MLP):
            bundle = Bundle.open(TASKS[self.spec.kwargs["task"]], self.args.weights, self.args.perception or TRUTH)
            print(f"wrote {bundle.save_residual(self.args.stage, policy, card)}")
        self._writer.close()
        return document

    def _belongs_to_weights(self) -> bool:
        """Whether the trained actor is a residual on the base policy of the folder ``--weights``, and can be deployed with it."""
        own = self.spec.namespace == NAMESPACE and self.spec.kwargs["mode"] == "Residual"
        return own and not self.args.view() and self.args.weights is not None and self.args.base_policy is None

    def _card(self, policy: Policy) -> dict[str, Any]:
        """What goes with exported weights; a foreign id's own name takes the place of the task."""
        card = {
            "kind": self.kind,
            "task": self.spec.kwargs["task"] if self.spec.namespace == NAMESPACE else self.spec.name,
            "stage": self.stage,
            "env_id": self.args.env_id,
            "residual_scale": self.scale,
            "seed": self.args.seed,
            "steps": self.progress.step,
            "command": self.command,
        }
        if isinstance(policy, MLP):
            card["observation_size"] = policy.input_size
        return card if self.commit is None else {**card, "commit": self.commit}

    def _write(self, policy: Policy, card: Mapping[str, Any]) -> None:
        """Write actor.safetensors."""
        path = self.folder / "actor.safetensors"
        if isinstance(policy, MLP):
            save_mlps(path, {self.stage: policy}, card)
        else:
            policy.save(path, card)

    def _load(self) -> dict[str, Any]:
        """Read the checkpoint and compare what it says about its run with this one."""
        path = self._checkpoint
        if not path.is_file():
            raise RunError(f"no checkpoint {path} to resume from; start the run without --resume")
        with self._blaming_the_checkpoint():
            with zipfile.ZipFile(path) as archive:  # torch does not compare the checksums that it writes
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
            saved = torch.load(path, weights_only=True)
            algorithm, old = saved["algorithm"], dict(saved["args"])
        if algorithm != self.algorithm:
            raise RunError(f"{path} is of {algorithm}, not of {self.algorithm}; choose another --run-name")
        now = saved_arguments(self.args)
        old = saved_arguments(type(self.args)()) | old  # arguments that the run's version did not have yet
        changed = [name for name in now if name not in MAY_CHANGE_ON_RESUME and now[name] != old.get(name)]
        if changed:
            both = ", ".join(f"{name} {old.get(name)!r} -> {now[name]!r}" for name in changed)
            raise InvalidArgument(f"{self.folder} was started with other arguments ({both}); resume with the same ones")
        return saved

    def _restore(self) -> float:
        """Return to the checkpoint, if there is one; the wall seconds that the run had taken then."""
        saved, self._saved = self._saved, None  # buffers are large
        if saved is None:
            return 0.0
        with self._blaming_the_checkpoint():
            for name, part in self._parts.items():
                part.load_state_dict(saved["parts"][name])
            self._rng.bit_generator.state = saved["random"]["numpy"]
            torch.set_rng_state(saved["random"]["torch"])
            self.progress = Progress(
                **{field.name: saved["progress"][field.name] for field in dataclasses.fields(Progress)}
            )
            return float(saved["seconds"])

    @contextmanager
    def _blaming_the_checkpoint(self) -> Iterator[None]:
        """A damaged file raises a dozen different errors, from zip, pickle and every part; they become one."""
        try:
            yield
        except Exception as error:
            raise RunError(
                f"{self._checkpoint} is not a complete checkpoint of this version ({type(error).__name__}); "
                "start anew with --overwrite, or choose another --run-name"
            ) from error

    def _start_csv(self) -> None:
        """Write the header; keep the rows of an interrupted run up to the checkpoint that it resumes from."""
        path = self.folder / "progress.csv"
        rows: list[dict[str, str]] = []
        if self.args.resume and path.is_file():
            with open(path, newline="") as file:
                # The last row of a run that was killed may be incomplete.
                complete = [row for row in csv.DictReader(file) if None not in row.values()]
                rows = [row for row in complete if int(row["step"]) <= self.progress.step]
        with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
