"""The commands' workers on an existing Ray cluster, with the interface of `workers.Workers`: results in the order of the jobs.

    with open_workers("auto", 0, make_env, (task,)) as workers:
        for result in workers.map(play, seeds):
            ...

A job is a Ray task. Ray does it again elsewhere when its process or its node dies, and uses nodes that join; since a job's
result depends on the job alone, the results are those of one process, bit for bit. Every node must have this package, in the
same versions, and the files that the arguments name, under the same paths.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import platform
import signal
import socket
import threading
import traceback
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from reinforcegen_envs import workers
from reinforcegen_envs.errors import InvalidArgument, MissingPackage
from reinforcegen_envs.workers import RemoteTraceback, WorkerError, Workers

State = TypeVar("State")
Job = TypeVar("Job")
Result = TypeVar("Result")

# How often Ray does a job again whose process or node died. Without a limit, a job that always kills its process (memory) would
# be done for ever.
RETRIES = 20
ANSWER = 10.0  # seconds that an address has for an answer; Ray itself would try for minutes
LOOK = 1.0  # seconds between two looks at how many CPUs the cluster has
SAME = ("reinforcegen-envs", "mujoco", "numpy", "numba")  # packages of which results depend on the version


def open_workers(
    ray: str | None, count: int, start: Callable[..., State], args: Sequence[Any] = (), jobs: int | None = None
) -> Workers[State] | RayWorkers[State]:
    """Workers on the Ray cluster at an address, or, with None, processes on this machine; arguments as `Workers` has them."""
    return Workers(count, start, args, jobs) if ray is None else RayWorkers(ray, count, start, args, jobs)


class RayWorkers(Generic[State]):
    """Processes of a Ray cluster that do jobs, each with a state of its own; a context manager.

    Args:
        address: "auto" (the cluster that this machine belongs to), HOST:PORT of the head, or ray://HOST:PORT of a client server.
        count: how many jobs at the same time; 0 means as many as the cluster has CPUs, also while it grows.
        start, args, jobs: as in `Workers`.

    Raises:
        MissingPackage: Ray is not installed; from ``with``, as the next.
        InvalidArgument: no cluster answers at the address.
    """

    def __init__(
        self, address: str, count: int, start: Callable[..., State], args: Sequence[Any] = (), jobs: int | None = None
    ):
        self._address, self._count, self._jobs = address, count, jobs
        self._start, self._args = start, tuple(args)
        self._pending: dict[Any, int] = {}  # reference of a result -> number of the job

    def __enter__(self) -> RayWorkers[State]:
        self._ray, self._own = connect(self._address)
        setup = (uuid.uuid4().hex, os.getcwd(), versions(), tuple(workers._first_calls), self._start, self._args)
        self._setup = self._ray.put(setup)
        self._task = self._ray.remote(max_retries=RETRIES)(_serve)
        return self

    def __exit__(self, *_: object) -> None:
        for reference in self._pending:
            with contextlib.suppress(Exception):
                self._ray.cancel(reference, force=True)
        self._pending = {}
        if self._own:
            self._ray.shutdown()

    def map(self, work: Callable[[State, Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Do all jobs; yields ``work(state, job)`` in the order of the jobs. Call it once.

        Raises:
            WorkerError: a job's process died again and again, or the cluster is gone.
            Exception: what ``start`` or ``work`` raised on a node.
        """
        todo, done, due = enumerate(jobs), dict[int, Result](), 0
        while True:
            try:
                room = self._room() - len(self._pending)
                while room > 0 and (item := next(todo, None)) is not None:
                    self._pending[self._task.remote(self._setup, work, item[1])] = item[0]
                    room -= 1
                if not self._pending:
                    return
                ready, _ = self._ray.wait(list(self._pending), timeout=LOOK)
                for reference in ready:
                    kind, content = self._ray.get(reference)
                    number = self._pending.pop(reference)
                    if kind == "error":
                        error, remote = content
                        error.__cause__ = RemoteTraceback(remote)
                        raise error
                    done[number] = content
            except self._ray.exceptions.RayError as error:
                reason = " ".join(str(error).split())
                raise WorkerError(f"the Ray cluster could not do a job ({reason}). Start the command again") from error
            while due in done:
                yield done.pop(due)
                due += 1

    def _room(self) -> int:
        """How many jobs may be under way or wait at the nodes."""
        # Twice the CPUs, so that a node which has finished a job need not wait for this process to hear of it.
        room = self._count or 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        return room if self._jobs is None else min(room, max(1, self._jobs))


def connect(address: str) -> tuple[Any, bool]:
    """Connect this process to a cluster, unless it is; returns Ray, and whether this call has connected.

    Raises:
        MissingPackage: Ray is not installed.
        InvalidArgument: no cluster answers at the address.
    """
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.exceptions  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingPackage(
            "ray is not installed, and --ray needs it: pip install 'reinforcegen-envs[ray]'"
        ) from error
    own = not ray.is_initialized()  # else the caller has connected, and keeps the connection
    if own:
        _connect(ray, address)
    return ray, own


def _connect(ray: Any, address: str) -> None:
    """Connect this process to a cluster; signals are heard as before."""
    wrong = InvalidArgument(
        f"no Ray cluster answers at {address!r}; start one (ray start --head) and give its HOST:PORT, ray://HOST:PORT, or "
        "auto on one of its machines"
    )
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", address)  # as Ray has it
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if address != "auto" and not (colon and host and port.isdecimal()):
        raise wrong
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        if address != "auto":
            socket.create_connection((host, int(port)), ANSWER).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise wrong from error
    finally:
        if main:  # Ray's own handler would end the process without a word
            signal.signal(signal.SIGTERM, before)


def versions() -> dict[str, str]:
    """Package -> version of what results depend on; without what is not installed, such as a bare checkout."""
    found = {}
    for name in SAME:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def settle(folder: str, expected: dict[str, str]) -> None:
    """On a node: go to the folder in which the work was started, after checking that it has the same versions.

    Raises:
        WorkerError: it has other versions than those expected.
    """
    if (found := versions()) != expected:
        raise WorkerError(
            f"node {platform.node()} has {found} and the machine that started the work {expected}: results would "
            "differ; install the same versions everywhere"
        )
    with contextlib.suppress(OSError):  # relative paths of files that all nodes share
        os.chdir(folder)


_state: tuple[str, Any] = ("", None)  # on a node: whose state this process holds, and the state


def _serve(setup: Any, work: Callable[[Any, Any], Any], job: Any) -> tuple[str, Any]:
    """On a node: do a job, with the state that this process made for the same workers earlier, or makes now."""
    global _state
    key, folder, expected, first_calls, start, args = setup
    try:
        if _state[0] != key:
            settle(folder, expected)
            for call, arguments in first_calls:
                call(*arguments)
            _state = (key, start(*args))
        return "result", work(_state[1], job)
    except Exception as error:
        return "error", (workers.portable(error), traceback.format_exc())
