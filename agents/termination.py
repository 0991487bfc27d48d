"""Termination predictors, trained again on what the tuned policy does.

    python -m reinforcegen_envs.agents.termination --weights weights --data d2.hdf5
    python -m reinforcegen_envs.agents.termination --weights weights --evaluate-only

A residual policy finishes its skills in states that generated demonstrations do not show, and the classifiers learned from
those alone may overlook that a skill is over. Here the policies that will be deployed play, every skill goes on for some
steps after the simulator says that it is finished, and the classifiers are trained on these steps and the demonstrations.
Old and new ones are then compared on held-out rollouts of the policy as deployed: how well they tell control steps apart
(ROC), and how many skills they would end too early, too late or never.
"""

from __future__ import annotations

import csv
import json
import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import mujoco
import numpy as np
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.agents import bc
from reinforcegen_envs.agents.stops import Judged, Rollouts, compare
from reinforcegen_envs.arguments import Count, CountOrZero, NotNegative, checked
from reinforcegen_envs.engine import Engine
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.files import atomic_path, check_output_folder
from reinforcegen_envs.observations import ObservationLayout
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import CARD_VERSION, WeightsError, load_mlps
from reinforcegen_envs.policies.policy import Indices, Memory, Policy, act_one
from reinforcegen_envs.policies.predictors import termination_features
from reinforcegen_envs.policies.residual import ResidualPolicy
from reinforcegen_envs.registration import make_env
from reinforcegen_envs.statistics import EVALUATION_SEED
from reinforcegen_envs.tasks import TASKS, Task
from reinforcegen_envs.workers import Workers

Step = tuple[int, np.ndarray, bool]  # stage, observation, whether the stage was finished
SHARE = 0.5  # of the training steps that come from the policies, the rest from demonstrations


class NothingFinishedError(ReinforceGenError, RuntimeError):
    """The policies never finish a stage, so there is nothing to learn its termination from."""


@dataclass
class Args:
    """Train a task's termination predictors again, on rollouts of its policies."""

    weights: Path
    """folder of base, initiation and termination weights, with residual weights if there are any"""
    data: tuple[Path, ...] = ()
    """generated demonstrations that the base policies were trained on"""
    variants: tuple[str, ...] = ()
    """reset ranges of the rollouts, in turn; none named: all that the task has"""
    episodes: Count = 300
    """episodes, of every variant with base policies and residual policies, from noisy starts and others, in turn"""
    pose_noise: tuple[NotNegative, NotNegative] = (0.01, 0.0523599)
    """standard deviations of the noise on initiation poses, metres and radians per axis"""
    perception: str = "truth"
    """"truth", "camera" or "camera_errors": what the classifiers are trained and judged on"""
    held_out: Count = 100
    """further episodes, of the policy as deployed (with residuals, if there are any), that judge the classifiers; seeds from
    1,000,000"""
    evaluate_only: bool = False
    """train nothing and leave the weights as they are: judge the classifiers that are there"""
    out: Path | None = None
    """folder for termination-roc.csv and termination-roc.png; default: the weights' own, or none with --evaluate-only"""
    after: CountOrZero = 12
    """control steps that a skill goes on after it was finished"""
    seed: CountOrZero = 0
    """seed of the first episode, below 1,000,000, from where evaluation seeds start; and of weights and batches"""
    steps: Count = 12_000
    """twice the gradient steps of a classifier, as in agents.bc"""
    workers: CountOrZero = 0
    """processes; 0: one for every core that this process may use"""
    quiet: bool = False
    """no progress bars"""


class Truth(Policy):
    """Ends a skill some control steps after the simulator says it was finished, and notes what was seen till then.

    It judges the one environment that it was told to `watch`, whose copies of it write into one list.

    Args:
        after: control steps that a skill goes on.
    """

    def __init__(self, after: int):
        self.after = after
        self.count = 0
        self.engine: Engine | None = None
        self.steps: list[Step] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Truth:
        """The same object: an environment copies its policies, but the judge has to be the one that is told and asked."""
        return self

    def watch(self, engine: Engine) -> None:
        """Judge this engine from now on, and forget the steps noted so far."""
        self.engine, self.count, self.steps = engine, 0, []

    def reset(self, env_indices: Indices | None = None) -> None:
        """A new skill begins."""
        self.count = 0

    def act(self, observations: np.ndarray, env_indices: Indices | None = None) -> np.ndarray:
        """Whether the skill is over (1,), given the observation (1, size) after one more control step of it."""
        assert self.engine is not None
        finished = self.engine.judge.finished
        self.steps.append((self.engine.stage, observations[0], finished))
        if finished or self.count:
            self.count += 1
        return np.array([self.count > self.after])

    def get_memory(self, env_index: int = 0) -> Memory:
        """{"count": control steps since the skill was finished}."""
        return {"count": self.count}

    def set_memory(self, memory: Memory, env_index: int = 0) -> None:
        """Go on from a memory of `get_memory`."""
        self.count = int(memory["count"])


class Player:
    """Plays episodes with the base policies alone or with the residual policies, with noisy starts or without.

    Args:
        args: of the command.
        task: the task class.
        deployed: only the policy that would be deployed plays: the residual one, if there is one.
    """

    def __init__(self, args: Args, task: type[Task], deployed: bool = False):
        self._truth = Truth(args.after)
        kwargs: dict[str, Any] = {
            "weights": str(args.weights),
            "initiation": "student",
            "termination": self._truth,
            "perception": args.perception,
        }
        noises = [(0.0, 0.0), tuple(args.pose_noise)]
        policies = [ResidualPolicy(task, {})]
        bundle = Bundle.open(task, args.weights, args.perception)
        if bundle.residual_files():
            policy, kwargs["residual_scale"] = bundle.residual()
            policies.append(policy)
        policies = policies[-1:] if deployed else policies
        self._settings: list[tuple[gym.Env, ResidualPolicy]] = [
            (make_env(task.name, variant, "Residual", pose_noise=noise, **kwargs), policy)
            for variant in args.variants or task.variants
            for noise in noises
            for policy in policies
        ]

    def play(self, seed: int) -> list[Step]:
        """The steps of one episode: stage, observation, finished."""
        env, policy = self._settings[seed % len(self._settings)]
        self._truth.watch(cast(ManipulationEnv, env.unwrapped).engine)
        obs, info = env.reset(seed=seed)
        done = bool(info["failure"])
        while not done:
            obs, _, terminated, truncated, _ = env.step(act_one(policy, obs))
            done = terminated or truncated
        return self._truth.steps


def _start(args: Args, task_name: str, deployed: bool) -> Player:
    return Player(args, TASKS[task_name], deployed)


def _work(player: Player, seed: int) -> list[Step]:
    return player.play(seed)


def collect(args: Args, task: type[Task], held_out: bool = False) -> list[Rollouts]:
    """Play all episodes, those to train on or the held-out ones, over all workers; returns the steps stage by stage.

    Raises:
        NothingFinishedError: no episode finished some stage.
    """
    layout = ObservationLayout.of(task)
    features = [termination_features(layout, task, stage) for stage in range(len(task.stages))]
    steps: list[list[tuple[np.ndarray, bool, int]]] = [[] for _ in task.stages]
    first, count = (EVALUATION_SEED, args.held_out) if held_out else (args.seed, args.episodes)
    with Workers(args.workers, _start, (args, task.name, held_out), jobs=count) as workers:
        episodes = workers.map(_work, range(first, first + count))
        for number, episode in enumerate(tqdm(episodes, total=count, unit="episode", disable=args.quiet)):
            for stage, obs, finished in episode:
                steps[stage].append((obs[features[stage]], finished, number))
    names = [stage.name for stage in task.stages]
    if empty := [name for name, found in zip(names, steps, strict=True) if not any(f for _, f, _ in found)]:
        raise NothingFinishedError(
            f"no episode of {count} finished {empty}; train better policies, or play more episodes"
        )
    return [
        Rollouts(
            np.stack([s[0] for s in found]),
            np.array([s[1] for s in found], np.float32),
            np.array([s[2] for s in found]),
        )
        for found in steps
    ]


def mixed(data: bc.StageData, rollouts: Rollouts) -> bc.StageData:
    """The stage's demonstrations with so many copies of the rollouts that they make up `SHARE` of all steps."""
    copies = max(1, round(SHARE / (1.0 - SHARE) * len(data.finished) / len(rollouts.finished)))
    features = np.concatenate([data.termination_features, *[rollouts.features] * copies])
    return replace(
        data, termination_features=features, finished=np.concatenate([data.finished, *[rollouts.finished] * copies])
    )


def evaluate(args: Args) -> Judged:
    """Judge the classifiers that are there on held-out rollouts; nothing is trained.

    Raises:
        WeightsError: unusable weights.
        NothingFinishedError: no episode finished some stage.
    """
    _, card = load_mlps(args.weights / "termination.safetensors", kind="termination", version=CARD_VERSION)
    if card["task"] not in TASKS:
        raise WeightsError(f"{args.weights} holds weights for task {card['task']!r}; choose from {sorted(TASKS)}")
    task = TASKS[card["task"]]
    bundle = Bundle.open(task, args.weights, args.perception)
    bundle.check()
    networks, card = load_mlps(bundle.path("termination"), kind="termination", task=task.name, version=CARD_VERSION)
    names = [stage.name for stage in task.stages]
    now = (networks, float(card.get("threshold", 0.5)))
    return compare(names, collect(args, task, held_out=True), {"now": now}, args.out)


def train(args: Args) -> Judged:
    """Play, train, and put the new classifiers in the place of the old ones.

    Raises:
        DemoFileError: the data is of no known task or of several, or not generated.
        WeightsError: unusable weights.
        NothingFinishedError: no episode finished some stage.
    """
    task = bc.task_of(args.data)
    bundle = Bundle.open(task, args.weights, args.perception)
    old, card = load_mlps(bundle.path("termination"), kind="termination", task=task.name, version=CARD_VERSION)
    sources = len(bundle.skeleton().tools)
    training = bc.Args(args.data, steps=args.steps, seed=args.seed, workers=args.workers, quiet=args.quiet)
    stages = bc.load_stages(training, task, ObservationLayout.of(task), sources)
    names = [stage.name for stage in task.stages]
    data = [mixed(stage, part) for stage, part in zip(stages, collect(args, task), strict=True)]
    networks, log = bc.fit_all(names, data, training, kinds=("termination",))
    new = networks["termination"]
    whose = {"before": (old, float(card.get("threshold", 0.5))), "after": (new, bc.THRESHOLD)}
    report = compare(names, collect(args, task, held_out=True), whose, args.out or args.weights)
    card |= {
        "mujoco": mujoco.__version__,
        "command": shlex.join(["python", "-m", "reinforcegen_envs.agents.termination", *sys.argv[1:]]),
        "threshold": bc.THRESHOLD,
        "rollouts": args.episodes,
        "held_out_rollouts": args.held_out,
        "held_out": report,
    }
    bundle.save("termination", new, card)
    with atomic_path(args.weights / "termination-losses.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, ["network", "step", "losses/loss"])
        writer.writeheader()
        writer.writerows(log)
    return report


def main(args: Args) -> None:
    """Train, or only judge, and print how good the classifiers are as JSON.

    Raises:
        InvalidArgument: arguments that are not allowed, or do not go together.
        DemoFileError, WeightsError, NothingFinishedError: see `train` and `evaluate`.
    """
    args = checked(args)
    if args.evaluate_only and args.data:
        raise InvalidArgument("evaluate_only trains nothing, and data names demonstrations to train on; leave out one")
    if args.out is not None:
        check_output_folder(args.out)
    print(json.dumps((evaluate if args.evaluate_only else train)(args), indent=2))


def command() -> None:
    """The command line."""
    cli.run(main, Args, example="--weights weights --data d2.hdf5")


if __name__ == "__main__":
    command()
