"""The one thread that draws: every OpenGL context of the process is opened, used and freed in it.

A context may be current in one thread at a time only (EGL_BAD_ACCESS otherwise), while environments are stepped, closed
and garbage-collected in any. The thread starts with the first job. At the interpreter's exit it frees what is still
open, before the back-end ends OpenGL itself. In a forked child OpenGL is gone: a driver's own threads are not copied,
and the child would wait for them for ever.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from reinforcegen_envs.errors import ReinforceGenError

Result = TypeVar("Result")
Job = tuple["Future[Any]", Callable[[], Any]]


class RenderingError(ReinforceGenError, RuntimeError):
    """No frame can be drawn on this machine, or in this process."""


class Freeable(Protocol):
    """Holds OpenGL's resources."""

    def free(self) -> None:
        """Give them back; a second call does nothing. Runs in the drawing thread."""
        ...


class _GLThread:
    """Runs jobs one after the other.

    Attributes:
        open: what has to be freed before OpenGL ends; changed by jobs alone.
    """

    def __init__(self) -> None:
        self.open: set[Freeable] = set()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()  # whose `put` is safe in the garbage collector, too
        self._thread = threading.Thread(target=self._work, name="reinforcegen-gl", daemon=True)
        self._thread.start()

    def put(self, job: Callable[[], Result]) -> Future[Result]:
        """Queue a job."""
        future: Future[Result] = Future()
        self._jobs.put((future, job))
        return future

    def end(self) -> None:
        """Finish what is queued, free everything, end the thread."""
        self.put(self._free_all)
        self._jobs.put(None)
        self._thread.join()

    def current(self) -> bool:
        """Whether the caller is this thread."""
        return threading.current_thread() is self._thread

    def _free_all(self) -> None:
        for resource in list(self.open):
            resource.free()

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            future, job = item
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)
            del item, future, job  # else they would keep what they refer to alive until the next job


_lock = threading.Lock()
_thread: _GLThread | None = None
_exit_registered = False
_unusable = ""  # why nothing can be drawn (any more) in this process


def call(job: Callable[[], Result]) -> Result:
    """Run ``job`` in the drawing thread; return or raise what it returns or raises.

    Raises:
        RenderingError: this process was forked from one that had opened OpenGL, or it is ending.
    """
    global _thread
    with _lock:
        if _unusable:
            raise RenderingError(_unusable)
        if _thread is None:
            _thread = _GLThread()
        thread = _thread
    return job() if thread.current() else thread.put(job).result()


def post(job: Callable[[], Any]) -> None:
    """Run ``job`` in the drawing thread some time later, if there is one; for finalizers: it never waits or raises."""
    if (thread := _thread) is not None:
        thread.put(job)


def opened(resource: Freeable) -> None:
    """Remember what is to be freed at exit. To be called by a job, after it has opened a context."""
    global _exit_registered
    assert _thread is not None and _thread.current()
    _thread.open.add(resource)
    if not _exit_registered:
        # Handlers run last in, first out: the back-end has just registered the one that ends OpenGL, ours comes before.
        atexit.register(_end)
        _exit_registered = True


def freed(resource: Freeable) -> None:
    """Forget a resource. To be called by a job."""
    assert _thread is not None and _thread.current()
    _thread.open.discard(resource)


def _end() -> None:
    """Free what is open; nothing is drawn afterwards."""
    global _thread, _unusable
    with _lock:
        thread, _unusable = _thread, "the interpreter is ending; draw frames before"
    if thread is not None:
        thread.end()
        _thread = None


def _forget() -> None:
    """In a forked child: leave everything of OpenGL alone, its end included, as every call may wait for ever."""
    global _lock, _thread, _unusable
    _lock = threading.Lock()  # another thread of the parent may have held it
    if _thread is None:
        return
    for resource in _thread.open:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(resource))  # never collected, so that no destructor runs
    atexit.unregister(_end)
    if egl := sys.modules.get("mujoco.egl"):
        atexit.unregister(egl.EGL.eglTerminate)
    if glfw := sys.modules.get("glfw"):
        atexit.unregister(glfw.terminate)
    _thread = None
    _unusable = (
        "this process was forked from one that had drawn frames, and OpenGL does not survive that. Start processes with "
        "the 'spawn' or 'forkserver' method (AsyncVectorEnv: context=\"spawn\"), or draw in the parent only afterwards"
    )


os.register_at_fork(after_in_child=_forget)
