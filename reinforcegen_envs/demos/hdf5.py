"""Demonstration files: robomimic's HDF5 layout with MimicGen's ``datagen_info``.

::

    data                         attrs: total, env_args (JSON), anything else that describes the file
    data/demo_3                  attrs: num_samples, optionally model_file, seed, ...
    data/demo_3/actions          (T, 7)
    data/demo_3/states           (T, 1 + nq + nv): time, qpos, qvel before the action; optional
    data/demo_3/obs/<key>        (T, ...) before the action; optional
    data/demo_3/next_obs/<key>   (T, ...) after it; optional
    data/demo_3/rewards, dones   (T,); optional
    data/demo_3/datagen_info     attrs: env_interface_name ("MG_Threading"), env_interface_type ("robosuite")
    .../eef_pose                 (T, 4, 4) grip site in the world, before the action
    .../target_pose              (T, 4, 4) pose that the action asks for
    .../gripper_action           (T, 1)
    .../object_poses/<name>      (T, 4, 4) root bodies in the world
    .../subtask_term_signals/<name>  (T,) 0 or 1; the final stage has none
    mask/<filter>                names of the demonstrations in a subset; optional

So robomimic trains on what is written here, and source files that MimicGen has prepared can be read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from reinforcegen_envs.errors import InvalidArgument, ReinforceGenError
from reinforcegen_envs.files import atomic_path
from reinforcegen_envs.ids import parse_env_id
from reinforcegen_envs.tasks import TASKS

INTERFACE_TYPE = "robosuite"
_PREPARE = (
    "MimicGen's prepare step makes it: python mimicgen/scripts/prepare_src_dataset.py --dataset FILE "
    "--env_interface MG_<Task> --env_interface_type robosuite"
)
_AGAIN = "make the demonstration again"
_LOAD = "; a task that is not the package's must be registered first (--task-module MODULE)"
_INFO = ("eef_pose", "target_pose", "gripper_action")  # arrays that every datagen_info holds
_ATTRIBUTE_BYTES = 60_000  # HDF5 refuses attributes above 64 KiB


class DemoFileError(ReinforceGenError, ValueError):
    """A demonstration file is missing, damaged, incomplete or made for something else."""


@dataclass(frozen=True, eq=False)
class Demo:
    """One demonstration of T control steps; arrays describe the moment before their action unless they say otherwise.

    Args:
        name: "demo_<number>"; "" lets the writer number it.
        actions: (T, 7) in [-1, 1].
        eef_pose: (T, 4, 4) grip site in the world, metres.
        object_poses: name -> (T, 4, 4) root body in the world, metres.
        target_pose: (T, 4, 4) pose that the action asks for, in the world, metres.
        gripper_action: (T, 1) in [-1, 1], +1 closes.
        subtask_term_signals: name -> (T,), 1 once the stage is over.
        states: (T, 1 + nq + nv) time, qpos, qvel; or None.
        obs: key -> (T, ...).
        next_obs: key -> (T, ...) after the action; {} or the keys of ``obs``.
        rewards: (T,) or None.
        dones: (T,) or None.
        datagen_info: further arrays of that group, e.g. "stage", "is_skill".
        attrs: what else is known: strings, numbers, booleans and small arrays, e.g. "seed", "model_file".
    """

    name: str
    actions: np.ndarray
    eef_pose: np.ndarray
    object_poses: Mapping[str, np.ndarray]
    target_pose: np.ndarray
    gripper_action: np.ndarray
    subtask_term_signals: Mapping[str, np.ndarray] = field(default_factory=dict)
    states: np.ndarray | None = None
    obs: Mapping[str, np.ndarray] = field(default_factory=dict)
    next_obs: Mapping[str, np.ndarray] = field(default_factory=dict)
    rewards: np.ndarray | None = None
    dones: np.ndarray | None = None
    datagen_info: Mapping[str, np.ndarray] = field(default_factory=dict)
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of control steps T."""
        return len(self.actions)


def task_name(env_name: str) -> str:
    """The task that an environment is for: "ReinforceGen/D1-Threading-v0", MimicGen's "Threading_D1", or the task's own name.

    Raises:
        DemoFileError: it is for none of the tasks.
    """
    try:
        task = parse_env_id(env_name)[0]
    except InvalidArgument:
        task = re.sub(r"_D\d$", "", env_name)
    if task not in TASKS:
        raise DemoFileError(f"environment name {env_name!r} is of none of the tasks {', '.join(TASKS)}{_LOAD}")
    return task


def interface_name(task: str) -> str:
    """What MimicGen's files call the interface of a task."""
    return f"MG_{task}"


class DemoWriter:
    """Write demonstrations one by one; the file appears, complete, when the ``with`` block ends well.

    Args:
        path: the file to write; an existing one is replaced at the end, not before.
        env_args: robomimic's description: "env_name" (says which task), "env_version", "type", "env_kwargs".
        attrs: further attributes of the file, of the kinds `Demo.attrs` takes; "env_args" and "total" are
            the writer's own and left out.

    Raises:
        DemoFileError: here, if env_args is for no known task or an attribute cannot be stored; from `add`;
            and at the end of the block if nothing was added. Nothing is left behind then.
        OSError: the folder cannot be made or written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        env_args: Mapping[str, Any],
        attrs: Mapping[str, Any] | None = None,
    ):
        self.path = Path(path)
        self.task = task_name(str(env_args.get("env_name", "")))
        attrs = {name: value for name, value in (attrs or {}).items() if name not in ("env_args", "total")}
        self._attrs = _storable(attrs, str(path)) | {"env_args": json.dumps(env_args)}

    def __enter__(self) -> DemoWriter:
        self._session = self._open()
        self._data = self._session.__enter__()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._session.__exit__(*error)

    @contextmanager
    def _open(self) -> Iterator[h5py.Group]:
        with atomic_path(self.path) as temporary, h5py.File(temporary, "w") as file:
            data = file.create_group("data")
            data.attrs.update(self._attrs)
            yield data
            if not len(data):
                raise DemoFileError(f"{self.path}: no demonstration was added, so no file is written")
            data.attrs["total"] = sum(int(demo.attrs["num_samples"]) for demo in data.values())

    def __len__(self) -> int:
        """Number of demonstrations added so far."""
        return len(self._data)

    def add(self, demo: Demo) -> str:
        """Append a demonstration and return the name under which it is stored.

        Raises:
            DemoFileError: an array has a wrong shape or length or is not finite, an object of the task is
                missing, the name is taken or not demo_<number>, an attribute cannot be stored.
        """
        name = demo.name or f"demo_{len(self)}"
        where = f"{self.path}: {name}"
        if not re.fullmatch(r"demo_\d+", name):
            raise DemoFileError(f"{where}: a name must be demo_<number>, or '' to be numbered")
        if name in self._data:
            raise DemoFileError(f"{where} is there already; use another name, or '' to be numbered")
        _check(demo, self.task, where)
        attrs = _storable({**demo.attrs, "num_samples": len(demo)}, where)
        optional = {"states": demo.states, "rewards": demo.rewards, "dones": demo.dones}
        group = self._data.create_group(name)
        try:
            group.attrs.update(attrs)
            _write(group, {"actions": demo.actions} | {k: v for k, v in optional.items() if v is not None})
            for key, observations in (("obs", demo.obs), ("next_obs", demo.next_obs)):
                if observations:
                    _write(group.create_group(key), observations)
            info = group.create_group("datagen_info")
            info.attrs.update(env_interface_name=interface_name(self.task), env_interface_type=INTERFACE_TYPE)
            _write(info, {key: getattr(demo, key) for key in _INFO} | dict(demo.datagen_info))
            _write(info.create_group("object_poses"), demo.object_poses)
            _write(info.create_group("subtask_term_signals"), demo.subtask_term_signals)
        except BaseException:  # a caller that goes on must not keep half a demonstration
            del self._data[name]
            raise
        return name

    def add_filter(self, name: str, demos: Sequence[str]) -> None:
        """Name a subset ("train", "valid" ...), as robomimic's filter keys do.

        Raises:
            DemoFileError: a demonstration of the subset has not been added.
        """
        missing = [demo for demo in demos if demo not in self._data]
        if missing:
            raise DemoFileError(f"{self.path}: filter {name!r} names {missing[0]}, which has not been added")
        self._data.file[f"mask/{name}"] = np.array(demos, dtype="S")


def write_demos(
    path: str | os.PathLike[str],
    demos: Iterable[Demo],
    env_args: Mapping[str, Any],
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Write a whole file at once; see `DemoWriter`.

    Raises:
        DemoFileError: as `DemoWriter`; nothing is left behind.
    """
    with DemoWriter(path, env_args, attrs) as writer:
        for demo in demos:
            writer.add(demo)


def read_demos(path: str | os.PathLike[str], task: str | None = None, filter_key: str | None = None) -> list[Demo]:
    """Read a whole file, in the order of the demonstrations' numbers.

    Args:
        path: an HDF5 file of the layout above.
        task: the task that it must be for, e.g. "Threading"; None takes any.
        filter_key: read only this subset (``mask/<filter_key>``).

    Raises:
        DemoFileError: the file is missing, not HDF5, truncated, without demonstrations, without
            ``datagen_info``, for another task, or holds arrays of wrong shape or length.
    """
    return list(iter_demos(path, task, filter_key))


def iter_demos(path: str | os.PathLike[str], task: str | None = None, filter_key: str | None = None) -> Iterator[Demo]:
    """As `read_demos`, one demonstration at a time, for files that do not fit into memory."""
    if task is not None and task not in TASKS:
        raise DemoFileError(f"unknown task {task!r}; the tasks are {', '.join(TASKS)}{_LOAD}")
    with _open(path) as data:
        for name in _names(data, filter_key, path):
            yield _read_demo(data, name, task, f"{path}: {name}")


def read_attrs(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the attributes of a file: "env_args" (as a dict), "total", and what its writer added.

    Raises:
        DemoFileError: as `read_demos`; or env_args is missing or not JSON.
    """
    with _open(path) as data:
        attrs = _read_attrs(data)
    try:
        attrs["env_args"] = json.loads(attrs["env_args"])
    except (KeyError, TypeError, ValueError) as error:
        raise DemoFileError(
            f"{path}: attribute env_args of data is missing or not JSON; make the file again"
        ) from error
    return attrs


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[h5py.Group]:
    """Yield the group ``data``; what h5py finds wrong while it is read becomes a DemoFileError."""
    if not Path(path).is_file():
        raise DemoFileError(f"no demonstration file {path}; name a file that exists")
    try:
        with h5py.File(path, "r") as file:
            if "data" not in file:
                raise DemoFileError(f"{path} has no group 'data'; it is not a file of robomimic's layout")
            data = _group(file, "data")
            if not len(data):
                raise DemoFileError(f"{path} holds no demonstrations; collect or generate some first")
            yield data
    except (OSError, RuntimeError, KeyError, TypeError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DemoFileError(f"{path} is not a complete HDF5 file ({reason}); copy or make it again") from error


def _group(parent: h5py.Group, name: str) -> h5py.Group:
    item = parent[name]
    if not isinstance(item, h5py.Group):
        raise TypeError(f"{item.name} is not a group")
    return item


def _array(parent: h5py.Group, name: str) -> np.ndarray:
    item = parent[name]
    if not isinstance(item, h5py.Dataset):
        raise TypeError(f"{item.name} is not a dataset")
    return item[()]


def _arrays(parent: h5py.Group, name: str) -> dict[str, np.ndarray]:
    """All datasets below a group, by path; none if there is no such group."""
    found: dict[str, np.ndarray] = {}

    def visit(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[path] = item[()]

    if name in parent:
        _group(parent, name).visititems(visit)
    return found


def _names(data: h5py.Group, filter_key: str | None, path: str | os.PathLike[str]) -> list[str]:
    """The demonstrations to read, demo_10 after demo_9."""

    def number(name: str) -> int:
        digits = re.search(r"\d+$", name)
        return int(digits.group()) if digits else -1

    names = sorted((str(name) for name in data), key=lambda name: (number(name), name))
    if filter_key is None:
        return names
    masks = _arrays(data.file, "mask")
    if filter_key not in masks:
        raise DemoFileError(f"{path} has no filter {filter_key!r}; it has: {', '.join(masks) or 'none'}")
    chosen = {name.decode() for name in masks[filter_key]}
    if chosen - set(names):
        raise DemoFileError(f"{path}: filter {filter_key!r} names {min(chosen - set(names))}, which is not there")
    return [name for name in names if name in chosen]


def _read_demo(data: h5py.Group, name: str, task: str | None, where: str) -> Demo:
    group = _group(data, name)
    if "actions" not in group:
        raise DemoFileError(f"{where} has no actions; {_AGAIN}")
    if "datagen_info" not in group:
        raise DemoFileError(f"{where} has no datagen_info; {_PREPARE}")
    if task is not None:
        needed = interface_name(task)
        interface = _plain(_group(group, "datagen_info").attrs.get("env_interface_name", needed))
        if interface != needed:
            raise DemoFileError(f"{where} is for {interface}, but {needed} is needed; use a file of task {task}")
    info = _arrays(group, "datagen_info")
    missing = [key for key in _INFO if key not in info]
    if missing:
        raise DemoFileError(f"{where} has no datagen_info/{missing[0]}; {_PREPARE}")

    def take(prefix: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(prefix): info.pop(key) for key in tuple(info) if key.startswith(prefix)}

    def optional(key: str) -> np.ndarray | None:
        return _array(group, key) if key in group else None

    attrs = _read_attrs(group)
    attrs.pop("num_samples", None)
    demo = Demo(
        name=name,
        actions=_array(group, "actions"),
        eef_pose=info.pop("eef_pose"),
        object_poses=take("object_poses/"),
        target_pose=info.pop("target_pose"),
        gripper_action=info.pop("gripper_action"),
        subtask_term_signals=take("subtask_term_signals/"),
        states=optional("states"),
        obs=_arrays(group, "obs"),
        next_obs=_arrays(group, "next_obs"),
        rewards=optional("rewards"),
        dones=optional("dones"),
        datagen_info=info,
        attrs=attrs,
    )
    _check(demo, task, where)
    return demo


def _write(group: h5py.Group, arrays: Mapping[str, np.ndarray]) -> None:
    for name, value in sorted(arrays.items()):  # so that equal demonstrations make equal files
        # Neighbouring time steps compress well with bytes shuffled; source demonstrations are committed.
        group.create_dataset(name, data=value, compression="gzip", shuffle=True)


def _plain(value: Any) -> Any:
    """An attribute as h5py returns it -> str, bool, int, float or array."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _read_attrs(group: h5py.Group) -> dict[str, Any]:
    return {name: _plain(value) for name, value in group.attrs.items()}


def _storable(attrs: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The attributes by name, checked so that they come back from the file as they went in."""
    for name, value in attrs.items():
        if isinstance(value, str):
            continue
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise DemoFileError(
                f"{where}: attribute {name!r} is a {type(value).__name__}; "
                "give a string (json.dumps), a number or an array"
            )
        if array.nbytes > _ATTRIBUTE_BYTES:
            raise DemoFileError(
                f"{where}: attribute {name!r} has {array.nbytes} bytes, HDF5 takes {_ATTRIBUTE_BYTES}; "
                "put it into datagen_info"
            )
    return dict(sorted(attrs.items()))


def _check(demo: Demo, task: str | None, where: str) -> None:
    """Check shapes, lengths, finiteness, and that the task's objects are there."""
    pose, steps = (4, 4), len(demo) if np.ndim(demo.actions) else 0
    arrays: dict[str, tuple[np.ndarray | None, tuple[int, ...] | None]] = {
        "actions": (demo.actions, (7,)),
        "eef_pose": (demo.eef_pose, pose),
        "target_pose": (demo.target_pose, pose),
        "gripper_action": (demo.gripper_action, (1,)),
        "rewards": (demo.rewards, ()),
        "dones": (demo.dones, ()),
        "states": (demo.states, None),
    }
    arrays |= {f"object_poses/{name}": (value, pose) for name, value in demo.object_poses.items()}
    arrays |= {f"subtask_term_signals/{name}": (value, ()) for name, value in demo.subtask_term_signals.items()}
    arrays |= {f"obs/{name}": (value, None) for name, value in demo.obs.items()}
    arrays |= {f"next_obs/{name}": (value, None) for name, value in demo.next_obs.items()}
    for name, (value, shape) in arrays.items():
        if value is None:
            continue
        if np.ndim(value) == 0 or (shape is not None and value.shape[1:] != shape):
            expected = f"({', '.join(['T', *map(str, shape)]) if shape is not None else 'T, ...'})"
            raise DemoFileError(f"{where}: {name} has shape {np.shape(value)}, not {expected}; {_AGAIN}")
        if len(value) != steps:
            raise DemoFileError(f"{where}: {name} has {len(value)} steps, but actions has {steps}; {_AGAIN}")
        if value.dtype.kind not in "biuf" or not np.isfinite(value).all():
            raise DemoFileError(f"{where}: {name} holds something that is not a finite number; {_AGAIN}")
    if steps == 0:
        raise DemoFileError(f"{where} has no steps; {_AGAIN}")
    missing = [name for name in TASKS[task].objects if name not in demo.object_poses] if task else []
    if missing:
        raise DemoFileError(
            f"{where} has no poses of {missing[0]!r}, only of {', '.join(demo.object_poses) or 'nothing'}; "
            f"a file of task {task} is needed"
        )
