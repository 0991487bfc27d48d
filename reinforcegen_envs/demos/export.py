"""Hand demonstration files on to other formats."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np

from reinforcegen_envs.demos.hdf5 import Demo, DemoFileError, iter_demos
from reinforcegen_envs.errors import InvalidArgument, MissingPackage
from reinforcegen_envs.files import check_output_folder


def export_minari(path: str | os.PathLike[str], dataset_id: str, env_id: str | None = None, **metadata: Any) -> Any:
    """Make a local Minari dataset from a file whose demonstrations hold ``obs/state``.

    Minari wants T + 1 observations for T actions: the last is that of ``next_obs``. Files without it have the last one
    repeated: mask the bootstrap on terminations, as usual. Without rewards in the file a demonstration counts as a success: 1 on
    its last step.

    Args:
        path: a demonstration file (`reinforcegen_envs.demos.hdf5`).
        dataset_id: Minari's name, e.g. "reinforcegen/d2-threading/generated-v0".
        env_id: the environment that the observations are of, e.g. the Hybrid id that a generated file names; gives the
            spaces and lets Minari rebuild it. None takes unbounded observations of the stored size.
        metadata: passed on to Minari: author, author_email, code_permalink, algorithm_name, description ...

    Returns:
        The `minari.MinariDataset`.

    Raises:
        MissingPackage: Minari is not installed.
        DemoFileError: as `read_demos`; or ``obs/state`` is missing or not of the environment's size.
        InvalidArgument: ``dataset_id`` is not a name of a dataset, or one of this name exists, or its folder cannot be
            written; said before the file is opened.
    """
    try:
        import minari
        from minari.dataset.minari_dataset import parse_dataset_id
        from minari.storage import get_dataset_path
    except ImportError as error:
        raise MissingPackage("export_minari needs Minari: pip install 'minari>=0.5.3,<0.6'") from error

    try:
        parse_dataset_id(dataset_id)
    except (TypeError, ValueError) as error:
        raise InvalidArgument(
            f"{dataset_id!r} is not a name of a Minari dataset; choose one such as 'reinforcegen/d2-threading/generated-v0'"
        ) from error
    folder = get_dataset_path(dataset_id)
    if os.path.exists(folder):
        raise InvalidArgument(f"Minari dataset {dataset_id!r} exists in {folder}; choose another name or version")
    check_output_folder(folder)
    size = state_size(next(iter_demos(path)), path)
    observation_space: gym.Space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)
    action_space: gym.Space = gym.spaces.Box(-1.0, 1.0, (7,), np.float32)
    if env_id is not None:
        env = gym.make(env_id)
        observation_space, action_space = env.observation_space, env.action_space
        env.close()
    if observation_space.shape != (size,):
        raise DemoFileError(
            f"{path} holds states of size {size}, but {env_id} observes {observation_space.shape}; "
            "export with the environment that the file was made with"
        )

    def episodes() -> Iterator[Any]:
        for number, demo in enumerate(iter_demos(path)):
            if state_size(demo, path) != size:
                raise DemoFileError(f"{path}: {demo.name} has states of another size than the first one")
            yield _episode(demo, number)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # Minari warns of every piece of metadata left out
            return minari.create_dataset_from_buffers(
                dataset_id,
                episodes(),  # type: ignore[arg-type] (it only iterates: one demonstration in memory at a time)
                env=env_id,
                observation_space=observation_space,
                action_space=action_space,
                **metadata,
            )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def state_size(demo: Demo, path: str | os.PathLike[str]) -> int:
    """Length of a demonstration's ``obs/state``.

    Raises:
        DemoFileError: it has none, or not one of shape (T, size).
    """
    if "state" not in demo.obs or demo.obs["state"].ndim != 2:
        raise DemoFileError(
            f"{path}: {demo.name} has no obs/state of shape (T, size), obs holds {list(demo.obs)}; "
            "export a file of generated demonstrations"
        )
    return demo.obs["state"].shape[1]


def outcome(demo: Demo) -> tuple[np.ndarray, np.ndarray]:
    """(T,) rewards, float64, and dones, bool; without any in the file a demonstration counts as a success: 1 on its last step."""
    last = np.arange(len(demo)) == len(demo) - 1
    rewards = last.astype(np.float64) if demo.rewards is None else demo.rewards.astype(np.float64)
    return rewards, last & (rewards > 0) if demo.dones is None else demo.dones.astype(bool)


def _episode(demo: Demo, number: int) -> Any:
    from minari.data_collector.episode_buffer import EpisodeBuffer

    states = np.asarray(demo.obs["state"], np.float32)
    last = np.arange(len(demo)) == len(demo) - 1
    rewards, dones = outcome(demo)
    after = demo.next_obs.get("state", states)
    seed = demo.attrs.get("reset_seed", demo.attrs.get("seed"))
    return EpisodeBuffer(
        id=number,
        seed=int(seed) if np.ndim(seed) == 0 and seed is not None else None,
        observations=np.concatenate([states, np.asarray(after[-1:], np.float32)]),  # type: ignore[arg-type] (stored as an array)
        actions=np.asarray(demo.actions, np.float32),  # type: ignore[arg-type]
        rewards=rewards,  # type: ignore[arg-type]
        terminations=dones,  # type: ignore[arg-type]
        truncations=last & ~dones,  # type: ignore[arg-type]
    )
