"""Behaviour cloning: one base policy a stage, and the initiation and termination predictors, from generated data.

    python -m reinforcegen_envs.agents.bc --data d2.hdf5 --out weights/threading

Everything is expressed in the frame of the stage's reference object. What is written runs without torch.
"""

from __future__ import annotations

import csv
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.arguments import Count, CountOrZero, NotNegative, Positive, checked
from reinforcegen_envs.demos.hdf5 import Demo, DemoFileError, iter_demos, read_attrs, read_demos, task_name
from reinforcegen_envs.demos.segments import cut_all, skeleton_of
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.files import atomic_path, check_output_folder
from reinforcegen_envs.observations import ObservationLayout, to_reference
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import MLP
from reinforcegen_envs.policies.predictors import initiation_features, termination_features
from reinforcegen_envs.policies.skill import stage_features
from reinforcegen_envs.tasks import TASKS, Task
from reinforcegen_envs.workers import Workers

DWELL = 0.004  # metres
LOG_EVERY = 250  # steps
THRESHOLD = 0.7  # probability above which a termination output is positive
SEEN = 0.99  # of demonstrations' rows that a base policy's inputs are not cut below (ours)


@dataclass
class Args:
    """Train a task's base policies and predictors on generated demonstrations."""

    data: tuple[Path, ...]
    """files of demonstrations, from python -m reinforcegen_envs.demos.generate; of several variants, if the networks are to
    serve those"""
    out: Path = Path("runs/bc")
    """folder for base, termination and initiation weights, and the skeleton of the source demonstrations"""
    source: Path | None = None
    """source demonstrations that the data was generated from; default: the shipped ones"""
    max_demos: CountOrZero = 0
    """use only the first so many demonstrations of every file; 0 means all"""
    seed: CountOrZero = 0
    """seed of initial weights and batches"""
    workers: CountOrZero = 0
    """processes, each of which trains one network at a time; 0: one for every usable core. The result does not depend on it"""
    quiet: bool = False
    """no progress bar"""

    # Algorithm specific
    steps: Count = 12_000
    """gradient steps of a base policy; termination predictors take half of them"""
    batch_size: Count = 256
    """transitions in a batch"""
    learning_rate: Positive = 1e-3
    """of Adam, falling to zero on a cosine"""
    hidden: Count = 256
    """units in each of the two hidden layers of a base policy; half for termination, a quarter for initiation"""
    weight_decay: NotNegative = 1e-5
    """of Adam"""
    input_clip: Positive = 4.0
    """standard deviations from the demonstrations' mean at which base policies' inputs are cut, or more where 1% of the
    demonstrations' own lie beyond: from where no demonstration has been they act as at the edge of what was seen. Extrapolated,
    actions grow, and the hand runs away"""


@dataclass
class StageData:
    """The transitions of one stage: what each kind of network sees, and what it is to learn from them."""

    features: np.ndarray  # (N, F) of the base policy
    termination_features: np.ndarray  # (N, G)
    actions: np.ndarray  # (N, 7) reference frame; the last column is 1 for closing
    finished: np.ndarray  # (N,) whether the stage was over
    initiation_features: np.ndarray  # (demos, H) when each skill began
    source: np.ndarray  # (demos,) source demonstration that was copied
    sources: int  # how many there are to copy


def demonstrations(args: Args, task: type[Task]) -> Iterator[tuple[Path, Demo]]:
    """Every demonstration to train on, and the file it is from."""
    for path in args.data:
        yield from ((path, demo) for demo in islice(iter_demos(path, task.name), args.max_demos or None))


def load_stages(args: Args, task: type[Task], layout: ObservationLayout, source_count: int) -> list[StageData]:
    """Read generated files stage by stage.

    Raises:
        DemoFileError: a file is damaged, of another task, or holds no generated skill segments.
    """
    rotation = layout.slices["ref_rot6d_world"]
    stages: list[dict[str, list]] = [
        {"features": [], "termination": [], "actions": [], "finished": [], "initiation": [], "source": []}
        for _ in task.stages
    ]
    for path, demo in demonstrations(args, task):
        if "label_action" not in demo.datagen_info or "state" not in demo.obs or "sources" not in demo.attrs:
            raise DemoFileError(f"{path}: {demo.name} has no label_action; train on the output of demos.generate")
        obs, labels = demo.obs["state"], demo.datagen_info["label_action"]
        if obs.shape[1] != layout.size:
            raise DemoFileError(
                f"{path}: observations of {obs.shape[1]} numbers, {layout.size} are needed; generate again"
            )
        sources = demo.attrs["sources"]
        for index, data in enumerate(stages):
            steps = np.flatnonzero(demo.datagen_info["stage"] == index)
            data["features"].append(obs[steps][:, stage_features(layout, task, index)])
            data["termination"].append(obs[steps][:, termination_features(layout, task, index)])
            frames = obs[steps][:, rotation].astype(np.float64)
            actions = np.array(
                [to_reference(a.astype(np.float64), f) for a, f in zip(labels[steps], frames, strict=True)]
            )
            actions[:, 6] = without_dwell(actions[:, 6], obs[steps][:, layout.slices["eef_pos_in_ref"]])
            data["actions"].append(actions)
            data["finished"].append(demo.datagen_info["finished"][steps])
            data["initiation"].append(obs[steps[0], initiation_features(layout)])
            data["source"].append(int(sources[index]))
    out = []
    for data in stages:
        actions = np.concatenate([np.asarray(a, np.float32) for a in data["actions"]])
        actions[:, 6] = actions[:, 6] > 0
        out.append(
            StageData(
                np.concatenate(data["features"]),
                np.concatenate(data["termination"]),
                actions,
                np.concatenate(data["finished"]).astype(np.float32),
                np.stack(data["initiation"]),
                np.array(data["source"]),
                source_count,
            )
        )
    return out


def without_dwell(gripper: np.ndarray, eef: np.ndarray) -> np.ndarray:
    """Gripper commands (T,) as they would be had the operator not hesitated: a memoryless policy would hesitate for ever.

    Steps before the command changes, at which the hand (T, 3) was already within `DWELL` of where it changed, get the
    command that follows.
    """
    closed = gripper > 0
    for change in reversed(np.flatnonzero(closed[1:] != closed[:-1]) + 1):
        step = change
        while step > 0 and np.linalg.norm(eef[step - 1] - eef[change]) < DWELL:
            step -= 1
        closed[step:change] = closed[change]
    return np.where(closed, 1.0, -1.0)


@dataclass
class Log:
    """How the training of one network goes.

    Args:
        advance: told of so many more gradient steps.
        losses: (gradient step, mean loss up to it).
    """

    advance: Callable[[int], object]
    losses: list[tuple[int, float]] = field(default_factory=list)


def fit(
    features: np.ndarray,
    targets: np.ndarray,
    outputs: int,
    loss_function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    steps: int,
    hidden: int,
    args: Args,
    log: Log,
) -> MLP:
    """Train one network and return it in the form that runs inside the environment."""
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    mean, std = features.mean(0), np.maximum(features.std(0), 1e-2)
    x, y = torch.from_numpy((features - mean) / std).float(), torch.from_numpy(targets)
    network = nn.Sequential(
        nn.Linear(x.shape[1], hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)
    )  # fmt: skip
    optimizer = torch.optim.Adam(
        network.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay, foreach=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    total = 0.0
    for step in range(steps):
        batch = torch.from_numpy(rng.integers(len(x), size=args.batch_size))
        loss = loss_function(network(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        total += float(loss.detach())
        if (step + 1) % LOG_EVERY == 0:
            log.losses.append((step + 1, total / LOG_EVERY))
            total = 0.0
            log.advance(LOG_EVERY)
    log.advance(steps % LOG_EVERY)
    layers = [m for m in network if isinstance(m, nn.Linear)]
    return MLP([m.weight.detach().numpy() for m in layers], [m.bias.detach().numpy() for m in layers], mean, std)


def fit_base(data: StageData, args: Args, log: Log) -> MLP:
    """Clone the labels: squared error on motion, in units of each axis's spread; cross entropy on the gripper."""
    scale = np.append(np.maximum(data.actions[:, :6].std(0), 0.02), 1.0).astype(np.float32)

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        motion = F.smooth_l1_loss(output[:, :6], target[:, :6])
        return motion + 0.3 * F.binary_cross_entropy_with_logits(output[:, 6], target[:, 6])

    network = fit(data.features, data.actions / scale, 7, loss, args.steps, args.hidden, args, log)
    # Undo the units in the last layer, so that the network's output is an action.
    network.weights[-1][:] *= scale[:, None]
    network.biases[-1][:] *= scale
    assert network.mean is not None and network.std is not None
    reached = np.quantile(np.abs((data.features - network.mean) / network.std).max(1), SEEN)
    return replace(network, clip=max(args.input_clip, float(reached)))


def fit_termination(data: StageData, args: Args, log: Log) -> MLP:
    """Classify whether the stage is over.

    The classes are not weighted: stopping too early ends the episode, stopping late costs a few steps.
    """

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(output[:, 0], target)

    return fit(data.termination_features, data.finished, 1, loss, args.steps // 2, max(1, args.hidden // 2), args, log)


def fit_initiation(data: StageData, args: Args, log: Log) -> MLP:
    """Classify which source demonstration was copied with success."""
    # Few steps: there is one example a demonstration, and the labels are draws.
    steps, hidden = args.steps // 40, max(1, args.hidden // 4)
    return fit(data.initiation_features, data.source, data.sources, F.cross_entropy, steps, hidden, args, log)


FITS = {"base": fit_base, "termination": fit_termination, "initiation": fit_initiation}
Job = tuple[str, str, StageData, Args]
Trained = tuple[str, str, MLP, list[tuple[int, float]]]


def _start(advance: Callable[[int], object]) -> Callable[[int], object]:
    """In a worker: one thread of torch, and gradient steps reported to the parent's bar."""
    torch.set_num_threads(1)
    return advance


def _work(advance: Callable[[int], object], job: Job) -> Trained:
    kind, stage, data, args = job
    log = Log(advance)
    return kind, stage, FITS[kind](data, args, log), log.losses


def fit_all(
    names: list[str], stages: list[StageData], args: Args, kinds: Sequence[str] = tuple(FITS)
) -> tuple[dict[str, dict[str, MLP]], list[dict]]:
    """Train every stage's networks of some kinds, over all workers; returns kind -> stage name -> network, and losses."""
    jobs = [(kind, name, data, args) for kind in kinds for name, data in zip(names, stages, strict=True)]
    networks: dict[str, dict[str, MLP]] = {kind: {} for kind in kinds}
    log: list[dict] = []
    steps = {"base": args.steps, "termination": args.steps // 2, "initiation": args.steps // 40}
    total = len(stages) * sum(steps[kind] for kind in kinds)
    with (
        tqdm(total=total, unit="step", disable=args.quiet) as bar,
        Workers(args.workers, _start, jobs=len(jobs), note=bar.update) as workers,
    ):
        for kind, name, network, losses in workers.map(_work, jobs):
            networks[kind][name] = network
            log += [{"network": f"{kind} {name}", "step": step, "losses/loss": loss} for step, loss in losses]
            bar.set_postfix(trained=f"{kind} {name}")
    return networks, log


def task_of(data: Sequence[Path]) -> type[Task]:
    """The task that files of demonstrations are of.

    Raises:
        DemoFileError: of none that there is; or there is no file.
    """
    if not data:
        raise DemoFileError("no data; name at least one file that demos.generate wrote")
    name = task_name(read_attrs(data[0])["env_args"]["env_name"])
    if name not in TASKS:
        raise DemoFileError(f"{data[0]} is for task {name!r}; data of {sorted(TASKS)} can be trained on")
    return TASKS[name]


def check_source(data: Sequence[Path], source: Path | None) -> None:
    """Check that demonstrations come from the sources that key poses will be taken from: shipped ones, or somebody's own.

    Raises:
        DemoFileError: they do not.
    """
    for path in data:
        settings = json.loads(read_attrs(path).get("settings") or "{}")
        parts = (
            [settings] if isinstance(settings, dict) else [json.loads(part or "{}") for part in settings]
        )  # of a merged file
        for made_from in (part["source"] for part in parts if "source" in part):
            if (made_from != "None") != (source is not None):
                own = f"{made_from}; name them, --source {made_from}"
                raise DemoFileError(
                    f"{path} was generated from {'the shipped sources; leave out source' if made_from == 'None' else own}"
                )


def main(args: Args) -> None:
    """Train everything and write it to ``args.out``.

    Raises:
        DemoFileError: no demonstrations, of several tasks or damaged, or from other sources.
    """
    args = checked(args)
    check_output_folder(args.out)
    task = task_of(args.data)
    layout = ObservationLayout.of(task)
    sources = cut_all(read_demos(args.source or source_file(task.name), task.name), task)
    check_source(args.data, args.source)
    began = time.time()
    stages = load_stages(args, task, layout, len(sources))
    networks, log = fit_all([stage.name for stage in task.stages], stages, args)
    card = {
        "command": shlex.join(["python", "-m", "reinforcegen_envs.agents.bc", *sys.argv[1:]]),
        "demonstrations": len(stages[0].source),
        "seed": args.seed,
    }
    extra = {"base": {}, "termination": {"threshold": THRESHOLD}, "initiation": {}}
    bundle = Bundle(task, args.out)
    for kind, trained in networks.items():
        bundle.save(kind, trained, {**card, **extra[kind]})
    bundle.save_skeleton(skeleton_of(sources))
    with atomic_path(args.out / "losses.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, ["network", "step", "losses/loss"])
        writer.writeheader()
        writer.writerows(log)
    print(f"wrote {args.out} after {time.time() - began:.0f} s")


def command() -> None:
    """The command line."""
    cli.run(main, Args, example="--data d2.hdf5 --out weights")


if __name__ == "__main__":
    command()
