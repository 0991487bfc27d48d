"""Where compiled things are kept: scenes, and numba's machine code. Imported before any function is declared compiled."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numba
from numba.core import event

from reinforcegen_envs.errors import ReinforceGenError

VARIABLE = "REINFORCEGEN_CACHE"
COMPILING = "reinforcegen_envs: machine code is not there yet; compiling takes a minute, once"
_temporary: tempfile.TemporaryDirectory[str] | None = None  # removed when the process ends


class CacheError(ReinforceGenError, RuntimeError):
    """There is no folder for compiled things."""


def cache_folder() -> Path:
    """The cache folder: ``$REINFORCEGEN_CACHE``, else ``reinforcegen_envs`` in the user's cache folder.

    Raises:
        CacheError: the variable is not set, and the user has no home folder.
    """
    if folder := os.environ.get(VARIABLE):
        return Path(folder)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reinforcegen_envs"
    except RuntimeError as error:  # no HOME, and a user id without a name
        raise CacheError(f"this user has no home folder; set {VARIABLE} to a folder that can be written") from error


def keep_compiled_code(package: Path) -> None:
    """See to it that numba finds a folder for its machine code, as it refuses to import a module otherwise.

    By itself it writes beside the sources, which stays so where it can. Else it gets ``numba`` in the cache folder, and
    where that cannot be written either, a folder that lives as long as the process, with a warning.

    Args:
        package: folder of the package.

    Raises:
        CacheError: not even a temporary folder can be made.
    """
    global _temporary
    if numba.config.CACHE_DIR and _writable(Path(numba.config.CACHE_DIR)):
        return  # the user's own NUMBA_CACHE_DIR
    if all(_writable(module.with_name("__pycache__")) for module in package.rglob("__init__.py")):
        return
    try:
        folder = cache_folder() / "numba"
        if _writable(folder):
            numba.config.CACHE_DIR = str(folder)
            return
        reason = f"neither {package} nor {folder} can be written"
    except CacheError:
        reason = f"{package} cannot be written, and this user has no home folder"
    advice = f"{reason}. Set {VARIABLE} to a folder that can be"
    try:
        _temporary = tempfile.TemporaryDirectory(prefix="reinforcegen_envs-")
    except OSError as error:
        raise CacheError(f"no folder for compiled code: {advice}") from error
    numba.config.CACHE_DIR = _temporary.name
    warnings.warn(
        f"compiled code is not kept, so every process compiles anew for a minute: {advice}",
        RuntimeWarning,
        stacklevel=3,
    )


class _Tell(event.Listener):
    """Says, once, that the package's functions are being compiled: the first step of all takes a minute, and shows nothing."""

    def __init__(self) -> None:
        self.told = multiprocessing.parent_process() is not None  # workers leave it to whoever started them

    def on_start(self, event: Any) -> None:
        """A function is not in the cache, and is compiled."""
        module = str(event.data["dispatcher"].py_func.__module__)
        if not self.told and module.partition(".")[0] == __name__.partition(".")[0]:
            self.told = True
            print(COMPILING, file=sys.stderr, flush=True)

    def on_end(self, event: Any) -> None:
        """Nothing."""


tell = _Tell()
event.register("numba:compile", tell)


def _writable(folder: Path) -> bool:
    """Whether files can be made in a folder, which is made if it is missing: numba's own criterion."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def compiled_code_is_kept() -> bool:
    """Whether numba's machine code outlives this process; see `keep_compiled_code`."""
    return _temporary is None
