"""Start pools that are made when they are first asked for, and kept in the user's cache folder.

A pool's file is named after everything that its starts depend on, so one that is there is right. It appears whole or not at
all, and of several processes that want it, one makes it while the others wait.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, Protocol

import mujoco
from tqdm import tqdm

from reinforcegen_envs import caching
from reinforcegen_envs.caching import VARIABLE, CacheError, cache_folder
from reinforcegen_envs.engine import Snapshot
from reinforcegen_envs.planning.search import has_pybullet
from reinforcegen_envs.wrappers.pool import FORMAT, PoolError, StartPool

AUTO = "auto"  # what asks for a stored pool where a file may be named
ROOMS = ("engine", "models", "perception", "planning", "policies", "sim", "tasks")  # of the package
SIZE = 200  # starts, if nobody says how many


class Starts(Protocol):
    """An environment whose resets end where a skill starts."""

    def reset(self, *, seed: int | None = None) -> Any: ...

    def get_state(self) -> Snapshot: ...


def stored_pool(settings: Mapping[str, Any], files: Sequence[Path], make: Callable[[], Starts], threads: int) -> Path:
    """The file of a pool, which is made if it is not there yet.

    Args:
        settings: what the pool's starts depend on, as JSON knows it: "task", "variant", "stage", "perception" and "count" (how
            many starts), and whatever else. It becomes the pool's manifest.
        files: whose content they depend on as well; one that is missing counts as such.
        make: gives a new environment. Start i is its state after a reset with seed i.
        threads: that make starts side by side, each in an environment of its own; they change nothing else.

    Raises:
        CacheError: the cache folder cannot be written, and the pool is not there.
        ReinforceGenError: the stages before the skill hardly ever succeed.
    """
    path = _folder() / f"{_name(settings)}-{_key(settings, files)}.npz".lower()
    if _usable(path):
        return path
    with _locked(path, settings):
        if not _usable(path):  # nobody has made it in the meantime
            snapshots = _make(int(settings["count"]), make, threads, path, _name(settings))
            try:
                StartPool.of(snapshots, dict(settings)).save(path)
            except OSError as error:
                raise _cannot_keep(path, settings, error) from error
    return path


def _folder() -> Path:
    return cache_folder() / "pools"


def _name(settings: Mapping[str, Any]) -> str:
    return "-".join(str(settings[part]) for part in ("task", "variant", "stage"))


def _key(settings: Mapping[str, Any], files: Sequence[Path]) -> str:
    """16 hexadecimal digits that differ wherever starts might."""
    search = "pybullet" if has_pybullet() else "own"
    versions = {
        "format": FORMAT,
        "mujoco": mujoco.__version__,
        "package": _version(),
        "code": _code(),
        "search": search,
    }
    digest = hashlib.sha256(json.dumps([dict(settings), versions], sort_keys=True).encode())
    for file in files:
        content = file.read_bytes() if file.is_file() else b"missing"
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


@functools.cache
def _code() -> str:
    """16 hexadecimal digits of the sources that what happens in an environment depends on: an installed copy may be edited."""
    package = Path(caching.__file__).parent
    folders = [Path(__file__).parent, *(package / room for room in ROOMS)]
    files = [*package.glob("*.py"), *(file for folder in folders for file in folder.rglob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(files))).hexdigest()[:16]


def _version() -> str:
    """The package's, as it was installed."""
    try:
        return importlib.metadata.version("reinforcegen-envs")
    except importlib.metadata.PackageNotFoundError:  # imported from where it lies
        return "not installed"


def _usable(path: Path) -> bool:
    """Whether a pool is there; a damaged one is not."""
    if not path.is_file():
        return False
    try:
        StartPool.load(path)
    except PoolError:
        return False
    return True


@contextlib.contextmanager
def _locked(path: Path, settings: Mapping[str, Any]) -> Generator[None]:
    """Inside, no other process that does the same is inside for this pool. The lock ends with its process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path.with_suffix(".lock"), "w")  # noqa: SIM115
    except OSError as error:
        raise _cannot_keep(path, settings, error) from error
    with file:
        _lock(file, settings)
        yield


def _lock(file: IO[str], settings: Mapping[str, Any]) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        tqdm.write(f"another process makes the start pool of {_name(settings)}; waiting for it", file=sys.stderr)
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        # A file system without locks: several may make the pool, all the same one, and the last to finish puts it there.
        pass


def _cannot_keep(path: Path, settings: Mapping[str, Any], error: OSError) -> CacheError:
    return CacheError(
        f"the start pool of {_name(settings)} cannot be kept: {path.parent} cannot be written ({error.strerror}). Set "
        f"{VARIABLE} to a folder that can be, name a file of starts (pool=FILE, from reinforcegen pool), or do without a pool "
        "(pool=None: every reset plays the stages before)"
    )


def _make(count: int, make: Callable[[], Starts], threads: int, path: Path, name: str) -> list[Snapshot]:
    """The starts, in the order of their seeds.

    Threads, not processes: those would import the user's main module anew, which a script that only names an id may not
    have guarded, and a worker process of somebody's vector environment may not have children at all.
    """
    threads = max(1, min(threads, count))
    free = SimpleQueue[Starts]()
    for _ in range(threads):
        free.put(make())

    def start(seed: int) -> Snapshot:
        env = free.get()
        try:
            env.reset(seed=seed)
            return env.get_state()
        finally:
            free.put(env)

    tqdm.write(f"making {count} starts of {name}, this once; they are kept in {path}", file=sys.stderr)
    with ThreadPoolExecutor(threads, thread_name_prefix="start-pool") as executor:
        return list(tqdm(executor.map(start, range(count)), total=count, unit="start", desc=name))
