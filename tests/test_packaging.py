"""What setup.cfg promises must stay true as folders are added."""

import ast
import configparser
import re
import sys
from pathlib import Path

import pytest

import reinforcegen_envs

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


def test_the_version_has_one_home(options):
    assert options["metadata"]["version"] == "attr: reinforcegen_envs.__version__"
    citation = (ROOT / "CITATION.cff").read_text()
    assert re.findall(r"^version: (.*)$", citation, re.MULTILINE) == [reinforcegen_envs.__version__]


def test_everything_imported_is_declared(options):
    """Lazy imports included: each is of a requirement, or of an extra's."""
    extras = options["options.extras_require"].values()
    lines = "\n".join([options["options"]["install_requires"], *extras])
    declared = {name.replace("-", "_") for name in re.findall(r"^[\w.-]+", lines, re.MULTILINE)}
    imported = set()
    for path in (
        path for folder in ("reinforcegen_envs", "agents", "wrappers") for path in (ROOT / folder).rglob("*.py")
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    imported = {"pillow" if name == "PIL" else name for name in imported}
    assert imported - set(sys.stdlib_module_names) - {"reinforcegen_envs"} <= declared


def test_every_data_file_is_packaged(options):
    patterns = options["options.package_data"]["reinforcegen_envs"].split()
    data = [
        path.relative_to(ROOT / "reinforcegen_envs")
        for path in (ROOT / "reinforcegen_envs").rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".nbi", ".nbc")
    ]
    assert len(data) > 1
    assert [path for path in data if not any(path.match(pattern.removeprefix("**/")) for pattern in patterns)] == []
