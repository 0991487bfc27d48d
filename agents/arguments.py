"""Arguments that every trainer has."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import gymnasium as gym

from reinforcegen_envs import arguments
from reinforcegen_envs.arguments import Count, CountOrZero, NotNegative, PositiveFraction, Seed
from reinforcegen_envs.errors import InvalidArgument
from reinforcegen_envs.ids import NAMESPACE

ArgsType = TypeVar("ArgsType", bound="RunArgs")


@dataclasses.dataclass
class RunArgs:
    """Arguments of every trainer."""

    env_id: str = "ReinforceGen/D2-Threading-Residual-v0"
    """environment id; any id with one flat observation and a continuous action works"""
    stage: str | None = None
    """train this stage's skill alone; None: the whole task, or the stage that the id names (this and the next nine:
    ReinforceGen ids only)"""
    pose_noise: tuple[NotNegative, NotNegative] | None = None
    """noise on the initiation pose: metres, radians; None: the environment's own default"""
    pool: Path | None = None
    """file of start states for training; None: earlier stages run live on every reset"""
    residual_scale: PositiveFraction | None = None
    """how much of the action range the residual covers; None: the environment's own default"""
    base_policy: Path | None = None
    """weights of the base policy; None: those in `weights`"""
    weights: Path | None = None
    """folder of base weights and predictors; None: the shipped one. If the base policy is the folder's, the trained
    residual is put there too, as residual-STAGE.safetensors, for evaluation with the same --weights"""
    termination: str | None = None
    """"predicate", "sustained" or "predictor"; None: the environment's own default"""
    initiation: str | None = None
    """"teacher" or "student"; None: the environment's own default"""
    perception: str | None = None
    """"truth", "camera" (object poses are estimated from pictures) or "camera_errors" (they are as wrong as those, without
    pictures; see reinforcegen measure); None: the environment's own default"""
    foresight: bool = False
    """multiply a skill's reward with how likely the later stages succeed from its end, as the predictor in the folder of weights
    says (reinforcegen foresight); success is counted as ever"""
    eval_pool: Path | None = None
    """file of held-out start states for evaluation, each of which is played once at most; None: the one of `pool`, whose starts
    are trained on, or no pool where an id of one stage has its own"""
    num_envs: Count = 8
    """environments stepped side by side"""
    num_threads: CountOrZero = 0
    """threads that step them; 0: one for every core that this process may use. The result does not depend on it"""
    total_steps: Count = 60_000
    """control steps of training, all environments together"""
    seed: Seed = 1
    """seed of everything random: networks, exploration, batches, training environments"""
    run_name: str | None = None
    """name of the run's folder; None: made from algorithm, id, stage and seed"""
    runs_dir: Path = Path("runs")
    """folder of all runs"""
    resume: bool = False
    """go on from the run's last checkpoint, with the same arguments (total_steps may grow)"""
    overwrite: bool = False
    """start anew though the run's folder already holds a checkpoint"""
    checkpoint_every: CountOrZero = 20_000
    """control steps between checkpoints; 0: only one, at the end"""
    log_every: CountOrZero = 1_000
    """control steps between rows of progress.csv; 0: only those of evaluations"""
    eval_every: CountOrZero = 10_000
    """control steps between evaluations; 0: only at the end"""
    eval_episodes: Count = 100
    """episodes of an evaluation during training"""
    final_episodes: Count = 200
    """episodes of the evaluation at the end"""
    torch_threads: Count = 1
    """threads of torch; small networks gain nothing from more"""
    quiet: bool = False
    """no progress bar"""

    def view(self) -> dict[str, Any]:
        """Arguments that make an environment show pictures; none: observations are one flat box."""
        return {}

    def numbers(self) -> tuple[str, ...]:
        """Entries that such environments must show beside the pictures, no more and no less."""
        return ("proprio", "base_action")

    def wrapped(self, env: gym.Env) -> gym.Env:
        """An environment as the trainer wants it; here, as it is."""
        return env

    def conflicts(self) -> list[str]:
        """What is wrong with arguments that are allowed one by one."""
        return ["resume goes on and overwrite starts anew; choose one"] if self.resume and self.overwrite else []


def checked(args: ArgsType) -> ArgsType:
    """A copy of ``args`` in plain Python values, of the declared kinds and within the declared ranges, and going together.

    Raises:
        InvalidArgument: an argument is not; the message names all that are not.
    """
    args = arguments.checked(args)
    wrong = args.conflicts()
    if (stage := _stage_of(args.env_id)) is not None:
        if args.stage not in (None, stage):
            wrong.append(
                f"env_id {args.env_id} is of stage {stage!r}, and stage names {args.stage!r}; give one of them"
            )
        args = dataclasses.replace(args, stage=stage)
    if wrong:
        raise InvalidArgument("; ".join(wrong))
    return args


def _stage_of(env_id: str) -> str | None:
    """The stage that an id of ours is of alone; None if it is of none, or somebody else's."""
    spec = gym.registry.get(env_id.rpartition(":")[2])
    return None if spec is None or spec.namespace != NAMESPACE else spec.kwargs.get("stage")


def saved_arguments(args: RunArgs) -> dict[str, Any]:
    """Name -> value for a checkpoint, which holds no paths."""
    values: Mapping[str, Any] = dataclasses.asdict(args)
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
