"""What the trainers share about arguments and environments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

import reinforcegen_envs  # noqa: F401 (importing it registers the ids)
from reinforcegen_envs.agents.evaluation import EVALUATION_SEED
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

ENV_KWARGS = (
    "stage", "pose_noise", "pool", "residual_scale", "base_policy", "weights", "termination", "initiation"
)  # fmt: skip


@dataclasses.dataclass
class RunArgs:
    """Arguments of every trainer."""

    env_id: str = "ReinforceGen/D2-Threading-Residual-v0"
    """environment id; any id with one flat observation and a continuous action works"""
    stage: str | None = None
    """train this stage's skill alone; None: the whole task (this and the next six: ReinforceGen ids only)"""
    pose_noise: tuple[float, float] | None = None
    """noise on the initiation pose: metres, radians; None: the environment's own default"""
    pool: str | None = None
    """file of start states for training; None: earlier stages run live on every reset"""
    residual_scale: float | None = None
    """how much of the action range the residual covers; None: the environment's own default"""
    base_policy: str | None = None
    """weights of the base policy; None: the shipped ones"""
    weights: str | None = None
    """folder of base weights and predictors; None: the shipped one"""
    termination: str | None = None
    """"predicate", "sustained" or "predictor"; None: the environment's own default"""
    initiation: str | None = None
    """"teacher" or "student"; None: the environment's own default"""
    eval_pool: str | None = None
    """file of held-out start states for evaluation; None: the one of `pool`"""
    num_envs: int = 8
    """environments stepped side by side"""
    num_threads: int = 2
    """threads that step them"""
    total_steps: int = 60_000
    """control steps of training, all environments together"""
    seed: int = 1
    """seed of everything random: networks, exploration, batches, training environments"""
    run_name: str | None = None
    """name of the run's folder; None: made from algorithm, id, stage and seed"""
    runs_dir: str = "runs"
    """folder of all runs"""
    resume: bool = False
    """go on from the run's last checkpoint, with the same arguments (total_steps may grow)"""
    overwrite: bool = False
    """start anew though the run's folder already holds a checkpoint"""
    checkpoint_every: int = 20_000
    """control steps between checkpoints; 0: only one, at the end"""
    log_every: int = 1_000
    """control steps between rows of progress.csv"""
    eval_every: int = 10_000
    """control steps between evaluations; 0: only at the end"""
    eval_episodes: int = 100
    """episodes of an evaluation during training"""
    final_episodes: int = 200
    """episodes of the evaluation at the end"""
    torch_threads: int = 1
    """threads of torch; small networks gain nothing from more"""


def is_flat_box(space: gym.Space) -> TypeGuard[gym.spaces.Box]:
    """Whether a space is a box of one dimension."""
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 1


def env_factory(args: RunArgs, evaluation: bool = False) -> Callable[[], gym.Env]:
    """A function that makes one environment, with actions in [-1, 1]; None arguments are not passed to it."""
    kwargs = {name: getattr(args, name) for name in ENV_KWARGS if getattr(args, name) is not None}
    if evaluation and args.eval_pool is not None:
        kwargs["pool"] = args.eval_pool

    def make() -> gym.Env:
        env = gym.make(args.env_id, **kwargs)
        observation, action = env.observation_space, env.action_space
        if not (is_flat_box(observation) and is_flat_box(action)):
            raise ValueError(
                f"{args.env_id} has observation {observation} and action {action}; "
                "the trainers need one flat Box each, e.g. obs_mode='state'"
            )
        if not (np.all(action.low == -1) and np.all(action.high == 1)):
            env = gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
        return env

    return make


def make_training_envs(args: RunArgs) -> ThreadVectorEnv:
    """The training environments, in threads; an episode's end and the next one's start are one step."""
    return ThreadVectorEnv(
        [env_factory(args)] * args.num_envs, args.num_threads, autoreset_mode=AutoresetMode.SAME_STEP
    )


def space_sizes(envs: ThreadVectorEnv) -> tuple[int, int]:
    """Numbers in one observation and in one action."""
    observation, action = envs.single_observation_space.shape, envs.single_action_space.shape
    assert observation is not None and action is not None  # `env_factory` checked that they are flat boxes
    return observation[0], action[0]


def training_seeds(rng: np.random.Generator, num_envs: int) -> list[int]:
    """Distinct seeds below those of evaluation. A resumed run draws new ones, so it repeats no episode."""
    return rng.choice(EVALUATION_SEED, num_envs, replace=False).tolist()


def residual_scale(args: RunArgs, envs: ThreadVectorEnv) -> float:
    """What the environments multiply the agent's action with; 1 if they have no base policy.

    Raises:
        ValueError: a residual environment does not say, and the arguments do not either.
    """
    if args.residual_scale is not None:
        return args.residual_scale
    try:
        return float(envs.envs[0].get_wrapper_attr("residual_scale"))
    except AttributeError:
        if "-Residual-" in args.env_id:
            raise ValueError(f"{args.env_id} has no attribute residual_scale; give --residual-scale") from None
        return 1.0


def true_next_obs(next_obs: np.ndarray, infos: Mapping[str, Any]) -> np.ndarray:
    """(num_envs, size) observations that the actions led to, also where an episode ended."""
    if "final_obs" not in infos:
        return next_obs
    result = next_obs.copy()
    for i in np.flatnonzero(infos["_final_obs"]):
        result[i] = infos["final_obs"][i]
    return result


def episode_successes(infos: Mapping[str, Any], done: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """(num_envs,) whether an episode ended here with info["success"] or, lacking that, a return > 0."""
    final = infos.get("final_info", {})
    return done & (np.asarray(final["success"], bool) if "success" in final else returns > 0)


def crossed(step: int, previous: int, every: int) -> bool:
    """Whether a multiple of ``every`` lies in (previous, step]; never for 0."""
    return every > 0 and step // every > previous // every
