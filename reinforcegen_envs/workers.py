"""The worker processes of the commands: results in order, nothing left behind.

    with Workers(8, make_env, (task,)) as workers:
        for result in workers.map(play, seeds):  # play(env, seed), in one of 8 processes
            ...

A worker that dies is an error that names it; workers end with their parent, however that ends.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import multiprocessing.resource_tracker as resource_tracker
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from reinforcegen_envs.errors import ReinforceGenError

State = TypeVar("State")
Job = TypeVar("Job")
Result = TypeVar("Result")

UNGUARDED = 86  # what a worker exits with whose main module wants workers of its own while it is being imported
_first_calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []


class WorkerError(ReinforceGenError, RuntimeError):
    """A worker process ended before its work was done."""


class RemoteTraceback(Exception):
    """Where an error was raised in a worker: the text of its traceback."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def in_every_worker(call: Callable[..., Any], *args: Any) -> None:
    """Have all workers that start from now on call ``call(*args)`` first, e.g. to import what registers a task."""
    if (call, args) not in _first_calls:
        _first_calls.append((call, args))


class Workers(Generic[State]):
    """Processes that do jobs, each with a state of its own; a context manager.

    They are spawned, since forked children would inherit MuJoCo's and numba's state half set up. One worker is none: the
    jobs are done in this process.

    Args:
        count: how many; 0 means as many as there are `usable_cores`.
        start: makes a worker's state from ``args``; importable, like everything that workers get and give.
        args: of ``start``.
        jobs: how many jobs there will be, if that is known; there are no more workers than that.
        note: gets what workers report while they work; ``start`` is then called with a function that reports, and ``args``.
    """

    def __init__(
        self,
        count: int,
        start: Callable[..., State],
        args: Sequence[Any] = (),
        jobs: int | None = None,
        note: Callable[[Any], object] | None = None,
    ):
        count = count or usable_cores()
        self.count = max(1, count if jobs is None else min(count, jobs))
        self._start, self._args, self._note = start, tuple(args), note
        self._processes: dict[Connection, Any] = {}

    def __enter__(self) -> Workers[State]:
        if self.count == 1:
            reports = () if self._note is None else (self._note,)
            self._state = self._start(*reports, *self._args)
            return self
        if getattr(multiprocessing.current_process(), "_inheriting", False):
            # This is a worker that imports the main module, which has no guard; its parent says so.
            raise SystemExit(UNGUARDED)
        try:
            with _quiet_start():
                for _ in range(self.count):
                    self._spawn()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, _first_calls, self._start, self._args, self._note is not None)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()  # so that the pipe ends with the worker
        self._processes[ours] = process

    def _stop(self) -> None:
        """End all workers, whatever they are at: they own nothing that could be left half done."""
        for process in self._processes.values():
            process.kill()
        for connection, process in self._processes.items():
            process.join()
            connection.close()
        self._processes = {}

    def map(self, work: Callable[[State, Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Do all jobs; yields ``work(state, job)`` in the order of the jobs. Call it once.

        A job is taken from ``jobs`` when a worker is free to do it.

        Raises:
            WorkerError: a worker died.
            Exception: what ``start`` or ``work`` raised in a worker.
        """
        if not self._processes:
            for job in jobs:
                yield work(self._state, job)
            return
        todo, done, due = enumerate(jobs), dict[int, Result](), 0
        running: dict[Connection, int] = {}  # connection -> number of the job
        free = list(self._processes)
        while True:
            while free and (item := next(todo, None)) is not None:
                connection = free.pop()
                self._send(connection, (work, item[1]))
                running[connection] = item[0]
            while due in done:
                yield done.pop(due)
                due += 1
            if not running:
                return
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                kind, content = self._receive(connection)
                if kind == "result":
                    done[running.pop(connection)] = content
                    free.append(connection)
                elif kind == "note":
                    assert self._note is not None
                    self._note(content)
                else:
                    error, remote = content
                    error.__cause__ = RemoteTraceback(remote)
                    raise error

    def _send(self, connection: Connection, message: Any) -> None:
        try:
            connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            raise self._obituary(connection) from None

    def _receive(self, connection: Connection) -> tuple[str, Any]:
        try:
            return connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._obituary(connection) from None

    def _obituary(self, connection: Connection) -> WorkerError:
        process = self._processes[connection]
        process.join(5.0)  # the pipe ends a little before the process
        code = process.exitcode
        if code == UNGUARDED:
            return WorkerError(
                "worker processes import the main module anew, and yours starts workers when it is imported; put that "
                "under `if __name__ == '__main__':`, or use workers=1"
            )
        if code is not None and code < 0:
            how = f"was ended by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += " (the system does that when memory runs out: use fewer workers)"
        else:
            how = f"exited with status {code}; see what it printed above"
        return WorkerError(f"worker process {process.pid} {how}. Start the command again")


def _serve(
    connection: Connection,
    first_calls: Sequence[tuple[Callable[..., Any], tuple[Any, ...]]],
    start: Callable[..., Any],
    args: tuple[Any, ...],
    reports: bool,
) -> None:
    """In a worker: make the state, then do jobs until the parent has no more."""
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(value: Any) -> None:
        connection.send(("note", value))

    try:
        for call, arguments in first_calls:
            call(*arguments)
        state = start(*((report,) if reports else ()), *args)
        while True:
            work, job = connection.recv()
            connection.send(("result", work(state, job)))
    except EOFError:
        pass
    except Exception as error:
        connection.send(("error", (portable(error), traceback.format_exc())))


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone, in the middle of whatever it does."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def portable(error: Exception) -> Exception:
    """The error as it can be sent to another process."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:  # pickle calls the class with the message alone, which it may not accept
        return RuntimeError(f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def _quiet_start() -> Iterator[None]:
    """Processes started inside are deaf to Ctrl-C, which their parent hears, and use one thread each."""
    resource_tracker.ensure_running()  # starting it unblocks the signal again, so it goes first
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # children inherit the mask
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if threads is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = threads
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def usable_cores() -> int:
    """Number of cores that this process may use: those it may run on, and no more than its control groups grant."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([own, *(math.ceil(quota) for quota in _quotas())]))


def _quotas(groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> Iterator[float]:
    """CPU quotas of this process's control groups and of all above them, in cores; of both versions of control groups."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [mount, mount / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [mount / controllers, mount / "cpu"]
        else:
            continue
        inside = Path(path.lstrip("/"))
        # A container often sees its own group as the root, though the path tells where it is outside.
        for folder in {root / part for root in roots for part in (inside, *inside.parents)}:
            quota = _read_numbers(folder / "cpu.max")
            if quota is None:
                parts = [_read_numbers(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
                quota = [part[0] for part in parts if part] or None
            if quota is not None and len(quota) == 2 and min(quota) > 0:
                yield quota[0] / quota[1]


def _read_numbers(path: Path) -> list[int] | None:
    """The numbers in a file; None if there is no such file, or if it says "max"."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return None
