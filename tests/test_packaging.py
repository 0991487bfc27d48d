"""What setup.cfg promises must stay true as folders are added."""

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def options():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def test_every_package_is_listed(options):
    inside = {"reinforcegen_envs"} | {
        ".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "reinforcegen_envs").rglob("__init__.py")
    }
    moved = {
        ".".join(["reinforcegen_envs", *path.parent.relative_to(ROOT).parts])
        for top in ("agents", "wrappers")
        for path in (ROOT / top).rglob("__init__.py")
    }
    listed = set(options["options"]["packages"].split())
    assert listed == inside | moved


@pytest.mark.parametrize("name", ["agents", "wrappers"])
def test_moved_packages_are_linked_for_editors_and_type_checkers(name):
    assert (ROOT / "reinforcegen_envs" / name).samefile(ROOT / name)


def test_constraints_pin_exactly_and_name_no_index():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pin = re.compile(r"[\w.-]+==[\w.]+(; python_version >= \"3\.11\")?")
    assert [line for line in lines if not pin.fullmatch(line)] == []
