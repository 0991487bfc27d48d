"""What several test modules share."""

import pytest

from reinforcegen_envs.demos.generate import source_file
from reinforcegen_envs.demos.hdf5 import read_demos


@pytest.fixture(scope="session")
def source_demos():
    """The shipped source demonstrations of Threading."""
    return read_demos(source_file("Threading"), "Threading")
