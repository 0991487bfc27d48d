"""Modules that users name, to bring tasks of their own: importable ones, and files."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from reinforcegen_envs.errors import InvalidArgument


def load_task_module(module: str | os.PathLike[str]) -> ModuleType:
    """Import a module that registers tasks.

    Args:
        module: name of an importable module or of one in the working directory, or path of a file ``.py``.

    Raises:
        InvalidArgument: there is no such module or file, or its name is another module's.
    """
    name = os.fspath(module)
    if not name.endswith(".py"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise  # the module is there, and misses something itself
        name += ".py"
        if not Path(name).is_file():
            raise InvalidArgument(
                f"there is no module {module!r}, and no file {name} in {Path.cwd()}; name an importable module or the path "
                "of a Python file that calls register_task"
            )
    path = Path(name).resolve()
    if not path.is_file():
        raise InvalidArgument(f"there is no file {name}; name a Python file that calls register_task")
    return _load_file(path)


def _load_file(path: Path) -> ModuleType:
    """Import a file under its own name, once."""
    for there in (sys.modules.get(path.stem), sys.modules.get("__main__"), sys.modules.get("__mp_main__")):
        file = getattr(there, "__file__", None)
        if there is not None and file is not None and Path(file).resolve() == path:
            return there
    if path.stem in sys.modules:
        raise InvalidArgument(f"{path} cannot be imported: there is a module {path.stem!r} already; rename the file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module
