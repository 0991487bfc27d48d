"""What several test modules share."""

from pathlib import Path

import pytest

from reinforcegen_envs.demos.generate import source_file
from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.policies.shipped import SHIPPED


@pytest.fixture(scope="session")
def source_demos():
    """The shipped source demonstrations of Threading."""
    return read_demos(source_file("Threading"), "Threading")


@pytest.fixture(scope="session")
def weights():
    """Folder of Threading's base weights and predictors: the shipped one, or a local one while none is shipped."""
    folders = [SHIPPED / "threading", Path(__file__).parents[1] / "data" / "w1"]
    for folder in folders:
        if (folder / "base.safetensors").is_file():
            return str(folder)
    pytest.fail(f"no weights in any of {[str(folder) for folder in folders]}; train some with agents.bc")
