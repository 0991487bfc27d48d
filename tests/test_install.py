"""Installs where nothing can be written: read-only folders, no home, a user id without a name."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import errors_of

import reinforcegen_envs
from reinforcegen_envs.caching import COMPILING

# A path below a file can be made by nobody; a folder's permissions would not stop root.
NOWHERE = "/dev/null/nowhere"
COMPILE = """
import numpy as np, numba
from reinforcegen_envs import poses
poses.quat_to_matrix(np.array([1.0, 0, 0, 0]))
print("cache:", numba.config.CACHE_DIR)
"""
MAKE = """
import gymnasium as gym, reinforcegen_envs
gym.make("ReinforceGen/D0-Threading-v0", disable_env_checker=True)
"""


@pytest.fixture(scope="module")
def read_only(tmp_path_factory):
    """Folder with a copy of the package beside whose modules nothing can be written."""
    site = tmp_path_factory.mktemp("site")
    ignore = shutil.ignore_patterns("__pycache__", "*.hdf5", "*.safetensors")
    shutil.copytree(Path(reinforcegen_envs.__file__).parent, site / "reinforcegen_envs", ignore=ignore)
    for module in site.rglob("__init__.py"):
        module.with_name("__pycache__").touch()
    return site


def run(code, site, folder, **variables):
    """Run ``code`` in ``folder`` with the package of ``site``; a variable of None is unset."""
    folder.mkdir()
    unset = ("XDG_CACHE_HOME", "REINFORCEGEN_CACHE", "NUMBA_CACHE_DIR", "MUJOCO_GL")
    environment = {k: v for k, v in os.environ.items() if k not in unset}
    environment |= {"PYTHONPATH": str(site), "HOME": NOWHERE} | variables
    environment = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=120)


def test_the_cache_folder_that_the_user_names_takes_compiled_code_and_scenes(read_only, tmp_path):
    cache = tmp_path / "cache"
    process = run(COMPILE + MAKE, read_only, tmp_path / "work", REINFORCEGEN_CACHE=str(cache))
    assert (process.returncode, process.stderr) == (0, f"{COMPILING}\n"), process.stderr
    assert list((cache / "numba").rglob("*quat_to_matrix*.nbi")) and list(cache.glob("threading-physics-*.mjb"))
    process = run(COMPILE, read_only, tmp_path / "again", REINFORCEGEN_CACHE=str(cache))
    assert (process.returncode, process.stderr) == (0, ""), "it is there now"


def test_the_users_cache_folder_takes_compiled_code_of_a_read_only_install(read_only, tmp_path):
    process = run(COMPILE, read_only, tmp_path / "work", HOME=str(tmp_path))
    assert (process.returncode, errors_of(process)) == (0, "")
    assert list((tmp_path / ".cache" / "reinforcegen_envs" / "numba").rglob("*.nbi"))


@pytest.mark.parametrize("variables", [{}, {"REINFORCEGEN_CACHE": NOWHERE}, {"NUMBA_CACHE_DIR": NOWHERE}])
def test_with_no_place_at_all_it_works_and_names_the_variable_to_set(variables, read_only, tmp_path):
    process = run(COMPILE, read_only, tmp_path / "work", **variables)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("Warning") == 1 and "Set REINFORCEGEN_CACHE to a folder" in process.stderr
    temporary = Path(process.stdout.split("cache: ")[1].strip())
    assert temporary.parent.is_dir() and not temporary.exists(), "left behind"
    process = run(MAKE, read_only, tmp_path / "make", **variables)
    assert process.returncode == 1 and "set REINFORCEGEN_CACHE" in process.stderr.splitlines()[-1]


def test_a_user_without_home_and_name(read_only, tmp_path):
    """As in a container that was started with a number for a user."""
    nameless = """
import pwd
def unknown(uid):
    raise KeyError("getpwuid(): uid not found")
pwd.getpwuid = unknown
"""
    process = run(nameless + COMPILE, read_only, tmp_path / "work", HOME=None)
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("Warning") == 1 and "no home folder. Set REINFORCEGEN_CACHE" in process.stderr
    process = run(nameless + MAKE, read_only, tmp_path / "make", HOME=None)
    assert process.returncode == 1
    assert "CacheError: this user has no home folder; set REINFORCEGEN_CACHE" in process.stderr.splitlines()[-1]
    cache = tmp_path / "cache"
    process = run(nameless + COMPILE + MAKE, read_only, tmp_path / "set", HOME=None, REINFORCEGEN_CACHE=str(cache))
    assert (process.returncode, errors_of(process)) == (0, "")
    assert not list((tmp_path / "work").iterdir()) and not list((tmp_path / "set").iterdir()), "a folder named ~"


def test_a_writable_install_and_the_users_own_choice_stay(read_only, tmp_path):
    site = Path(reinforcegen_envs.__file__).parents[1]
    process = run(COMPILE, site, tmp_path / "work", REINFORCEGEN_CACHE=str(tmp_path / "cache"))
    assert (process.stdout, errors_of(process)) == ("cache: \n", "") and not (tmp_path / "cache").exists()
    chosen = str(tmp_path / "chosen")
    process = run(COMPILE, read_only, tmp_path / "own", NUMBA_CACHE_DIR=chosen, REINFORCEGEN_CACHE=NOWHERE)
    assert (process.stdout, errors_of(process)) == (f"cache: {chosen}\n", "")
