"""What several test modules share."""

import pytest

from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.tasks import TASKS

pytest.register_assert_rewrite("helpers")  # it holds assertions


@pytest.fixture(scope="session")
def source_demos():
    """The shipped source demonstrations of Threading."""
    return read_demos(source_file("Threading"), "Threading")


@pytest.fixture(scope="session")
def weights():
    """Folder of Threading's shipped base weights and predictors."""
    return str(Bundle.open(TASKS["Threading"]).folder)
