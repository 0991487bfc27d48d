"""Gymnasium environments for long-horizon manipulation: planned connects, learned skills, residual RL.

Importing this package registers the ``ReinforceGen/...`` ids.
"""

import os as _os
from pathlib import Path as _Path

try:
    import mujoco as _mujoco  # noqa: F401
except AttributeError as error:  # PyOpenGL's way of saying that it found no library
    raise ImportError(
        f"mujoco cannot load the OpenGL library that MUJOCO_GL={_os.environ.get('MUJOCO_GL', '')!r} asks for "
        f"({error}). Install it (Debian, Ubuntu: libegl1 for egl, libosmesa6 for osmesa) or unset MUJOCO_GL: "
        "only rendering needs it"
    ) from error

from reinforcegen_envs import caching as _caching

_caching.keep_compiled_code(_Path(__file__).parent)  # before the imports below declare compiled functions

from reinforcegen_envs.registration import load_entry_points, register_envs, register_task  # noqa: E402

__version__ = "0.1.0"

register_envs()
load_entry_points()

__all__ = ["__version__", "register_envs", "register_task"]
