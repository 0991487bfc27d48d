"""Tests that draw need an OpenGL back-end that was chosen before Python started; without one a process of its own runs them."""

from __future__ import annotations

import os
import subprocess
import sys

import mujoco
import pytest

BACKENDS = ("egl", "osmesa")
CAN_DRAW = getattr(getattr(mujoco, "GLContext", None), "__module__", "") in [f"mujoco.{name}" for name in BACKENDS]
draws = pytest.mark.skipif(not CAN_DRAW, reason="no back-end in MUJOCO_GL; a process of its own runs it")
does_not_draw = pytest.mark.skipif(CAN_DRAW, reason="this process draws itself")


def run_what_draws(file: str, chosen: str = "") -> None:
    """Run a file's tests, or those that pytest's -k chooses, in a process that can draw; skip where none can."""
    for backend in BACKENDS:
        environment = {**os.environ, "MUJOCO_GL": backend}
        probe = "import mujoco; context = mujoco.GLContext(8, 8); context.make_current(); context.free()"
        if subprocess.run([sys.executable, "-c", probe], capture_output=True, env=environment).returncode == 0:
            break
    else:
        pytest.skip("neither libegl1 nor libosmesa6 is installed")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *(["-k", chosen] if chosen else []),
        file,
    ]
    process = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert process.returncode == 0, process.stdout
