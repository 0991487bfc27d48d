"""Foresight: how likely the rest of a task succeeds from the state in which a skill ends, learned from rollouts.

    python -m reinforcegen_envs.agents.foresight --task Threading --weights weights

A sparse reward for every stage by itself leaves open in which of its many end states a skill ends, and the next skill may
like some of them less. Here the policies of a folder play the whole task; every end of a skill is kept with whether all later
stages succeeded, and one small network a stage, all but the last, learns to tell. ``tune --foresight`` multiplies the skill's
reward with what it says.

Policies rarely fail, and reinforcement learning explores ends that they do not show. So in most episodes one stage, another
one each time, is played with a residual that is off by something drawn anew; what that stage and the later ones end in is
kept, and the later ones are played as they are.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from reinforcegen_envs import cli
from reinforcegen_envs.agents import bc
from reinforcegen_envs.agents.roc import Roc, auc, plot_rocs, write_rocs
from reinforcegen_envs.agents.termination import NothingFinishedError
from reinforcegen_envs.arguments import Count, CountOrZero, NotNegative, checked
from reinforcegen_envs.engine import Engine
from reinforcegen_envs.env import ManipulationEnv
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.observations import ACTION_SIZE, ObservationLayout
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.policies.mlp import MLP
from reinforcegen_envs.policies.policy import Indices, Memory, Policy, act_one
from reinforcegen_envs.policies.predictors import foresight_features
from reinforcegen_envs.registration import make_env
from reinforcegen_envs.statistics import EVALUATION_SEED
from reinforcegen_envs.tasks import TASKS
from reinforcegen_envs.workers import Workers
from reinforcegen_envs.wrappers.hybrid import Sustained

HIDDEN = 64  # units in each of the two hidden layers
WEIGHT_DECAY = 1e-3  # there are few failures to learn from
CALIBRATION = 0.25  # part of the ends on which predictions are calibrated
CLIP = 5.0  # standard deviations that an end may be off the mean; nothing is known of what lies beyond
BINS = 5  # of the calibration, with equally many episodes each
TERMINATIONS = ("sustained", "predictor")


@dataclass
class Args:
    """Train predictors of later stages' success, for residual reinforcement learning with --foresight."""

    task: str = "Threading"
    """task name"""
    variant: tuple[str, ...] = ("D2",)
    """reset ranges, in turn; one named twice comes twice as often"""
    weights: Path | None = None
    """folder of weights; its policies play, tuned where there are residual weights, and the predictor is put there"""
    episodes: Count = 1000
    """episodes to train on, half of them from noisy starts"""
    held_out: Count = 300
    """further episodes that judge the predictors; seeds from 1,000,000"""
    pose_noise: tuple[NotNegative, NotNegative] = (0.01, 0.0523599)
    """standard deviations of the noise on initiation poses, metres and radians per axis"""
    exploration: NotNegative = 0.5
    """standard deviation of what one stage's residual is off by in most episodes, in the residual's units"""
    termination: str = "sustained"
    """what ends skills: "sustained", as in training, or "predictor", as deployed"""
    seed: CountOrZero = 0
    """seed of the first episode, below 1,000,000, from where evaluation seeds start; and of networks and batches"""
    steps: Count = 1500
    """gradient steps of a predictor"""
    workers: CountOrZero = 0
    """processes; 0: one for every core that this process may use"""
    quiet: bool = False
    """no progress bars"""


End = tuple[int, np.ndarray]  # stage, observation


class Ends(Policy):
    """Ends skills as another termination does, and notes the observations at the ends of those that were finished.

    It serves the one environment that it was told to `watch`, whose copies of it write into one list.
    """

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.termination: Policy | None = None
        self.ends: list[End] = []

    def __deepcopy__(self, memo: dict[int, Any]) -> Ends:
        """The same object: an environment copies its policies, but this one has to be told and asked."""
        return self

    def watch(self, engine: Engine, termination: Policy) -> None:
        """Serve this engine from now on, and forget the ends noted so far."""
        self.engine, self.termination, self.ends = engine, termination, []
        termination.reset()

    def reset(self, env_indices: Indices | None = None) -> None:
        """A new skill begins."""
        if self.termination is not None:
            self.termination.reset(env_indices)

    def act(self, observations: np.ndarray, env_indices: Indices | None = None) -> np.ndarray:
        """Whether the skill is over (1,), given the observation (1, size) after one more control step of it."""
        assert self.engine is not None and self.termination is not None
        over = self.termination.act(observations, env_indices)
        if over[0] and self.engine.judge.finished:
            self.ends.append((self.engine.stage, observations[0].copy()))
        return over

    def get_memory(self, env_index: int = 0) -> Memory:
        """The other termination's."""
        return {} if self.termination is None else self.termination.get_memory(env_index)

    def set_memory(self, memory: Memory, env_index: int = 0) -> None:
        """Go on from a memory of `get_memory`."""
        if self.termination is not None:
            self.termination.set_memory(memory, env_index)


class Player:
    """Plays episodes of the whole task with the policies of a folder, one stage of most of them off.

    Args:
        args: of the command.
    """

    def __init__(self, args: Args):
        task = TASKS[args.task]
        bundle = Bundle.open(task, args.weights)
        self._ends = Ends()
        kwargs: dict[str, Any] = {"weights": str(bundle.folder), "initiation": "student", "termination": self._ends}
        self._policy, scale = bundle.residual_or_zero()
        self._envs = [
            make_env(args.task, variant, "Residual", pose_noise=noise, **kwargs, **scale)
            for variant in args.variant
            for noise in ((0.0, 0.0), tuple(args.pose_noise))
        ]
        self._terminations: list[Policy] = [
            Sustained(_engine(env).judge) if args.termination == "sustained" else bundle.termination()
            for env in self._envs
        ]
        self._exploration = args.exploration
        self._stages = len(task.stages)

    def play(self, seed: int) -> tuple[list[End], bool]:
        """The ends of one episode's skills, before the last, that later stages were played from as they are; its success."""
        number, which = divmod(seed, len(self._envs))
        env = self._envs[which]
        self._ends.watch(_engine(env), self._terminations[which])
        rng = np.random.default_rng([seed, self._stages])  # apart from the environment's own
        off_stage = number % self._stages - 1  # -1: none
        off = rng.normal(0.0, self._exploration, ACTION_SIZE)
        obs, info = env.reset(seed=seed)
        done = bool(info["failure"])
        while not done:
            action = act_one(self._policy, obs)
            if info["stage"] == off_stage:
                action = np.clip(action + off, -1.0, 1.0)
            obs, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
        ends = [(stage, end) for stage, end in self._ends.ends if off_stage <= stage < self._stages - 1]
        return ends, bool(info["success"])


def _engine(env: gym.Env) -> Engine:
    return cast(ManipulationEnv, env.unwrapped).engine


def _work(player: Player, seed: int) -> tuple[list[End], bool]:
    return player.play(seed)


@dataclass
class Examples:
    """Ends of one stage's skill: features (N, F), and whether the later stages succeeded (N,), 0 or 1."""

    features: np.ndarray
    succeeded: np.ndarray


def collect(args: Args, first_seed: int, count: int) -> list[Examples]:
    """Play so many episodes, over all workers; the examples of every stage but the last."""
    task = TASKS[args.task]
    features = foresight_features(ObservationLayout.of(task))
    found: list[list[tuple[np.ndarray, bool]]] = [[] for _ in task.stages[:-1]]
    with Workers(args.workers, Player, (args,), jobs=count) as workers:
        episodes = workers.map(_work, range(first_seed, first_seed + count))
        for ends, success in tqdm(episodes, total=count, unit="episode", disable=args.quiet):
            for stage, obs in ends:
                found[stage].append((obs[features], success))
    return [
        Examples(
            np.reshape([f for f, _ in examples], (len(examples), len(features))).astype(np.float32),
            np.array([s for _, s in examples], np.float32),
        )
        for examples in found
    ]


def judged(probabilities: np.ndarray, succeeded: np.ndarray) -> dict[str, Any]:
    """How good predictions are.

    Args:
        probabilities: (N,) that were predicted.
        succeeded: (N,) what came of it, 0 or 1.

    Returns:
        ends: N; success: mean of ``succeeded``; auc: see `roc.auc`; brier: mean squared error of the probabilities, and
        brier_of_mean that of always predicting the mean; calibration: by rising prediction, `BINS` equal parts of the
        ends: mean prediction, success, how many. None where there is nothing to tell from.
    """
    known = len(succeeded) > 0
    bins = [part for part in np.array_split(np.argsort(probabilities, kind="stable"), BINS) if len(part)]
    return {
        "ends": len(succeeded),
        "success": float(succeeded.mean()) if known else None,
        "auc": auc(probabilities, succeeded > 0),
        "brier": float(np.mean((probabilities - succeeded) ** 2)) if known else None,
        "brier_of_mean": float(np.var(succeeded)) if known else None,
        "calibration": [
            {"predicted": float(probabilities[b].mean()), "success": float(succeeded[b].mean()), "ends": len(b)}
            for b in bins
        ],
    }


def fit(examples: Examples, args: Args) -> MLP:
    """A network over `foresight_features` with one output, the logit of success, calibrated on ends it was not trained on."""
    succeeded = examples.succeeded
    held = np.random.default_rng(args.seed).random(len(succeeded)) < CALIBRATION
    if any(len(np.unique(part)) < 2 for part in (succeeded[held], succeeded[~held])):
        return constant(examples)  # too little ever came of it otherwise

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(output[:, 0], target)

    training = bc.Args((), seed=args.seed, weight_decay=WEIGHT_DECAY)
    log = bc.Log(lambda steps: None)
    network = bc.fit(examples.features[~held], succeeded[~held], 1, loss, args.steps, HIDDEN, training, log)
    slope, shift = calibration(network.batch(examples.features[held])[:, 0], succeeded[held])
    weights = [*network.weights[:-1], (slope * network.weights[-1]).astype(np.float32)]
    biases = [*network.biases[:-1], (slope * network.biases[-1] + shift).astype(np.float32)]
    return MLP(weights, biases, network.mean, network.std, clip=CLIP)


def constant(examples: Examples) -> MLP:
    """A network that says the same of all ends: how often success came of them, of which one more and one less are supposed."""
    rate = (examples.succeeded.sum() + 1.0) / (len(examples.succeeded) + 2.0)
    zeros = np.zeros((1, examples.features.shape[1]), np.float32)
    return MLP([zeros], [np.array([np.log(rate / (1.0 - rate))], np.float32)])


def calibration(logits: np.ndarray, succeeded: np.ndarray) -> tuple[float, float]:
    """Slope, not negative, and shift of logits (N,) with which they are as likely as can be, given what came of them (N,)."""
    x, y = torch.from_numpy(logits).double(), torch.from_numpy(succeeded).double()
    parameters = torch.tensor([1.0, 0.0], dtype=torch.double, requires_grad=True)
    optimiser = torch.optim.LBFGS([parameters], max_iter=100)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        likely = F.binary_cross_entropy_with_logits(parameters[0] * x + parameters[1], y)
        # As if one end more told that the logits are right as they are: few ends must not turn them round.
        loss = likely + (parameters - torch.tensor([1.0, 0.0])).square().sum() / len(y)
        loss.backward()
        return loss

    optimiser.step(closure)  # pyright: ignore[reportArgumentType] (torch's own type of closures)
    slope, shift = parameters.tolist()
    return max(slope, 0.0), shift


def main(args: Args) -> None:
    """Play, train, write the predictors, and print how good they are on held-out episodes as JSON.

    Raises:
        InvalidArgument: unknown task, variant or termination, or a number out of its range.
        WeightsError: unusable weights.
        NothingFinishedError: some stage was never finished.
    """
    args = checked(args)
    if args.task not in TASKS:
        raise InvalidArgument(f"unknown task {args.task!r}; choose one of {sorted(TASKS)}")
    if args.termination not in TERMINATIONS:
        raise InvalidArgument(f"unknown termination {args.termination!r}; choose one of {TERMINATIONS}")
    task = TASKS[args.task]
    if not args.variant or not set(args.variant) <= set(task.variants):
        raise InvalidArgument(f"variant {args.variant} of {args.task}; name some of {list(task.variants)}")
    bundle = Bundle.open(task, args.weights)
    if not os.access(bundle.folder, os.W_OK):
        raise InvalidArgument(
            f"{bundle.folder} cannot be written, and the predictor is to be put there; copy the folder"
        )
    names = [stage.name for stage in task.stages[:-1]]
    training = collect(args, args.seed, args.episodes)
    if empty := [name for name, examples in zip(names, training, strict=True) if not len(examples.succeeded)]:
        raise NothingFinishedError(f"no episode of {args.episodes} finished {empty}; train better policies first")
    held_out = collect(args, EVALUATION_SEED, args.held_out)
    torch.set_num_threads(1)
    networks = {name: fit(examples, args) for name, examples in zip(names, training, strict=True)}
    report, curves, areas = {}, {}, {}
    for name, examples in zip(names, held_out, strict=True):
        probabilities = 1.0 / (1.0 + np.exp(-networks[name].batch(examples.features)[:, 0].astype(np.float64)))
        report[name] = judged(probabilities, examples.succeeded)
        areas[name, "foresight"] = report[name]["auc"]
        if (roc := Roc.of(probabilities, examples.succeeded > 0)) is not None:
            curves[name, "foresight"] = roc
    card = {
        "command": shlex.join(["python", "-m", "reinforcegen_envs.agents.foresight", *sys.argv[1:]]),
        "variant": args.variant,
        "seed": args.seed,
        "rollouts": args.episodes,
        "held_out_rollouts": args.held_out,
        "ends": {name: len(examples.succeeded) for name, examples in zip(names, training, strict=True)},
        "held_out": report,
    }
    bundle.save("foresight", networks, card)
    write_rocs(bundle.folder / "foresight-roc.csv", curves)
    plot_rocs(bundle.folder / "foresight-roc.png", curves, names, areas)
    print(json.dumps(report, indent=2))


def command() -> None:
    """The command line."""
    cli.run(main, Args, example="--task Threading --weights weights")


if __name__ == "__main__":
    command()
