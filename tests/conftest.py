"""What several test modules share."""

import pytest

from reinforcegen_envs import caching
from reinforcegen_envs.demos.hdf5 import read_demos
from reinforcegen_envs.demos.sources import source_file
from reinforcegen_envs.policies.bundle import Bundle
from reinforcegen_envs.registration import register_task
from reinforcegen_envs.tasks import TASKS

pytest.register_assert_rewrite("helpers")  # it holds assertions

# Minutes each: begun last, they would keep one test process at work while the other has nothing left to do.
LONG = ("test_readme_pipeline.py", "test_what_draws.py")


caching.tell.told = True  # what tests print must not depend on which is the first


def pytest_collection_modifyitems(items):
    """The longest tests first."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session")
def source_demos():
    """The shipped source demonstrations of Threading."""
    return read_demos(source_file("Threading"), "Threading")


@pytest.fixture(scope="session")
def weights():
    """Folder of Threading's shipped base weights and predictors."""
    return str(Bundle.open(TASKS["Threading"]).folder)


@pytest.fixture
def own_task():
    """A task from outside, with variants of its own and without weights."""
    from helpers import registrations_undone  # not before its assertions are to be rewritten

    threading = TASKS["Threading"]
    places = threading.variants["D0"]
    task = type("OwnTask", (threading,), {"name": "Own", "variants": {"Near": places, "Far": places}})
    task.__module__ = __name__
    with registrations_undone():
        yield register_task(task)
