"""Hand demonstration files on to LeRobot, as a dataset of its format v3.0."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from reinforcegen_envs.demos.export import outcome, state_size
from reinforcegen_envs.demos.hdf5 import Demo, DemoFileError, iter_demos, read_attrs, task_name
from reinforcegen_envs.errors import InvalidArgument, MissingPackage
from reinforcegen_envs.files import as_path, check_output_folder
from reinforcegen_envs.sim.simulation import CONTROL_PERIOD
from reinforcegen_envs.tasks import TASKS

VERSION = "v3.0"  # of the format, as LeRobot 0.4 writes it
ROBOT = "panda"
STATE, ACTION = "observation.state", "action"
FILES_PER_CHUNK = 1000
FILE_MB = 100  # of arrays in a data file, before compression
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
AXES = ("x", "y", "z", "rx", "ry", "rz", "gripper")


def export_lerobot(
    path: str | os.PathLike[str], folder: str | os.PathLike[str], instruction: str | None = None, label: bool = False
) -> Path:
    """Write a LeRobot dataset (format v3.0) from a file whose demonstrations hold ``obs/state``.

    A frame is a row of the file: of generated demonstrations a control step of a skill, connects being no rows; its timestamp
    counts rows, at 20 a second. Columns: ``observation.state`` and ``action`` (float32), ``next.reward``, ``next.done`` and
    ``next.success``, and LeRobot's own.

    Args:
        path: a demonstration file (`reinforcegen_envs.demos.hdf5`).
        folder: new or empty; `LeRobotDataset(NAME, root=folder)` reads it.
        instruction: the task in words, for policies that read; default: the first line of the task's docstring.
        label: actions without the noise that generation adds (``datagen_info/label_action``), instead of those executed.

    Returns:
        the folder.

    Raises:
        MissingPackage: pandas or pyarrow is not installed.
        DemoFileError: as `read_demos`; ``obs/state`` is missing, or ``label_action`` where it is asked for.
        InvalidArgument: the folder holds something, or cannot be written; said before the file is opened.
    """
    try:
        import pandas
        import pyarrow  # noqa: F401 (pandas writes with it)
    except ImportError as error:
        raise MissingPackage(
            f"export_lerobot needs pandas and pyarrow ({error}): pip install 'reinforcegen-envs[lerobot]'"
        ) from error
    folder = as_path(folder, "folder")
    check_output_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise InvalidArgument(f"{folder} holds something; name a new or an empty folder")
    task = task_name(str(read_attrs(path)["env_args"]["env_name"]))
    size = state_size(next(iter_demos(path)), path)
    words = instruction or (TASKS[task].__doc__ or task).strip().splitlines()[0].rstrip(".")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        writer = _Writer(temporary, words, pandas)
        for demo in iter_demos(path):
            if state_size(demo, path) != size:
                raise DemoFileError(f"{path}: {demo.name} has states of another size than the first one")
            writer.add(_columns(demo, path, label))
        writer.close(_features(size))
        temporary.chmod(0o755)
        if folder.is_dir():
            folder.rmdir()
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _columns(demo: Demo, path: str | os.PathLike[str], label: bool) -> dict[str, np.ndarray]:
    """An episode's columns, (T, ...) each."""
    actions = demo.actions
    if label:
        if "label_action" not in demo.datagen_info:
            raise DemoFileError(f"{path}: {demo.name} has no datagen_info/label_action; leave label out")
        actions = demo.datagen_info["label_action"]
    rewards, dones = outcome(demo)
    return {
        STATE: np.asarray(demo.obs["state"], np.float32),
        ACTION: np.asarray(actions, np.float32),
        "next.reward": rewards.astype(np.float32),
        "next.done": dones,
        "next.success": dones & (rewards > 0),
    }


def _features(size: int) -> dict[str, Any]:
    """What LeRobot calls features: type, shape and names of every column."""

    def one(kind: str) -> dict[str, Any]:
        return {"dtype": kind, "shape": [1], "names": None}

    return {
        STATE: {"dtype": "float32", "shape": [size], "names": [f"state_{i}" for i in range(size)]},
        ACTION: {"dtype": "float32", "shape": [len(AXES)], "names": list(AXES)},
        "next.reward": one("float32"),
        "next.done": one("bool"),
        "next.success": one("bool"),
        "timestamp": one("float32"),
        **{name: one("int64") for name in ("frame_index", "episode_index", "index", "task_index")},
    }


class _Writer:
    """Writes episodes into parquet files, and what LeRobot wants to know of them; statistics at the end.

    It holds one data file's episodes at a time, and of all of them the numbers that statistics are made of.
    """

    def __init__(self, root: Path, words: str, pandas: Any):
        self._root, self._words, self._pandas = root, words, pandas
        self._waiting: list[dict[str, np.ndarray]] = []
        self._bytes = self._files = self._frames = 0
        self._episodes: list[dict[str, Any]] = []
        self._all: dict[str, list[np.ndarray]] = {}

    def add(self, columns: Mapping[str, np.ndarray]) -> None:
        """One episode."""
        steps, number = len(columns[ACTION]), len(self._episodes)
        index = np.arange(steps)
        columns = {
            **columns,
            "timestamp": (index * CONTROL_PERIOD).astype(np.float32),
            "frame_index": index,
            "episode_index": np.full(steps, number),
            "index": self._frames + index,
            "task_index": np.zeros(steps, np.int64),
        }
        size = sum(column.nbytes for column in columns.values())
        if self._waiting and self._bytes + size > FILE_MB * 2**20:
            self._write()
        chunk, file = divmod(self._files, FILES_PER_CHUNK)
        self._episodes.append({
            "episode_index": number, "tasks": [self._words], "length": steps, "data/chunk_index": chunk, "data/file_index": file,
            "dataset_from_index": self._frames, "dataset_to_index": self._frames + steps,
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
            **{f"stats/{name}/{kind}": value for name, column in columns.items() for kind, value in _statistics(column).items()},
        })  # fmt: skip
        for name, column in columns.items():
            self._all.setdefault(name, []).append(column)
        self._waiting.append(dict(columns))
        self._bytes += size
        self._frames += steps

    def _write(self) -> None:
        """The episodes that wait, as one data file."""
        columns = {name: np.concatenate([episode[name] for episode in self._waiting]) for name in self._waiting[0]}
        chunk, file = divmod(self._files, FILES_PER_CHUNK)
        self._parquet({name: list(column) for name, column in columns.items()}, _file("data", chunk, file))
        self._waiting, self._bytes, self._files = [], 0, self._files + 1

    def _parquet(self, columns: Mapping[str, Any], name: str, **more: Any) -> None:
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        self._pandas.DataFrame(columns, **more).to_parquet(target)

    def close(self, features: Mapping[str, Any]) -> None:
        """What there is beside the data."""
        self._write()
        episodes = {name: [episode[name] for episode in self._episodes] for name in self._episodes[0]}
        self._parquet(episodes, _file("meta/episodes", 0, 0))
        self._parquet({"task_index": [0]}, "meta/tasks.parquet", index=self._pandas.Index([self._words], name="task"))
        statistics = {name: _statistics(np.concatenate(parts)) for name, parts in self._all.items()}
        count = len(self._episodes)
        info = {
            "codebase_version": VERSION, "robot_type": ROBOT, "total_episodes": count, "total_frames": self._frames,
            "total_tasks": 1, "chunks_size": FILES_PER_CHUNK, "data_files_size_in_mb": FILE_MB, "video_files_size_in_mb": 200,
            "fps": round(1 / CONTROL_PERIOD), "splits": {"train": f"0:{count}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet", "video_path": None,
            "features": dict(features),
        }  # fmt: skip
        for name, document in (("stats", statistics), ("info", info)):
            (self._root / "meta" / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")


def _file(kind: str, chunk: int, file: int) -> str:
    return f"{kind}/chunk-{chunk:03d}/file-{file:03d}.parquet"


def _statistics(column: np.ndarray) -> dict[str, list[Any]]:
    """Minimum, maximum, mean, standard deviation and quantiles over the rows, and their number."""
    numbers = column.reshape(len(column), -1).astype(np.float64)
    values = {name: getattr(numbers, name)(axis=0) for name in ("min", "max", "mean", "std")}
    values |= {"count": np.array([len(numbers)])}
    values |= {name: np.quantile(numbers, part, axis=0) for name, part in QUANTILES.items()}
    return {name: value.tolist() for name, value in values.items()}
