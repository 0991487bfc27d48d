"""What the trainers share about environments."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Mapping, Sequence
from types import EllipsisType
from typing import Any, NamedTuple, TypeGuard

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode

import reinforcegen_envs  # noqa: F401 (importing it registers the ids)
from reinforcegen_envs.agents.arguments import RunArgs
from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.sim.cameras import CAMERAS
from reinforcegen_envs.statistics import EVALUATION_SEED
from reinforcegen_envs.workers import usable_cores
from reinforcegen_envs.wrappers.stored_pool import AUTO
from reinforcegen_envs.wrappers.vector import ThreadVectorEnv

ENV_KWARGS = (
    "stage", "pose_noise", "pool", "residual_scale", "base_policy", "weights", "termination", "initiation",
    "perception", "foresight",
)  # fmt: skip
NEEDS_BOXES = "the trainers need one flat Box each, that of the action with finite bounds, e.g. obs_mode='state'"
BASE_ACTION = "base_action"
NUMBERS = ("proprio", BASE_ACTION)  # entries of observations of pictures that are no pictures


def is_flat_box(space: gym.Space) -> TypeGuard[gym.spaces.Box]:
    """Whether a space is a box of one dimension."""
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 1


def is_continuous(space: gym.Space) -> TypeGuard[gym.spaces.Box]:
    """Whether actions can be scaled to [-1, 1]: a flat box of real numbers with finite bounds."""
    return is_flat_box(space) and np.issubdtype(space.dtype, np.floating) and space.is_bounded()


def is_pictures(space: gym.Space, numbers: Sequence[str]) -> TypeGuard[gym.spaces.Dict]:
    """Whether observations are square pictures from both cameras and some of `NUMBERS`, and nothing else."""
    if not isinstance(space, gym.spaces.Dict) or set(space.spaces) != {*CAMERAS, *numbers}:
        return False
    pictures = [space[name] for name in CAMERAS]
    shape = pictures[0].shape or ()
    square = len(shape) == 3 and shape[0] == shape[1] and shape[2] == 3
    flat = all(is_flat_box(space[name]) for name in numbers)
    return square and flat and all(each.shape == shape and each.dtype == np.uint8 for each in pictures)


def needs_pictures(numbers: Sequence[str]) -> str:
    """What a trainer that sees says of an id that shows it something else."""
    if BASE_ACTION in numbers:
        needed, mode = "pictures, the robot's state and a base policy's action", "Residual"
    else:
        needed, mode = "pictures and the robot's state, and no more", "Skill"
    return f"this trainer needs {needed}: an id of mode {mode}, e.g. ReinforceGen/D2-Threading-{mode}-v0"


def own_numbers(observations: Mapping[str, np.ndarray], which: int | EllipsisType = ...) -> np.ndarray:
    """(..., numbers) float32 of observations of pictures, or of one of them: all that is no picture, one after the other."""
    parts = [observations[name][which] for name in NUMBERS if name in observations]
    return np.concatenate(parts, -1, dtype=np.float32)


def input_statistics(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and std, float64, of (n, numbers) inputs of a network, to normalise with; constant entries have std 1."""
    std = numbers.std(0, dtype=np.float64)
    return numbers.mean(0, dtype=np.float64), np.where(std < 1e-3, 1.0, std)


def is_stage_id(env_id: str) -> bool:
    """Whether an id is of one stage, and starts from a pool of its own."""
    spec = gym.registry.get(env_id.rpartition(":")[2])
    return spec is not None and spec.kwargs.get("pool") == AUTO


def env_factory(args: RunArgs, evaluation: bool = False) -> Callable[[], gym.Env]:
    """A function that makes one environment, for networks in float32: its observations are, and actions lie in [-1, 1].

    None and False are not passed to the environment. Where ``args.view()`` asks for pictures, observations are the dictionaries
    of `is_pictures`.

    Raises:
        InvalidArgument: (from the function) the environment takes no such argument, or has other spaces.
    """
    given = {name: getattr(args, name) for name in ENV_KWARGS}
    kwargs = {name: value for name, value in given.items() if value is not None and value is not False}
    if evaluation and args.eval_pool is not None:
        kwargs["pool"] = args.eval_pool
    elif evaluation and args.pool is None and is_stage_id(args.env_id):
        kwargs["pool"] = None  # the id's own holds the starts that are trained on
    # What gym.make gets ends up in the environment's spec, which must stay JSON-serialisable.
    kwargs = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in kwargs.items()}
    view, numbers = args.view(), args.numbers()

    def make() -> gym.Env:
        env = _make(args.env_id, kwargs, view, numbers)
        observation, action = env.observation_space, env.action_space
        fits = is_pictures(observation, numbers) if view else is_flat_box(observation)
        if not (fits and is_continuous(action)):
            shown = sorted(observation.spaces) if isinstance(observation, gym.spaces.Dict) else observation
            needed = needs_pictures(numbers) if view else NEEDS_BOXES
            raise InvalidArgument(f"{args.env_id} has observation {shown} and action {action}; {needed}")
        if not view and observation.dtype != np.float32:
            float32 = gym.spaces.Box(-np.inf, np.inf, observation.shape, np.float32)
            env = gym.wrappers.TransformObservation(env, lambda obs: np.asarray(obs, np.float32), float32)
        if not (np.all(action.low == -1) and np.all(action.high == 1)):
            env = gym.wrappers.RescaleAction(env, np.float32(-1), np.float32(1))
        return args.wrapped(env)

    return make


def _make(env_id: str, kwargs: Mapping[str, Any], view: Mapping[str, Any], numbers: Sequence[str]) -> gym.Env:
    """``gym.make``, whose TypeError for an argument that the environment does not have becomes a user's error."""
    try:
        return gym.make(env_id, **kwargs, **view)
    except TypeError as error:
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if unknown is not None and unknown[1] in view:
            raise InvalidArgument(f"{env_id} takes no argument {unknown[1]!r}; {needs_pictures(numbers)}") from error
        if isinstance(error, ReinforceGenError) or unknown is None or unknown[1] not in kwargs:
            raise
        option = unknown[1].replace("_", "-")
        raise InvalidArgument(f"{env_id} takes no argument {unknown[1]!r}; leave out --{option}") from error


def num_threads(args: RunArgs) -> int:
    """Threads that step environments."""
    return args.num_threads or usable_cores()


def make_training_envs(args: RunArgs) -> ThreadVectorEnv:
    """The training environments, in threads; an episode's end and the next one's start are one step."""
    return ThreadVectorEnv(
        [env_factory(args)] * args.num_envs, num_threads(args), autoreset_mode=AutoresetMode.SAME_STEP
    )


def space_sizes(envs: ThreadVectorEnv) -> tuple[int, int]:
    """Numbers in one observation and in one action."""
    observation, action = envs.single_observation_space.shape, envs.single_action_space.shape
    assert observation is not None and action is not None  # `env_factory` checked that they are flat boxes
    return observation[0], action[0]


def training_seeds(rng: np.random.Generator, num_envs: int) -> list[int]:
    """Distinct seeds below those of evaluation. A resumed run draws new ones, so it repeats no episode."""
    return rng.choice(EVALUATION_SEED, num_envs, replace=False).tolist()


def env_spec(envs: ThreadVectorEnv) -> EnvSpec:
    """What Gymnasium's registry says about the id of the environments."""
    spec = envs.envs[0].unwrapped.spec
    assert spec is not None  # gym.make sets it
    return spec


def residual_scale(args: RunArgs, envs: ThreadVectorEnv) -> float:
    """What the environments multiply the agent's action with; 1 if they have no base policy."""
    if args.residual_scale is not None:
        return args.residual_scale
    try:
        return float(envs.envs[0].get_wrapper_attr("residual_scale"))
    except AttributeError:
        return 1.0


class Transition(NamedTuple):
    """One control step of all environments; every array is (num_envs, ...), observations of pictures are dictionaries of such."""

    obs: Any
    action: np.ndarray
    reward: np.ndarray
    after: Any
    """the observations that the actions led to, also where an episode ended"""
    terminated: np.ndarray
    done: np.ndarray
    """whether the episode was terminated or truncated"""
    succeeded: np.ndarray
    """whether an episode ended here, with success"""


class Collector:
    """Steps the training environments; knows where they are, and how their episodes ended.

    Args:
        envs: environments whose autoreset mode is SAME_STEP.
        seeds: one an environment.
    """

    def __init__(self, envs: ThreadVectorEnv, seeds: list[int]):
        self.envs = envs
        self.obs, _ = envs.reset(seed=seeds)
        self._returns = np.zeros(envs.num_envs)  # of the running episodes, so far

    def step(self, action: np.ndarray) -> Transition:
        """Take one control step with (num_envs, actions) actions; `obs` is what to act on next."""
        before, (self.obs, reward, terminated, truncated, infos) = self.obs, self.envs.step(action)
        done = terminated | truncated
        self._returns += reward
        succeeded = episode_successes(infos, done, self._returns)
        self._returns[done] = 0.0
        return Transition(before, action, reward, true_next_obs(self.obs, infos), terminated, done, succeeded)


def true_next_obs(next_obs: Any, infos: Mapping[str, Any]) -> Any:
    """(num_envs, ...) observations that the actions led to, also where an episode ended; dictionaries give dictionaries."""
    if "final_obs" not in infos:
        return next_obs
    result = copy.deepcopy(next_obs)
    for i in np.flatnonzero(infos["_final_obs"]):
        final = infos["final_obs"][i]
        if isinstance(result, dict):
            for name, array in result.items():
                array[i] = final[name]
        else:
            result[i] = final
    return result


def episode_successes(infos: Mapping[str, Any], done: np.ndarray, returns: np.ndarray) -> np.ndarray:
    """(num_envs,) whether an episode ended here with info["success"] or, lacking that, a return > 0."""
    final = infos.get("final_info", {})
    return done & (np.asarray(final["success"], bool) if "success" in final else returns > 0)
